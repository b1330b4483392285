import type { Clock } from '../../../src/base/clock.ts'
import { onAbort } from '../../../src/base/abort.ts'
import { Random } from '../journal-random.ts'
import { plannedImmediates } from './determinism.ts'

// Simulated time, and the one place where a history takes its turns. Everything that happens is an event with a time; events of one
// time happen in the order in which they were planned; between two of them every promise that can go on has done so. So a seed
// decides a history wholly, and the hash of its trace tells two runs apart.

interface Event {
  readonly atMillis: number
  readonly order: number
  call: (() => void) | undefined
}

export class World {
  readonly random: Random
  /** What happened, for people; only where it is asked for. */
  readonly lines: string[] | undefined
  nowMillis = 0
  eventCount = 0
  /** How often what has happened: a fault that never does is not covered. */
  readonly counts = new Map<string, number>()
  #step = 0
  #failure: { readonly error: unknown } | undefined
  #hash = 0x811c9dc5
  #order = 0
  readonly #heap: Event[] = []

  constructor(seed: number, options: { readonly keepsTrace: boolean } = { keepsTrace: false }) {
    this.random = new Random(seed)
    this.lines = options.keepsTrace ? [] : undefined
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }

  /** Orders what guests ask and are answered, over all disks. */
  nextStep(): number {
    return ++this.#step
  }

  /** Calls once, in an event of its own. What it returns takes the call back. */
  after(delayMillis: number, call: () => void): () => void {
    const event: Event = { atMillis: this.nowMillis + Math.max(0, delayMillis), order: this.#order++, call }
    this.#push(event)
    return () => {
      event.call = undefined
    }
  }

  /** Events until none is left before the time, or until the condition holds. */
  async run(untilMillis: number, isOver: () => boolean = () => false): Promise<void> {
    while (!isOver()) {
      const next = this.#heap[0]
      if (next === undefined || next.atMillis > untilMillis) {
        this.nowMillis = Math.max(this.nowMillis, untilMillis)
        return
      }
      this.#pop()
      const { call } = next
      if (call === undefined) continue
      this.nowMillis = Math.max(this.nowMillis, next.atMillis)
      this.eventCount++
      call()
      await settled()
      if (this.#failure !== undefined) throw this.#failure.error
    }
  }

  /** Something that goes on by itself; should it fail, the history does. */
  background(promise: Promise<unknown>): void {
    promise.catch((error: unknown) => this.fail(error))
  }

  /** The history is broken. */
  fail(error: unknown): void {
    if (error instanceof Killed) return // what a dead process meets is nobody's concern
    this.#failure ??= { error }
  }

  trace(line: string): void {
    const text = `${this.nowMillis.toFixed(3)} ${line}`
    for (let index = 0; index < text.length; index++)
      this.#hash = Math.imul(this.#hash ^ text.charCodeAt(index), 0x01000193)
    this.lines?.push(text)
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0')
  }

  /** Between the two, most often near the lower one. */
  delay(minMillis: number, maxMillis: number): number {
    const fraction = this.random.fraction()
    return minMillis + (maxMillis - minMillis) * fraction * fraction * fraction
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.random.integer(0, choices.length - 1)]!
  }

  #push(event: Event): void {
    const heap = this.#heap
    heap.push(event)
    for (let at = heap.length - 1; at > 0;) {
      const parent = (at - 1) >> 1
      if (!isBefore(heap[at]!, heap[parent]!)) break
      ;[heap[at], heap[parent]] = [heap[parent]!, heap[at]!]
      at = parent
    }
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    heap[0] = last
    for (let at = 0; ;) {
      const left = 2 * at + 1
      if (left >= heap.length) break
      const right = left + 1
      const least = right < heap.length && isBefore(heap[right]!, heap[left]!) ? right : left
      if (!isBefore(heap[least]!, heap[at]!)) break
      ;[heap[at], heap[least]] = [heap[least]!, heap[at]!]
      at = least
    }
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMillis < b.atMillis || (a.atMillis === b.atMillis && a.order < b.order)
}

/**
 * Every promise and every nextTick that can go on has done so, and every setImmediate one step. A tick comes after all promises that can go
 * on, and costs no turn of the event loop; a second one comes after what a tick has set going.
 */
async function settled(): Promise<void> {
  await ticked()
  await ticked()
  if (plannedImmediates() === 0) return
  await new Promise(resolve => setImmediate(resolve))
}

function ticked(): Promise<void> {
  return new Promise(resolve => process.nextTick(resolve))
}

/** A machine: its wall clock, and whether it has power. */
export class Host {
  readonly name: string
  readonly world: World
  isUp = true
  /** Of its wall clock, against the true time. */
  skewMicros = 0
  #boots = 0

  constructor(world: World, name: string) {
    this.world = world
    this.name = name
  }

  boot(): Life {
    this.isUp = true
    return new Life(this, `${this.name}#${++this.#boots}`)
  }

  wallMicros(): number {
    return 1_790_000_000_000_000 + Math.round(this.world.nowMillis * 1000) + this.skewMicros
  }
}

/** What a killed process does, should anything of it still run: nothing. */
export class Killed extends Error {
  override readonly name = 'Killed'
}

/** One run of one process. Once it is killed, none of its timers fires, nothing reaches it, and nothing that it does has an effect. */
export class Life {
  readonly host: Host
  readonly name: string
  readonly clock: Clock
  isAlive = true
  /** Until then it is stopped, as by SIGSTOP or a busy machine, and what should happen to it waits. */
  #stalledUntilMillis = 0
  readonly #threads: Life[] = []
  #stalledMillis = 0

  constructor(host: Host, name: string) {
    this.host = host
    this.name = name
    const { world } = host
    const startMillis = world.nowMillis - world.random.integer(0, 1_000_000)
    this.clock = {
      timestampMicros: () => host.wallMicros(),
      monotonicMillis: () => world.nowMillis - startMillis,
      after: (delayMillis, call) => this.after(delayMillis === 0 ? 0 : delayMillis + world.delay(0, 2), call),
      sleep: (delayMillis, signal) =>
        new Promise((resolve, reject) => {
          signal.throwIfAborted()
          const cancel = this.after(delayMillis + world.delay(0, 2), () => {
            forget()
            resolve()
          })
          const forget = onAbort(signal, () => {
            cancel()
            reject(signal.reason as Error)
          })
        }),
    }
  }

  get isStalled(): boolean {
    return this.#stalledUntilMillis > this.host.world.nowMillis
  }

  /** How long it has been stopped, all together. */
  get stalledMillis(): number {
    return this.#stalledMillis - Math.max(0, this.#stalledUntilMillis - this.host.world.nowMillis)
  }

  stall(delayMillis: number): void {
    const now = this.host.world.nowMillis
    const until = Math.max(this.#stalledUntilMillis, now + delayMillis)
    this.#stalledMillis += until - Math.max(now, this.#stalledUntilMillis)
    this.#stalledUntilMillis = until
    for (const thread of this.#threads) thread.stall(delayMillis)
  }

  kill(): void {
    this.isAlive = false
    for (const thread of this.#threads) thread.kill()
  }

  /** One of this process: it ends with it, or before. */
  thread(name: string): Life {
    const thread = new Life(this.host, `${this.name}, ${name}`)
    if (!this.isAlive) thread.kill()
    this.#threads.push(thread)
    return thread
  }

  /** In an event of its own, if it still lives then. */
  after(delayMillis: number, call: () => void): () => void {
    let cancel = this.host.world.after(delayMillis, () => this.#run(call, again => (cancel = again)))
    return () => cancel()
  }

  /** In the present event: for what is neither dead nor stalled. */
  now(call: () => void): void {
    this.#run(call, () => undefined)
  }

  #run(call: () => void, planned: (cancel: () => void) => void): void {
    if (!this.isAlive) return
    const { world } = this.host
    if (this.isStalled) {
      planned(world.after(this.#stalledUntilMillis - world.nowMillis, () => this.#run(call, planned)))
      return
    }
    try {
      call()
    } catch (error) {
      if (this.isAlive || !(error instanceof Killed)) throw error
    }
  }
}
