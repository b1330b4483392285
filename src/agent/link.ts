import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { Bell } from './bell.ts'
import type { AgentEvents } from './events.ts'
import type { AgentConfig, LinkRefusal } from './options.ts'
import { Session, type SessionOwner } from './session.ts'

const retryDelayMillisFirst = 200
const retryDelayMillisMax = 5_000
/** Between two sessions of which the former was ended by this side. */
const sessionMillisMin = 500
/** After a refusal that somebody has to mend (the configuration, a definition, a newer VRA): at first that may be under way, as when a VPG is being set up. */
const refusedDelayMillisFirst = 500
const refusedDelayMillisMax = 30_000

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
  #isReopening = false
  readonly #retry: Bell
  #openedMillis = -Infinity
  #downSinceMicros: number

  constructor(config: AgentConfig, owner: SessionOwner, events: AgentEvents, random: () => number) {
    this.#config = config
    this.#owner = owner
    this.#events = events
    this.#clock = owner.clock
    this.#random = random
    this.#retry = new Bell(owner.clock)
    this.#downSinceMicros = owner.clock.timestampMicros()
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

  /** Since when there is none; 0 where there is one. */
  get downSinceMicros(): number {
    return this.state === 'connected' ? 0 : this.#downSinceMicros
  }

  /** Ends the session in order and opens another at once; without a session, does not wait any longer to open one. */
  reopen(): void {
    this.#isReopening = true
    this.#session?.close(new Failure('CLOSING', 'the agent opens a new session'))
    this.#retry.ring()
  }

  /** Tells the VRA now what has changed. */
  tellStatus(): void {
    if (this.#session?.isOpen === true) this.#session.tellStatus()
  }

  /** Ends the session in order, and opens no other. */
  async close(): Promise<void> {
    this.#stop.abort()
    this.#retry.ring()
    this.#session?.close(new Failure('CLOSING', 'the agent is stopping'))
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    let delayMillis = retryDelayMillisFirst
    let refusedDelayMillis = refusedDelayMillisFirst
    while (!signal.aborted) {
      this.#isReopening = false
      const problem = await this.#runSession(() => {
        delayMillis = retryDelayMillisFirst
      })
      this.#problem = problem
      const isRefused = isRefusal(problem)
      if (isRefused) this.#noteRefusal(problem)
      if (signal.aborted) return
      if (this.#isReopening && problem.code === 'CLOSING') {
        await this.#pace()
        continue
      }
      const waitMillis = (isRefused ? refusedDelayMillis : delayMillis) * (0.5 + this.#random() / 2)
      const { code, message: sentence } = problem
      this.#events.linkDown({
        code,
        sentence,
        retryDelayMillis: Math.round(waitMillis),
        refused: this.#refusal !== undefined,
      })
      if (!this.#isReopening) await this.#retry.wait(waitMillis)
      delayMillis = Math.min(2 * delayMillis, retryDelayMillisMax)
      // Also where a session was open before it was refused: else it would be opened, and refused, again and again.
      refusedDelayMillis = isRefused ? Math.min(2 * refusedDelayMillis, refusedDelayMillisMax) : refusedDelayMillisFirst
    }
  }

  /** A queue that overflows again and again does not open generations as fast as it can. */
  async #pace(): Promise<void> {
    const waitMillis = this.#openedMillis + sessionMillisMin - this.#clock.monotonicMillis()
    if (waitMillis > 0) await this.#retry.wait(waitMillis)
  }

  #noteRefusal({ code, message: sentence }: Failure): void {
    const nowMicros = this.#clock.timestampMicros()
    const { count = 0, firstTimestampMicros = nowMicros } = this.#refusal ?? {}
    this.#refusal = { code, sentence, count: count + 1, firstTimestampMicros, lastTimestampMicros: nowMicros }
  }

  async #runSession(opened: () => void): Promise<Failure> {
    try {
      await this.#owner.prepare()
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      return new Failure('DISK_FAILED', `the agent cannot write down what has to be sent: ${why}`, {}, { cause })
    }
    if (this.#stop.signal.aborted) return new Failure('CLOSING', 'the agent is stopping')
    const session = new Session(this.#config.vra, this.#owner, () => {
      opened()
      this.#openedMillis = this.#clock.monotonicMillis()
      this.#problem = this.#refusal = undefined
      this.#owner.opened(`${this.#config.vra.host}:${this.#config.vra.port}`)
    })
    this.#session = session
    const problem = await session.ended
    if (session.wasOpen) this.#downSinceMicros = this.#clock.timestampMicros()
    this.#session = undefined
    this.#owner.ended(problem, session.wasOpen)
    return problem
  }
}

/** True for what does not pass by itself. A gap does: the next session resumes from what the VRA has; and so does a sync: it opens a generation. */
function isRefusal(problem: Failure): boolean {
  if (problem.code === 'SEQUENCE_GAP' || problem.code === 'SYNC_REQUIRED') return false
  return problem.reaction === 'refuse' || problem.reaction === 'stand-down'
}
