import { Worker } from 'node:worker_threads'
import { assert } from '../../base/assert.ts'
import type { Clock } from '../../base/clock.ts'
import {
  sealedElsewhereSizeBytesMin,
  sealingJobCountMax,
  threadYoungSizeMiBMax,
  waitingForSealerSizeBytesMax,
} from '../../base/limits.ts'
import { endThread } from '../../base/threads.ts'
import { toMessage, type BatchMessage } from './batch-message.ts'
import { SharedPieces } from './pieces.ts'
import type { RecordBatch, Sealer } from './sealer.ts'

export interface ToSealingWorker {
  readonly job: number
  readonly batch: BatchMessage
  readonly piece: SharedArrayBuffer
}

export type FromSealingWorker =
  { readonly type: 'born' } | { readonly type: 'sealed'; readonly job: number; readonly sizeBytes: number }

type Done = (sizeBytes: number | undefined) => void

/** After a thread has died. */
const restartDelayMillis = 10_000

/** Seals in a thread, which is started when there is something for it: an agent with little to do never has one. */
export class SealingThread implements Sealer {
  readonly pieces = new SharedPieces()
  readonly #clock: Clock
  readonly #onDied: (why: string) => void
  readonly #program: URL
  readonly #jobs = new Map<number, Done>()
  #lastJob = 0
  #worker: Worker | undefined
  /** Of the newest thread: it runs, or has ended before it did. */
  #birth: Promise<unknown> = Promise.resolve()
  #isBorn = false
  #mayStartMillis = -Infinity
  #isClosed = false

  constructor(
    clock: Clock,
    onDied: (why: string) => void,
    program: URL = new URL('./sealing-worker.js', import.meta.url),
  ) {
    this.#clock = clock
    this.#onDied = onDied
    this.#program = program
  }

  placeFor({ sizeBytes, waitingBytes }: Parameters<Sealer['placeFor']>[0]): ReturnType<Sealer['placeFor']> {
    if (sizeBytes < sealedElsewhereSizeBytesMin) return 'in line'
    if (this.#worker === undefined) this.#start()
    if (!this.#isBorn) return 'in line'
    if (this.#jobs.size < sealingJobCountMax) return 'elsewhere'
    return waitingBytes < waitingForSealerSizeBytesMax ? 'later' : 'in line'
  }

  seal(batch: RecordBatch, piece: Buffer, done: Done): void {
    assert(this.#isBorn && this.#jobs.size < sealingJobCountMax, 'placeFor() said so')
    const job = ++this.#lastJob
    this.#jobs.set(job, done)
    const message: ToSealingWorker = {
      job,
      batch: toMessage(batch),
      piece: piece.buffer as unknown as SharedArrayBuffer,
    }
    if (this.#jobs.size === 1) this.#worker?.ref()
    this.#worker?.postMessage(message)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#worker?.ref()
    await this.#birth // a library that is being loaded may not bear its thread's end
    await endThread(this.#worker)
  }

  #start(): void {
    if (this.#isClosed || this.#clock.monotonicMillis() < this.#mayStartMillis) return
    const worker = new Worker(this.#program, { resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax } })
    this.#worker = worker
    let why = 'it ended'
    worker.on('message', (message: FromSealingWorker) => this.#take(message))
    worker.on('error', (error: unknown) => {
      why = error instanceof Error ? error.message : String(error)
    })
    worker.on('exit', () => this.#died(why))
    this.#birth = new Promise<void>(resolve => {
      worker.once('message', () => resolve())
      worker.once('exit', () => resolve())
    })
    worker.unref() // a process waits for it only while it has batches
  }

  #take(message: FromSealingWorker): void {
    if (this.#isClosed) return
    if (message.type === 'born') {
      this.#isBorn = true
      return
    }
    const done = this.#jobs.get(message.job)
    assert(done !== undefined, 'the thread answers what it was asked')
    this.#jobs.delete(message.job)
    if (this.#jobs.size === 0) this.#worker?.unref()
    done(message.sizeBytes)
  }

  #died(why: string): void {
    if (this.#isClosed) return
    this.#worker = undefined
    this.#isBorn = false
    this.#mayStartMillis = this.#clock.monotonicMillis() + restartDelayMillis
    this.#onDied(why)
    const lost = [...this.#jobs.values()]
    this.#jobs.clear()
    for (const done of lost) done(undefined)
  }
}
