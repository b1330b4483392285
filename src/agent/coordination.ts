import type { Clock } from '../base/clock.ts'
import { checkpointIntervalMillisMax, holdTimeoutMillisDefault } from '../base/limits.ts'
import type { Closable } from '../base/shutdown.ts'
import { Cut, TcpNetwork, type CutStatus, type CutStream, type PeerNetwork } from '../cut/cut.ts'
import type { AgentEvents } from './events.ts'
import type { AgentConfig } from './options.ts'
import type { StateDirectory } from './state-directory.ts'

export interface CoordinationHost {
  readonly config: AgentConfig
  readonly clock: Clock
  readonly events: AgentEvents
  readonly directory: StateDirectory
  readonly stream: CutStream
  readonly network: PeerNetwork | undefined
}

/** As many as the VRA waits for at most. */
const waitingIdsMax = 64

/** A checkpoint that came to nothing is tried again after this, not after the whole interval. */
const retryMillis = 1_000

/** When this agent makes checkpoints, alone or with others, and what of it outlives a restart. */
export class Coordination implements Closable {
  readonly #host: CoordinationHost
  readonly #cut: Cut
  #requested: Promise<unknown> = Promise.resolve()
  /** Of the VRA, from a time at which there could be none. */
  readonly #waitingIds: number[] = []

  private constructor(host: CoordinationHost, cut: Cut) {
    this.#host = host
    this.#cut = cut
  }

  /** Goes on with what the VRA said before the restart; other agents reach this one on return. Fails CONFIG_INVALID. */
  static async open(host: CoordinationHost): Promise<Coordination> {
    const { config, directory } = host
    const { coordinator, seenTerm, lastMarker } = directory.state
    const cut = await Cut.open({
      ...host,
      agent: config.agentId,
      network: host.network ?? new TcpNetwork(config.vra.tls),
      listen: config.peers?.listen,
      holdTimeoutMillis: config.peers?.holdTimeoutMillis ?? holdTimeoutMillisDefault,
      saved: {
        highestTerm: Math.max(seenTerm?.term ?? 0, coordinator?.term ?? 0),
        coordinator:
          (seenTerm?.term ?? 0) > (coordinator?.term ?? 0) ? seenTerm!.coordinator : (coordinator?.agent ?? ''),
        highestCounter: lastMarker.counter,
      },
      saveTerm: seen => directory.save({ seenTerm: seen }),
    })
    const coordination = new Coordination(host, cut)
    coordination.appointed()
    return coordination
  }

  /** Where the other agents of the VPG reach this one, for Hello; empty: nowhere. */
  get peerAddress(): string {
    const { listen, advertise } = this.#host.config.peers ?? {}
    if (advertise !== undefined) return advertise
    if (listen === undefined || this.#cut.port === undefined) return ''
    return `${listen.host.includes(':') ? `[${listen.host}]` : listen.host}:${this.#cut.port}`
  }

  /** The state has the VRA's newest word on who coordinates. */
  appointed(): void {
    const { vpgId, stream, coordinator } = this.#host.directory.state
    if (vpgId === undefined || stream === undefined || coordinator === undefined) return
    this.#cut.appoint({ vpg: vpgId, stream, coordinator })
  }

  /** Makes one every interval, with the link up or down, until the signal; where another agent coordinates, none. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#host
    let lastMillis = clock.monotonicMillis()
    while (!signal.aborted) {
      const waitMillis = lastMillis + this.#intervalMillis() - clock.monotonicMillis()
      // A second at most, so that another interval that the VRA tells takes effect.
      await clock.sleep(Math.max(1, Math.min(waitMillis, 1_000)), signal).catch(() => undefined)
      const now = clock.monotonicMillis()
      if (signal.aborted || now < lastMillis + this.#intervalMillis()) continue
      const made = await this.checkpoint(this.#nextId())
      lastMillis = made ? now : now - this.#intervalMillis() + Math.min(this.#intervalMillis(), retryMillis)
    }
  }

  /** Makes one now, where this agent coordinates; false where that came to nothing. Never rejects. */
  async checkpoint(requestId: number): Promise<boolean> {
    const outcome = await this.#cut.checkpoint(requestId)
    const made = outcome?.failure === undefined
    if (!made && requestId !== 0) this.#wait(requestId)
    return made
  }

  /** The VRA asks for one; it sees what becomes of it by the markers, or by the status. */
  request(requestId: number): void {
    this.#wait(requestId)
    this.requestWherePossible()
  }

  /** One more than those of the interval, where nothing stands against it now. */
  requestWherePossible(): void {
    if (this.#cut.isReady) this.#requested = this.checkpoint(this.#nextId())
  }

  /** Why this agent makes or grants none, a sentence for people; empty where it does. */
  whyNone(): string {
    return this.#cut.whyNoCheckpoints()
  }

  /** The newest counter that must not be used again. */
  get highestCounter(): number {
    return this.#cut.status().counter
  }

  status(): CutStatus {
    return this.#cut.status()
  }

  async close(): Promise<void> {
    await this.#cut.close()
    await this.#requested
  }

  /** A checkpoint that was asked for while there could be none is made when there can be one. */
  #nextId(): number {
    return (this.#cut.isReady ? this.#waitingIds.shift() : undefined) ?? 0
  }

  #wait(requestId: number): void {
    this.#waitingIds.push(requestId)
    if (this.#waitingIds.length > waitingIdsMax) this.#waitingIds.shift()
  }

  #intervalMillis(): number {
    return this.#host.directory.state.coordinator?.checkpointIntervalMillis ?? checkpointIntervalMillisMax
  }
}
