import type { Clock } from '../base/clock.ts'
import type { FailureCode } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { refusalAgeMillisMax, refusalsKeptMax } from '../base/limits.ts'

/** Who was refused, when last, and why: for whoever wonders why an agent is not connected. */
export interface Refusal {
  /** As the peer named them; undefined where it did not come so far. Under TLS the agent is the certificate's name until then. */
  readonly vpg: string | undefined
  readonly agent: string | undefined
  /** "host:port" of the peer when it was refused last. */
  readonly address: string
  readonly code: FailureCode
  readonly sentence: string
  /** How often, since it was not refused. */
  readonly count: number
  readonly firstTimestampMicros: number
  readonly lastTimestampMicros: number
}

export type RefusedPeer = Pick<Refusal, 'vpg' | 'agent' | 'address' | 'code' | 'sentence'>

/** Whose refusals these are: a VPG's that is served here, or nobody's. */
type Owner = VpgId | undefined

/** The last refusal of every peer, one that was let in since excepted: for each VPG so many, and as many of peers that belong to none. */
export class Refusals {
  readonly #clock: Clock
  /** The longest ago first. */
  readonly #byOwner = new Map<Owner, Map<string, Refusal>>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(owner: Owner, peer: RefusedPeer): void {
    const refusals = this.#byOwner.get(owner) ?? new Map<string, Refusal>()
    this.#byOwner.set(owner, refusals)
    const name = nameOf(peer)
    const before = refusals.get(name)
    const nowMicros = this.#clock.timestampMicros()
    refusals.delete(name)
    refusals.set(name, {
      ...peer,
      count: (before?.count ?? 0) + 1,
      firstTimestampMicros: before?.firstTimestampMicros ?? nowMicros,
      lastTimestampMicros: nowMicros,
    })
    for (const oldest of refusals.keys()) if (refusals.size > refusalsKeptMax) refusals.delete(oldest)
  }

  /** The agent was let in; what was said of it before its VPG was known here is over, too. */
  letIn(vpg: VpgId, names: { readonly vpg: string; readonly agent: string }): void {
    this.#byOwner.get(vpg)?.delete(nameOf({ ...names, address: '' }))
    this.#byOwner.get(undefined)?.delete(nameOf({ ...names, address: '' }))
  }

  forget(vpg: VpgId): void {
    this.#byOwner.delete(vpg)
  }

  /** The newest first; those of long ago are over: a peer that still wants to come tries again within a minute. */
  of(owner: Owner): Refusal[] {
    const sinceMicros = this.#clock.timestampMicros() - refusalAgeMillisMax * 1000
    const refusals = [...(this.#byOwner.get(owner)?.values() ?? [])]
    return refusals.filter(({ lastTimestampMicros }) => lastTimestampMicros >= sinceMicros).reverse()
  }
}

/** A peer that has told no name is its host: every connection has another port. */
function nameOf({ vpg, agent, address }: Pick<Refusal, 'vpg' | 'agent' | 'address'>): string {
  return agent === undefined ? address.slice(0, address.lastIndexOf(':')) : JSON.stringify([vpg, agent])
}
