import { setTimeout as delay } from 'node:timers/promises'
import { FramePool } from './frames.ts'
import { Histogram } from './histogram.ts'
import type { SenderJob, SenderResult } from './job.ts'
import { SinkStream, VraStream, type SentFrame, type SenderStream } from './sender-streams.ts'

// A process that sends: many streams, frames built before, acknowledgements timed. Its parent sends it one SenderJob and gets
// one SenderResult back.
//
// Expectation: per frame of 256 KiB some 10 microseconds to fill in offsets and checksum, 5 for the event loop, and the
// kernel's copy at 5 GB/s: about a third of a core for 1 GB/s, on a machine where the receiver would like to have it all. So it
// is counted, and printed beside the receiver's.

const templateCount = 48
/** A wait that yields to the sockets; a paced run is late by no more than this, and its latency is counted from when it was due. */
const tickMillis = 1

async function run(job: SenderJob): Promise<SenderResult> {
  const pool = new FramePool(job.workload, templateCount, 1)
  const run = new Run(job, pool)
  const streams = await Promise.all(
    job.vpgs.map(async vpg => {
      const hooks = { onAcked: (frame: SentFrame) => run.count(frame), onRoom: () => run.fill() }
      return job.target === 'sink' ? await SinkStream.open(job, hooks) : await VraStream.open(job, vpg, hooks)
    }),
  )
  const { imageFile } = job
  if (imageFile !== undefined) await Promise.all(streams.map(async stream => await stream.sendImage(imageFile)))
  await run.measure(streams)
  await Promise.all(streams.map(async stream => await stream.close()))
  return run.result()
}

class Run {
  readonly #job: SenderJob
  readonly #pool: FramePool
  readonly #latency = new Histogram()
  readonly #lateness = new Histogram()
  #streams: readonly SenderStream[] = []
  #next = 0
  #sending = true
  #measuring = false
  #startMillis = 0
  #endMillis = 0
  #cpu = process.cpuUsage()
  #cpuSeconds = 0
  #sentFrames = 0
  #ackedFrames = 0
  #ackedBytes = 0
  #dueFromMillis = 0

  constructor(job: SenderJob, pool: FramePool) {
    this.#job = job
    this.#pool = pool
  }

  async measure(streams: readonly SenderStream[]): Promise<void> {
    this.#streams = streams
    this.#dueFromMillis = performance.now()
    this.fill()
    await this.#pass(this.#job.warmupMillis)
    this.#measuring = true
    this.#startMillis = performance.now()
    this.#cpu = process.cpuUsage()
    await this.#pass(this.#job.measureMillis)
    this.#sending = false
    // With a number of writes as the aim, the time until the last is durable counts; with a time, that time.
    const counted = this.#job.writeCountMax !== undefined
    if (!counted) this.#stopMeasuring()
    while (streams.some(stream => stream.isBusy)) {
      await delay(tickMillis)
      for (const stream of streams) stream.tick(performance.now())
    }
    if (counted) this.#stopMeasuring()
  }

  #stopMeasuring(): void {
    const used = process.cpuUsage(this.#cpu)
    this.#cpuSeconds = (used.user + used.system) / 1e6
    this.#endMillis = performance.now()
    this.#measuring = false
  }

  async #pass(millis: number): Promise<void> {
    const untilMillis = performance.now() + millis
    const paced = this.#job.rawBytesPerSecond !== undefined
    while (this.#sending && performance.now() < untilMillis) {
      await delay(paced ? tickMillis : 20)
      for (const stream of this.#streams) stream.tick(performance.now())
      this.fill()
      if (this.#streams.every(stream => stream.failure !== undefined)) throw this.#streams[0]?.failure
    }
  }

  /** Sends what there is room for, or what is due, one frame a stream in turn. */
  fill(): void {
    for (let full = 0; this.#sending && full < this.#streams.length;) {
      const dueMillis = this.#dueMillis()
      if (dueMillis > performance.now()) return
      const stream = this.#streams[this.#next]
      this.#next = (this.#next + 1) % this.#streams.length
      if (stream === undefined || !stream.hasRoom) {
        full++
        continue
      }
      full = 0
      stream.send(this.#pool, this.#job.rawBytesPerSecond === undefined ? performance.now() : dueMillis)
      if (this.#measuring && this.#job.rawBytesPerSecond !== undefined)
        this.#lateness.add(performance.now() - dueMillis)
      this.#sentFrames++
      const { writeCountMax } = this.#job
      if (writeCountMax !== undefined && this.#sentFrames * this.#pool.writesPerFrame >= writeCountMax) {
        this.#sending = false
      }
    }
  }

  /** When the next frame is due; in an unpaced run it always is. */
  #dueMillis(): number {
    const { rawBytesPerSecond } = this.#job
    if (rawBytesPerSecond === undefined) return 0
    return this.#dueFromMillis + (this.#sentFrames * this.#pool.rawSizeBytes * 1000) / rawBytesPerSecond
  }

  count(frame: SentFrame): void {
    if (!this.#measuring) return
    this.#ackedFrames++
    this.#ackedBytes += frame.sizeBytes
    this.#latency.add(performance.now() - frame.dueMillis)
  }

  result(): SenderResult {
    return {
      writeCount: this.#ackedFrames * this.#pool.writesPerFrame,
      rawSizeBytes: this.#ackedFrames * this.#pool.rawSizeBytes,
      frameSizeBytes: this.#ackedBytes,
      elapsedSeconds: (this.#endMillis - this.#startMillis) / 1000,
      cpuSeconds: this.#cpuSeconds,
      ratio: this.#pool.ratio,
      latencyCounts: this.#latency.counts,
      latenessCounts: this.#lateness.counts,
      writeCountTotal: this.#sentFrames * this.#pool.writesPerFrame,
    }
  }
}

process.once('message', (job: SenderJob) => {
  run(job).then(
    result => process.send?.({ result }, () => process.disconnect()),
    (error: unknown) => {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      process.send?.({ error: text }, () => process.exit(1))
    },
  )
})
