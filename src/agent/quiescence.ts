import type { AgentEvents } from './events.ts'
import type { ProtectedVolume } from './protected-volume.ts'
import type { StateDirectory } from './state-directory.ts'

// The end of the writing, as the VRA asks for it when the machines move: no guest's write is begun any more; those under way end and get
// their numbers; the local disks are synced; then it is written down, so that no restart takes a write again; and only then the VRA is told. A
// checkpoint that is asked for after that has everything that a guest was ever answered.
//
//   taking writes ── Directive.quiesced_by ──> read-only ── writes under way have ended, synced, saved ──> quiesced: told
//         ^                                        │                                                          │
//         └──────────────────── Directive without it: saved, then writes are taken again, then told ──────────┘

export interface QuiescenceHost {
  readonly directory: StateDirectory
  readonly events: AgentEvents
  volumes(): readonly ProtectedVolume[]
  tellStatus(): void
}

export class Quiescence {
  readonly #host: QuiescenceHost
  /** The operation that asked last; empty: writes are taken. */
  #askedBy: string
  /** Of what was asked, so that what an earlier one waited for is not the answer to a later one of the same operation. */
  #askedCount = 0
  #quiescing: Promise<void> = Promise.resolve()

  constructor(host: QuiescenceHost) {
    this.#host = host
    this.#askedBy = host.directory.state.quiescedBy ?? ''
  }

  /** True: guests may only read. */
  get isAsked(): boolean {
    return this.#askedBy !== ''
  }

  /** For which operation nothing is written any more, durably; empty while that is not so. */
  get by(): string {
    const { quiescedBy = '' } = this.#host.directory.state
    return quiescedBy === this.#askedBy ? quiescedBy : ''
  }

  /** What the VRA has said; the same again changes nothing. */
  directed(by: string): void {
    if (by === this.#askedBy) return
    const asked = ++this.#askedCount
    if (by === '') {
      if (this.#save('')) this.#ended(by)
      return
    }
    this.#askedBy = by
    this.#quiescing = this.#quiescing.then(() => this.#quiesce(by, asked))
  }

  /** Resolves when nothing is being done for it. */
  async settled(): Promise<void> {
    await this.#quiescing
  }

  async #quiesce(by: string, asked: number): Promise<void> {
    for (const volume of this.#host.volumes()) {
      await volume.disk.settled()
      await volume.disk.sync().catch(() => undefined) // the volume is marked so: what may be lost is sent again first
    }
    if (this.#askedCount !== asked) return
    if (this.#save(by)) this.#ended(by)
    else this.#askedBy = this.#host.directory.state.quiescedBy ?? '' // the VRA asks again when the next session begins
  }

  #ended(by: string): void {
    this.#askedBy = by
    this.#host.events.quiesced(by)
    this.#host.tellStatus()
  }

  #save(quiescedBy: string): boolean {
    try {
      this.#host.directory.save({ quiescedBy })
      return true
    } catch (error) {
      this.#host.events.stateNotSaved(error)
      return false
    }
  }
}
