import type { Clock } from '../base/clock.ts'
import type { AgentStatus, SyncKind } from '../wire/messages.ts'
import { Meter } from './meter.ts'

// How far the streams of a VPG are behind their disks, and how fast they come closer: what agents say now and then, put together with
// what has arrived.

/** Of what an agent has and this VRA has not. */
export interface Backlog {
  /** Age of the oldest write that may be missing here; 0 when none is, undefined while nobody can say. */
  readonly lagMillis: number | undefined
  readonly backlogBytes: number
  /** Until it is sent, at the present rate; undefined where it does not shrink. */
  readonly etaMillis: number | undefined
}

export interface SyncRate {
  readonly rateBytesPerSecond: number
  readonly etaMillis: number | undefined
}

interface Stream {
  readonly meter: Meter
  /** When the newest write that is durable here was numbered, by the agent's clock. */
  newestWriteMicros: number | undefined
  /** When its session ended; undefined while one is open. */
  awaySinceMicros: number | undefined
}

interface Sample {
  readonly atMillis: number
  readonly doneBytes: number
}

/** Rates look back so far: long enough for a few of an agent's reports. */
const rateWindowMillis = 10_000

export class StreamProgress {
  readonly #clock: Clock
  readonly #streams = new Map<number, Stream>()
  readonly #syncs = new Map<number, { readonly kind: SyncKind; readonly totalBytes: number; samples: Sample[] }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  batchDurable(batch: {
    readonly stream: number
    readonly frameSizeBytes: number
    readonly writeCount: number
    readonly timestampMicros: number
  }): void {
    const stream = this.#stream(batch.stream)
    stream.meter.add(batch.writeCount, batch.frameSizeBytes)
    stream.newestWriteMicros = batch.timestampMicros
  }

  sessionOpened(stream: number): void {
    this.#stream(stream).awaySinceMicros = undefined
  }

  sessionClosed(stream: number): void {
    this.#stream(stream).awaySinceMicros = this.#clock.timestampMicros()
  }

  statusChanged(status: AgentStatus): void {
    const atMillis = this.#clock.monotonicMillis()
    for (const { number, sync, syncTotalBytes, syncDoneBytes } of status.volumes) {
      if (sync === 'none') {
        this.#syncs.delete(number)
        continue
      }
      const known = this.#syncs.get(number)
      const last = known?.samples.at(-1)?.doneBytes ?? 0
      const goesOn = known?.kind === sync && known.totalBytes === syncTotalBytes && syncDoneBytes >= last
      const samples = goesOn ? known.samples.filter(sample => atMillis - sample.atMillis <= rateWindowMillis) : []
      samples.push({ atMillis, doneBytes: syncDoneBytes })
      this.#syncs.set(number, { kind: sync, totalBytes: syncTotalBytes, samples })
    }
  }

  /** Since when no session of the stream is open; undefined while one is, or where none was since the start. */
  awaySinceMicros(stream: number): number | undefined {
    return this.#streams.get(stream)?.awaySinceMicros
  }

  /** `queuedBytes` is what the agent said last, `waitingFrameCount` what has come and is not durable. */
  backlog(
    stream: number,
    now: { readonly isConnected: boolean; readonly queuedBytes: number; readonly waitingFrameCount: number },
  ): Backlog {
    const { meter, newestWriteMicros, awaySinceMicros } = this.#stream(stream)
    const { isConnected, queuedBytes: backlogBytes, waitingFrameCount } = now
    const isWaiting = backlogBytes > 0 || waitingFrameCount > 0
    if (isConnected && !isWaiting) return { lagMillis: 0, backlogBytes, etaMillis: 0 }
    // Of an agent that is away and had sent all, only what its guests wrote since can be missing.
    const since = isWaiting ? newestWriteMicros : awaySinceMicros
    const lagMillis = since === undefined ? undefined : Math.max(0, (this.#clock.timestampMicros() - since) / 1000)
    const { bytesPerSecond } = meter.rates()
    const etaMillis = isConnected && bytesPerSecond > 0 ? (1000 * backlogBytes) / bytesPerSecond : undefined
    return { lagMillis, backlogBytes, etaMillis }
  }

  /** Of the volume's synchronisation, as its agent has reported it over the last seconds. */
  syncRate(volume: number): SyncRate {
    const { samples, totalBytes } = this.#syncs.get(volume) ?? { samples: [], totalBytes: 0 }
    const [first, last] = [samples[0], samples.at(-1)]
    const millis = first === undefined || last === undefined ? 0 : last.atMillis - first.atMillis
    const isStale = last === undefined || this.#clock.monotonicMillis() - last.atMillis > rateWindowMillis
    if (millis === 0 || isStale) return { rateBytesPerSecond: 0, etaMillis: undefined }
    const rateBytesPerSecond = (1000 * (last.doneBytes - (first?.doneBytes ?? 0))) / millis
    const leftBytes = Math.max(0, totalBytes - last.doneBytes)
    const etaMillis = rateBytesPerSecond > 0 ? (1000 * leftBytes) / rateBytesPerSecond : undefined
    return { rateBytesPerSecond, etaMillis }
  }

  #stream(number: number): Stream {
    const known = this.#streams.get(number)
    if (known !== undefined) return known
    const begun = { meter: new Meter(this.#clock), newestWriteMicros: undefined, awaySinceMicros: undefined }
    this.#streams.set(number, begun)
    return begun
  }
}
