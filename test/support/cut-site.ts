import type { Test } from 'tap'
import { vpgId } from '../../src/base/ids.ts'
import {
  Cut,
  silentCutEvents,
  type CutEvents,
  type CutMarker,
  type CutOptions,
  type PeerConnection,
  type PeerConnectionUser,
  type PeerListener,
  type PeerNetwork,
} from '../../src/cut/cut.ts'
import type { Coordinator, MarkerVolume } from '../../src/wire/wire.ts'
import { ManualClock } from './wire-manual-clock.ts'

/** Connections between agents in one process; it can be cut, hold bytes back, and be asked what is under way. */
export class MemoryNetwork implements PeerNetwork {
  readonly #listeners = new Map<string, (connection: PeerConnection) => void>()
  readonly #ends = new Set<MemoryEnd>()
  #nextPort = 7000
  /** While set, nothing is delivered. */
  stalled = false
  #waiting: (() => void)[] = []

  listen(at: { readonly host: string }, accept: (connection: PeerConnection) => void): Promise<PeerListener> {
    const port = this.#nextPort++
    this.#listeners.set(`${at.host}:${port}`, accept)
    return Promise.resolve({
      port,
      close: () => {
        this.#listeners.delete(`${at.host}:${port}`)
        return Promise.resolve()
      },
    })
  }

  connect(address: string): PeerConnection {
    const near = new MemoryEnd(this, address)
    const accept = this.#listeners.get(address)
    this.#ends.add(near)
    this.later(() => {
      if (accept === undefined) return near.end('the connection failed: nobody listens')
      const far = new MemoryEnd(this, 'peer')
      this.#ends.add(far)
      ;[near.other, far.other] = [far, near]
      accept(far)
      far.open()
      near.open()
    })
    return near
  }

  /** Breaks every connection. */
  cut(): void {
    for (const end of [...this.#ends]) end.end('the network was cut')
  }

  /** In order, each in a turn of its own. */
  later(deliver: () => void): void {
    if (this.stalled) this.#waiting.push(deliver)
    else setImmediate(deliver)
  }

  resume(): void {
    this.stalled = false
    for (const deliver of this.#waiting.splice(0)) setImmediate(deliver)
  }

  forget(end: MemoryEnd): void {
    this.#ends.delete(end)
  }
}

class MemoryEnd implements PeerConnection {
  readonly address: string
  readonly bufferedBytes = 0
  other: MemoryEnd | undefined
  readonly #network: MemoryNetwork
  #user: PeerConnectionUser | undefined
  #ended = false

  constructor(network: MemoryNetwork, address: string) {
    this.#network = network
    this.address = address
  }

  attach(user: PeerConnectionUser): void {
    this.#user = user
  }

  open(): void {
    this.#user?.opened(undefined)
  }

  send(bytes: Uint8Array): void {
    const other = this.other
    const copy = Buffer.from(bytes)
    this.#network.later(() => {
      if (other !== undefined && !other.#ended) other.#user?.received(copy)
    })
  }

  close(): void {
    const other = this.other
    this.#network.later(() => {
      this.end('closed')
      other?.end('the other agent closed the connection')
    })
  }

  end(sentence: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#network.forget(this)
    this.#user?.closed(sentence)
  }
}

/** An agent's stream as a list: writes and markers in the order of their numbers. */
export class ListedStream {
  readonly records: (string | CutMarker)[] = []
  readonly waiting: string[] = []
  readonly own: MarkerVolume[]
  /** Volumes of the VPG that no agent may have. */
  missing: readonly MarkerVolume[] = []
  held = false
  problem: string | undefined

  constructor(number: number) {
    this.own = [{ number, sizeBytes: 512 * number, included: true }]
  }

  whyNot(): string | undefined {
    return this.problem
  }

  volumes(): readonly MarkerVolume[] {
    return this.own
  }

  absent(named: readonly MarkerVolume[]): readonly MarkerVolume[] {
    return this.missing.filter(({ number }) => !named.some(volume => volume.number === number))
  }

  hold(): void {
    if (this.held) throw new Error('held twice')
    this.held = true
  }

  release(): void {
    if (!this.held) throw new Error('released without a hold')
    this.held = false
    this.records.push(...this.waiting.splice(0))
  }

  mark(marker: CutMarker): void {
    this.records.push(marker)
  }

  write(name: string): void {
    if (this.held) this.waiting.push(name)
    else this.records.push(name)
  }

  get markers(): readonly string[] {
    return this.records.flatMap(record => (typeof record === 'string' ? [] : [`${record.term}.${record.counter}`]))
  }
}

export const siteVpg = vpgId('0123456789abcdef0123456789abcdef')

/** Agents `a`, `b`, ... with streams 1, 2, ... and the VRA's word to each of them. */
export class CutSite {
  readonly clock = new ManualClock()
  readonly network = new MemoryNetwork()
  readonly streams: ListedStream[] = []
  readonly cuts: Cut[] = []
  readonly told: string[] = []
  readonly savedTerms: number[] = []

  static async open(t: Test, count: number, change: Partial<CutOptions> = {}): Promise<CutSite> {
    const site = new CutSite()
    for (let index = 0; index < count; index++) {
      const stream = new ListedStream(index + 1)
      site.streams.push(stream)
      site.cuts.push(await Cut.open({ ...site.options(index), stream, ...change }))
    }
    t.teardown(async () => {
      const closed = Promise.all(site.cuts.map(cut => cut.close()))
      await site.clock.advance(20_000)
      await closed
    })
    return site
  }

  options(index: number): CutOptions {
    return {
      agent: nameOf(index),
      stream: this.streams[index]!,
      clock: this.clock,
      events: this.events(nameOf(index)),
      network: this.network,
      listen: { host: nameOf(index), port: 0 },
      holdTimeoutMillis: 500,
      saved: { highestTerm: 0, coordinator: '', highestCounter: 0 },
      saveTerm: ({ term }) => void this.savedTerms.push(term),
    }
  }

  events(name: string): CutEvents {
    return {
      ...silentCutEvents,
      holdEnded: ({ counter, end }) => this.told.push(`${name}: hold ${counter} ${end}`),
      holdRefused: ({ counter, reason }) => this.told.push(`${name}: ${counter} refused, ${reason}`),
      checkpointFailed: ({ counter, reason }) => this.told.push(`${name}: ${counter} failed, ${reason}`),
      peerRefused: ({ sentence }) => this.told.push(`${name}: ${sentence}`),
    }
  }

  coordinator(agent: string, term: number, counter = 0): Coordinator {
    const participants = this.cuts.map((cut, index) => ({
      stream: index + 1,
      agent: nameOf(index),
      peerAddress: cut.port === undefined ? '' : `${nameOf(index)}:${cut.port}`,
      volumes: [index + 1],
    }))
    return { agent, term, counter, checkpointIntervalMillis: 1_000, participants }
  }

  /** Tells the agents with these indexes, or all. */
  appoint(coordinator: Coordinator, indexes: Iterable<number> = this.cuts.keys()): void {
    for (const index of indexes) this.cuts[index]!.appoint({ vpg: siteVpg, stream: index + 1, coordinator })
  }

  /** Appoints, and lets the connections come up. */
  async begin(coordinator: Coordinator): Promise<void> {
    this.appoint(coordinator)
    await this.until('all peers are reached', () => this.cuts.every(cut => cut.whyNoCheckpoints() === ''))
  }

  /** Lets turns of the event loop and a little simulated time pass, as often as it takes. */
  async until(what: string, holds: () => boolean): Promise<void> {
    for (let turn = 0; turn < 2_000; turn++) {
      if (holds()) return
      await this.clock.advance(10)
      await new Promise(resolve => setImmediate(resolve))
    }
    throw new Error(`never: ${what}`)
  }
}

function nameOf(index: number): string {
  return String.fromCharCode(97 + index)
}
