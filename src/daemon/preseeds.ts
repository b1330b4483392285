import { randomUUID } from 'node:crypto'
import type { Aging } from '../aging/aging.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith, failureToRecord } from '../base/failure.ts'
import { preseedsRunningMax, regionSizeBytes } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import type { PreseedJob } from '../control/service.ts'
import type { VolumeDefinition, VpgDefinition } from '../timeline/definition.ts'
import type { VpgEntry } from './vpg-table.ts'

const jobsKeptMax = 50
const storeRetryMillis = 5_000

const stopped = new Failure('CLOSING', 'the daemon ends; the next one goes on with it')

type VolumeKey = `${string}/${number}`

function keyOf({ definition }: VpgEntry, { number }: VolumeDefinition): VolumeKey {
  return `${definition.id}/${number}`
}

type Changing<T> = { -readonly [K in keyof T]: T[K] }

export interface PreseedParts {
  readonly aging: Pick<Aging, 'beginPreseed' | 'preseedRegion' | 'endPreseed'>
  readonly clock: Clock
  /** Where agents hear that they may go on. */
  readonly redefine: (entry: VpgEntry, definition: VpgDefinition) => void
  readonly told: (event: PreseedEvent) => void
}

export interface PreseedEvent {
  readonly vpg: string
  readonly volume: string
  readonly file: string
  readonly state: PreseedJob['state']
  readonly failure: string | undefined
}

/**
 * Images that are read into mirrors: jobs that outlive the daemon, for the definition of the volume says of each where it is. What ends one by a
 * cancellation or a failure ends it for good; what ends the daemon does not.
 */
export class Preseeds {
  readonly #parts: PreseedParts
  readonly #closing = new AbortController()
  readonly #permits = new Permits(preseedsRunningMax)
  readonly #jobs = new Map<string, Changing<PreseedJob>>()
  readonly #running = new Map<string, { readonly stop: AbortController; readonly done: Promise<void> }>()
  /** Volumes of which somebody waits to hear that it is begun: until then there is no job, and of two the mirror would have one's file and the job the other's. */
  readonly #beginning = new Set<VolumeKey>()

  constructor(parts: PreseedParts) {
    this.#parts = parts
  }

  /** Fails BUSY while an image of the volume is being read; and as AgingService.beginPreseed does. */
  async start(entry: VpgEntry, volume: VolumeDefinition, file: string): Promise<PreseedJob> {
    const { aging } = this.#parts
    if (this.#isRunning(entry, volume))
      throw new Failure('BUSY', `an image of ${entry.definition.name} ${volume.name} is being read already`)
    const key = keyOf(entry, volume)
    this.#beginning.add(key)
    try {
      const definition = await aging.beginPreseed({ vpg: entry.definition.id, volume: volume.number, file })
      this.#parts.redefine(entry, definition)
    } finally {
      this.#beginning.delete(key)
    }
    return { ...this.#begin(entry, volume, file) }
  }

  /** Goes on with those that have no job: the daemon was in them when it ended, or nobody waited until they were begun. */
  resume(entries: readonly VpgEntry[]): void {
    for (const entry of entries)
      for (const volume of entry.definition.volumes)
        if (volume.preseed?.state === 'under-way' && !this.#isRunning(entry, volume))
          this.#begin(entry, volume, volume.preseed.file)
  }

  /** Newest first. */
  list(): PreseedJob[] {
    return [...this.#jobs.values()].map(job => ({ ...job })).reverse()
  }

  /** Fails NOT_FOUND. */
  get(id: string): PreseedJob {
    const job = this.#jobs.get(id)
    if (job === undefined) throw new Failure('NOT_FOUND', `there is no preseed ${id}`)
    return { ...job }
  }

  /** Returns when it has ended, cancelled or otherwise. */
  async cancel(id: string): Promise<PreseedJob> {
    this.get(id)
    const running = this.#running.get(id)
    running?.stop.abort(new Failure('CLOSING', 'the preseed was cancelled'))
    await running?.done
    return this.get(id)
  }

  /** Stops between two regions; the next daemon goes on there. */
  async close(): Promise<void> {
    this.#closing.abort()
    const running = [...this.#running.values()]
    for (const { stop } of running) stop.abort()
    await Promise.all(running.map(({ done }) => done))
  }

  #isRunning(entry: VpgEntry, volume: VolumeDefinition): boolean {
    const isOfVolume = (job: PreseedJob): boolean => job.vpg === entry.definition.name && job.volume === volume.name
    return (
      this.#beginning.has(keyOf(entry, volume)) ||
      [...this.#jobs.values()].some(job => job.state === 'running' && isOfVolume(job))
    )
  }

  #begin(entry: VpgEntry, volume: VolumeDefinition, file: string): PreseedJob {
    const id = randomUUID()
    const job: Changing<PreseedJob> = {
      id,
      state: 'running',
      vpg: entry.definition.name,
      volume: volume.name,
      file,
      sizeBytes: volume.sizeBytes,
      doneBytes: 0,
      dataBytes: 0,
      startedAtMicros: this.#parts.clock.timestampMicros(),
      endedAtMicros: undefined,
      failure: undefined,
    }
    this.#jobs.set(id, job)
    this.#forgetOldest()
    const stop = new AbortController()
    this.#running.set(id, { stop, done: this.#run(job, entry, volume, stop.signal) })
    return job
  }

  async #run(job: Changing<PreseedJob>, entry: VpgEntry, volume: VolumeDefinition, signal: AbortSignal): Promise<void> {
    const argument = { vpg: entry.definition.id, volume: volume.number }
    try {
      await this.#permits.with(() => this.#readAll(job, entry, argument, signal))
      job.state = 'done'
    } catch (error) {
      const failure =
        error instanceof Failure
          ? error
          : signal.aborted
            ? stopped
            : new Failure('PEER_LOST', `the preseed ended unexpectedly: ${String(error)}`)
      job.state = failure.code === 'CLOSING' ? 'cancelled' : 'failed'
      job.failure = failureToRecord(failure)
    }
    // A daemon that ends leaves it as it is.
    if (!signal.aborted || signal.reason instanceof Failure) await this.#end(entry, argument)
    job.endedAtMicros = this.#parts.clock.timestampMicros()
    this.#running.delete(job.id)
    const { vpg, volume: name, file, state } = job
    this.#parts.told({ vpg, volume: name, file, state, failure: job.failure?.sentence })
  }

  async #readAll(
    job: Changing<PreseedJob>,
    entry: VpgEntry,
    argument: { readonly vpg: VpgEntry['definition']['id']; readonly volume: number },
    signal: AbortSignal,
  ): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      const volume = entry.definition.volumes.find(({ number }) => number === argument.volume)
      if (volume?.preseed?.state !== 'under-way') throw new Failure('CLOSING', 'the volume was removed')
      const region = volume.preseed.doneRegionCount
      job.doneBytes = Math.min(job.sizeBytes, region * regionSizeBytes)
      if (region * regionSizeBytes >= volume.sizeBytes) return
      const read = () => this.#parts.aging.preseedRegion({ ...argument, region })
      const { dataBytes, definition } = await this.#patiently(read, signal)
      job.dataBytes += dataBytes
      // Only this count has changed: nobody needs to be told.
      entry.definition = definition
    }
  }

  async #end(entry: VpgEntry, argument: Parameters<PreseedParts['aging']['endPreseed']>[0]): Promise<void> {
    try {
      const definition = await this.#patiently(() => this.#parts.aging.endPreseed(argument), this.#closing.signal)
      this.#parts.redefine(entry, definition)
    } catch (error) {
      if (!(error instanceof Failure) && !this.#closing.signal.aborted) throw error
      // The volume or the VPG is gone; or the daemon ends, and the next one goes on with it.
    }
  }

  /** A store that does not answer is waited for. */
  async #patiently<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
    for (;;) {
      try {
        return await call()
      } catch (error) {
        if (!failedWith(error, 'STORE_UNAVAILABLE')) throw error
        await this.#parts.clock.sleep(storeRetryMillis, signal)
      }
    }
  }

  #forgetOldest(): void {
    for (const [id, job] of this.#jobs) {
      if (this.#jobs.size <= jobsKeptMax) return
      if (job.state !== 'running') this.#jobs.delete(id)
    }
  }
}
