import type { Clock } from '../base/clock.ts'
import type { Failure } from '../base/failure.ts'
import type { AgentEvents } from './events.ts'
import type { AgentConfig, LinkRefusal } from './options.ts'
import { Session, type SessionOwner } from './session.ts'

const retryDelayMillisFirst = 200
const retryDelayMillisMax = 5_000
/** After a refusal that somebody has to mend: the configuration, a definition, a newer VRA, a sync. */
const refusedDelayMillis = 30_000

/** Keeps a session with the VRA open: connects, and connects again. */
export class Link {
  readonly #config: AgentConfig
  readonly #owner: SessionOwner
  readonly #events: AgentEvents
  readonly #clock: Clock
  readonly #random: () => number
  readonly #stop = new AbortController()
  #session: Session | undefined
  #running: Promise<void> | undefined
  #problem: Failure | undefined
  #refusal: LinkRefusal | undefined

  constructor(config: AgentConfig, owner: SessionOwner, events: AgentEvents, random: () => number) {
    this.#config = config
    this.#owner = owner
    this.#events = events
    this.#clock = owner.clock
    this.#random = random
  }

  start(): void {
    this.#running ??= this.#run()
  }

  get state(): 'connected' | 'connecting' | 'refused' | 'closed' {
    if (this.#stop.signal.aborted) return 'closed'
    if (this.#session?.isOpen === true) return 'connected'
    return this.#problem !== undefined && isRefusal(this.#problem) ? 'refused' : 'connecting'
  }

  /** Why there is no session, for people. */
  get problem(): string {
    return this.state === 'connected' ? '' : (this.#problem?.message ?? '')
  }

  /** Undefined once a session was open again. */
  get refusal(): LinkRefusal | undefined {
    return this.#refusal
  }

  /** Ends the session in order, and opens no other. */
  async close(): Promise<void> {
    this.#stop.abort()
    this.#session?.close()
    await this.#running
  }

  async #run(): Promise<void> {
    const signal = this.#stop.signal
    let delayMillis = retryDelayMillisFirst
    while (!signal.aborted) {
      const session = new Session(this.#config.vra, this.#owner, () => {
        delayMillis = retryDelayMillisFirst
        this.#problem = undefined
        this.#refusal = undefined
        this.#owner.opened(`${this.#config.vra.host}:${this.#config.vra.port}`)
      })
      this.#session = session
      this.#problem = await session.ended
      this.#session = undefined
      if (isRefusal(this.#problem)) this.#noteRefusal(this.#problem)
      this.#owner.ended(this.#problem)
      if (signal.aborted) return
      const waitMillis = (isRefusal(this.#problem) ? refusedDelayMillis : delayMillis) * (0.5 + this.#random() / 2)
      const { code, message: sentence } = this.#problem
      this.#events.linkDown({
        code,
        sentence,
        retryDelayMillis: Math.round(waitMillis),
        refused: this.#refusal !== undefined,
      })
      await this.#clock.sleep(waitMillis, signal).catch(() => undefined) // aborted: the loop ends
      delayMillis = Math.min(2 * delayMillis, retryDelayMillisMax)
    }
  }

  #noteRefusal({ code, message: sentence }: Failure): void {
    const nowMicros = this.#clock.timestampMicros()
    const { count = 0, firstTimestampMicros = nowMicros } = this.#refusal ?? {}
    this.#refusal = { code, sentence, count: count + 1, firstTimestampMicros, lastTimestampMicros: nowMicros }
  }
}

/** True for what does not pass by itself. A gap does: the next session resumes from what the VRA has. */
function isRefusal(problem: Failure): boolean {
  if (problem.code === 'SEQUENCE_GAP') return false
  return problem.reaction === 'refuse' || problem.reaction === 'stand-down'
}
