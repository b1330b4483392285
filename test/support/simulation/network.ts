import { EventEmitter } from 'node:events'
import type { Server, Socket } from 'node:net'
import type { Connect, ConnectionEnd, ConnectionEvents } from '../../../src/agent/agent.ts'
import type { Host, Life, World } from './world.ts'

// One link between the sites. Bytes of a connection arrive in order, cut at any place, each connection at its own pace; while the link is
// down nothing arrives and nothing is lost, as TCP goes on trying, until one of the ends gives up. An end hears of the other's end only
// through the link: a host without power leaves the other end half open.
//
//   write ──> buffered ──(in the network: at most a window)──> received ──> taken, unless reading is paused

type Told = { readonly kind: 'data'; readonly bytes: Buffer } | { readonly kind: 'end' } | { readonly kind: 'reset' }

/** One end of a connection, as a process sees it. */
interface End {
  readonly life: Life
  readonly isClosed: boolean
  data(bytes: Buffer): void
  /** The peer has ended its direction. */
  ended(): void
  reset(): void
  /** Bytes were taken by the network. */
  taken(): void
}

/** Whole writes at once; pieces, late; pieces of a few bytes. */
type Pace = 'calm' | 'slow' | 'torn'

const highWaterBytes = 16 * 1024
/** What takes less is no event of its own. */
const instantMillis = 0.01

export class Network {
  #isUp = true
  readonly #cutOff = new Set<Host>()
  latencyMillis = { min: 0.2, max: 5 }
  pieceBytesMax = 16 * 1024
  windowBytes = 256 * 1024
  bytesPerMilli = 100_000
  #server: { readonly life: Life; readonly server: SimulatedServer } | undefined
  readonly #wires = new Set<Wire>()
  #connectionCount = 0
  readonly world: World
  /** Told of every frame that a VRA sends, to which host, and by which process. */
  onServerFrame: (frame: Uint8Array, to: Host, from: Life) => void = () => undefined

  constructor(world: World) {
    this.world = world
  }

  /** The whole link, or that of one host. */
  setUp(isUp: boolean, host?: Host): void {
    if (host === undefined) this.#isUp = isUp
    else if (isUp) this.#cutOff.delete(host)
    else this.#cutOff.add(host)
    if (isUp) for (const wire of this.#wires) wire.resume()
  }

  isUpFor(host: Host | undefined): boolean {
    return this.#isUp && (host === undefined || !this.#cutOff.has(host))
  }

  /** Some, or all, connections break, and each end hears of it sometime, or never. */
  breakConnections(): void {
    for (const wire of this.#wires) {
      const silent = this.world.random.chance(0.4)
      this.world.trace(`connection ${wire.name} ${silent ? 'goes silent' : 'is reset'}`)
      if (silent) wire.isSilent = true
      else wire.reset()
    }
  }

  /** The kernel closes the connections of a process that was killed; a host that lost its power says nothing. */
  killed(life: Life): void {
    for (const wire of this.#wires) wire.killed(life)
    if (this.#server?.life === life) this.#server = undefined
  }

  /** A host is back: its kernel knows nothing of the connections that it had, and may say so. */
  booted(host: Host): void {
    for (const wire of this.#wires) wire.booted(host)
  }

  forgetIfOver(wire: Wire): void {
    if (wire.isOver) this.#wires.delete(wire)
  }

  /** What the agent's process connects with. */
  connectOf(life: Life): Connect {
    return (_target, events) => {
      const name = `c${++this.#connectionCount}`
      const wire = new Wire(this, name, this.world.pick<Pace>(['calm', 'calm', 'slow', 'torn']))
      const end = new ClientEnd(life, wire, events)
      wire.client = end
      life.after(this.world.delay(this.latencyMillis.min, this.latencyMillis.max), () => this.#arrive(wire, end))
      return end
    }
  }

  serverOf(life: Life): Server {
    const server = new SimulatedServer(() => {
      if (this.#server?.life === life) this.#server = undefined
    })
    this.#server = { life, server }
    return server as unknown as Server
  }

  #arrive(wire: Wire, client: ClientEnd): void {
    if (client.isClosed) return
    const at = this.#server
    if (!this.isUpFor(client.life.host)) {
      if (this.world.random.chance(0.5)) client.fail('EHOSTUNREACH')
      return // or no answer at all
    }
    if (at === undefined || !at.life.host.isUp) {
      client.fail('ECONNREFUSED')
      return
    }
    this.#wires.add(wire)
    at.life.after(0, () => {
      if (client.isClosed) {
        this.forgetIfOver(wire)
        return
      }
      const socket = new SimulatedSocket(at.life, wire)
      wire.server = socket
      at.server.accept(socket)
      client.life.after(this.world.delay(this.latencyMillis.min, this.latencyMillis.max), () => client.open())
    })
  }
}

/** A connection: two directions, each with its pace. */
class Wire {
  readonly network: Network
  readonly name: string
  client: End | undefined
  server: End | undefined
  /** The other end is gone without a word: nothing arrives any more. */
  isSilent = false
  readonly toServer: Pipe
  readonly toClient: Pipe

  constructor(network: Network, name: string, pace: Pace) {
    this.network = network
    this.name = name
    this.toServer = new Pipe(
      this,
      () => this.server,
      () => this.client,
      pace,
    )
    this.toClient = new Pipe(
      this,
      () => this.client,
      () => this.server,
      pace,
    )
  }

  get isUp(): boolean {
    return this.network.isUpFor(this.client?.life.host)
  }

  resume(): void {
    this.toServer.flow()
    this.toClient.flow()
  }

  /** Each end hears of it in its own time; what was under way is lost. */
  reset(): void {
    this.toServer.reset()
    this.toClient.reset()
  }

  get isOver(): boolean {
    const isGone = (end: End | undefined): boolean => end === undefined || end.isClosed || !end.life.isAlive
    return isGone(this.client) && isGone(this.server)
  }

  killed(life: Life): void {
    for (const [end, pipe] of [
      [this.client, this.toServer],
      [this.server, this.toClient],
    ] as const) {
      if (end?.life !== life) continue
      if (!life.host.isUp) this.isSilent = true
      else if (this.network.world.random.chance(0.5)) {
        pipe.drop()
        pipe.end()
      } else pipe.reset()
    }
    this.network.forgetIfOver(this)
  }

  booted(host: Host): void {
    const isOfDead = [this.client, this.server].some(end => end?.life.host === host && !end.life.isAlive)
    if (!isOfDead || this.network.world.random.chance(0.3)) return
    this.isSilent = false
    this.resume()
  }
}

/** One direction of a connection. */
class Pipe {
  readonly #wire: Wire
  readonly #receiver: () => End | undefined
  readonly #sender: () => End | undefined
  readonly #pace: Pace
  #unsent: Buffer[] = []
  #unsentBytes = 0
  readonly #arriving: Told[] = []
  #inNetworkBytes = 0
  #sending = false
  #delivering = false
  #endsAfterUnsent = false
  #isPaused = false
  #looksAgain = false
  #isOver = false

  constructor(wire: Wire, receiver: () => End | undefined, sender: () => End | undefined, pace: Pace) {
    this.#wire = wire
    this.#receiver = receiver
    this.#sender = sender
    this.#pace = pace
  }

  get unsentBytes(): number {
    return this.#unsentBytes
  }

  write(bytes: Uint8Array): void {
    if (this.#isOver || this.#endsAfterUnsent) return
    this.#unsent.push(Buffer.from(bytes))
    this.#unsentBytes += bytes.length
    this.#send()
  }

  end(): void {
    if (this.#endsAfterUnsent) return
    this.#endsAfterUnsent = true
    this.#send()
  }

  /** What was not taken by the network is lost. */
  drop(): void {
    this.#unsent = []
    this.#unsentBytes = 0
  }

  reset(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.drop()
    this.#arriving.length = 0
    this.#arrive({ kind: 'reset' })
  }

  pause(isPaused: boolean): void {
    this.#isPaused = isPaused
    this.flow()
  }

  /** Whatever may move, moves. */
  flow(): void {
    this.#send()
    this.#deliver()
  }

  #send(): void {
    while (this.#sendPiece());
  }

  /** False where there is nothing to send, or where it takes its time. */
  #sendPiece(): boolean {
    const { network } = this.#wire
    const { world } = network
    if (this.#sending || this.#isOver || this.#wire.isSilent || !this.#wire.isUp) return false
    const first = this.#unsent[0]
    if (first === undefined) {
      if (!this.#endsAfterUnsent) return false
      this.#isOver = true
      this.#arrive({ kind: 'end' })
      return false
    }
    if (this.#inNetworkBytes >= network.windowBytes) return false
    // Torn into a few pieces, however long it is: anywhere, and most often near its start.
    const most = this.#pace === 'torn' ? Math.max(64, first.length / 2) : network.pieceBytesMax
    const bytes = first.subarray(0, this.#pace === 'calm' ? first.length : world.random.integer(1, most))
    if (bytes.length === first.length) this.#unsent.shift()
    else this.#unsent[0] = first.subarray(bytes.length)
    this.#unsentBytes -= bytes.length
    this.#inNetworkBytes += bytes.length
    this.#sending = true
    const taken = (): void => {
      this.#sending = false
      const sender = this.#sender()
      if (sender?.life.isAlive === true) sender.taken()
    }
    this.#arrive({ kind: 'data', bytes })
    const delayMillis = bytes.length / network.bytesPerMilli
    if (delayMillis < instantMillis) {
      taken()
      return true
    }
    world.after(delayMillis, () => {
      taken()
      this.#send()
    })
    return false
  }

  #arrive(told: Told): void {
    this.#arriving.push(told)
    this.#deliver()
  }

  #deliver(): void {
    const { network } = this.#wire
    if (this.#delivering || this.#arriving.length === 0) return
    this.#delivering = true
    const { min, max } = network.latencyMillis
    const slowness = this.#pace === 'slow' ? 10 : 1
    network.world.after(network.world.delay(min, max * slowness), () => this.#deliverNow())
  }

  #deliverNow(): void {
    const { isSilent } = this.#wire
    this.#delivering = false
    if (isSilent || !this.#wire.isUp || this.#isPaused) return // flow() goes on
    const receiver = this.#receiver()
    if (receiver === undefined || receiver.life.isStalled) {
      if (!this.#wire.isOver) this.#lookAgain()
      return
    }
    for (let left = this.#pace === 'torn' ? 1 : 64; left > 0 && !this.#isPaused; left--) {
      const told = this.#arriving.shift()
      if (told === undefined) break
      if (told.kind === 'data') this.#inNetworkBytes -= told.bytes.length
      if (receiver.life.isAlive) receiver.life.now(() => tell(receiver, told))
      else if (receiver.life.host.isUp && told.kind === 'data') this.#refuse()
    }
    this.flow()
  }

  #lookAgain(): void {
    if (this.#looksAgain) return
    this.#looksAgain = true
    this.#wire.network.world.after(50, () => {
      this.#looksAgain = false
      this.flow()
    })
  }

  /** Bytes for a process that is gone: its kernel says so. */
  #refuse(): void {
    const sender = this.#sender()
    const { world } = this.#wire.network
    if (sender?.life.isAlive === true) sender.life.after(world.delay(0.2, 5), () => sender.reset())
  }
}

function tell(end: End, told: Told): void {
  if (told.kind === 'data') end.data(told.bytes)
  else if (told.kind === 'end') end.ended()
  else end.reset()
}

/** The agent's end, as connectSocket() gives it. */
class ClientEnd implements End {
  readonly life: Life
  isClosed = false
  readonly #wire: Wire
  readonly #events: ConnectionEvents
  #isOpen = false
  #wantsDrain = false
  #endedByUs = false

  constructor(life: Life, wire: Wire, events: ConnectionEvents) {
    this.life = life
    this.#wire = wire
    this.#events = events
  }

  get bufferedBytes(): number {
    return this.#wire.toServer.unsentBytes
  }

  open(): void {
    if (this.isClosed) return
    this.#isOpen = true
    this.#events.opened()
  }

  write(bytes: Uint8Array, taken?: () => void): void {
    if (this.isClosed || this.#endedByUs) return
    this.#wire.toServer.write(bytes)
    taken?.()
    if (this.bufferedBytes > highWaterBytes) this.#wantsDrain = true
  }

  end(): void {
    if (this.isClosed) return
    this.#endedByUs = true
    this.#wire.toServer.end()
  }

  destroy(): void {
    this.#close({ by: 'network', cause: undefined })
  }

  fail(code: string): void {
    this.#close({ by: 'network', cause: Object.assign(new Error(code), { code }) })
  }

  data(bytes: Buffer): void {
    if (!this.isClosed && this.#isOpen) this.#events.received(bytes)
  }

  ended(): void {
    this.#close({ by: 'peer', cause: undefined })
  }

  reset(): void {
    this.fail('ECONNRESET')
  }

  taken(): void {
    if (this.isClosed || !this.#wantsDrain || this.bufferedBytes > 0) return
    this.#wantsDrain = false
    this.life.after(0, () => {
      if (!this.isClosed) this.#events.drained()
    })
  }

  #close(end: ConnectionEnd): void {
    if (this.isClosed) return
    this.isClosed = true
    this.#wire.toServer.drop()
    this.#wire.toServer.end()
    this.#wire.network.forgetIfOver(this.#wire)
    this.life.after(0, () => this.#events.closed(end))
  }
}

/** The VRA's end: what a session uses of a net.Socket, with what Node does on its own (allowHalfOpen is false). */
class SimulatedSocket extends EventEmitter implements End {
  readonly life: Life
  readonly remoteAddress = '10.0.0.1'
  readonly remotePort = 40_000
  destroyed = false
  readonly #wire: Wire
  #isEnded = false
  #peerEnded = false
  #callbacks: { readonly afterBytes: number; readonly call: () => void }[] = []
  #writtenBytes = 0

  constructor(life: Life, wire: Wire) {
    super()
    this.life = life
    this.#wire = wire
  }

  get isClosed(): boolean {
    return this.destroyed
  }

  get writable(): boolean {
    return !this.destroyed && !this.#isEnded
  }

  get writableLength(): number {
    return this.#wire.toClient.unsentBytes
  }

  setNoDelay(): void {
    // Nothing is held back anyway.
  }

  setKeepAlive(): void {
    // Its 30 seconds are longer than the heartbeats' patience.
  }

  write(bytes: Uint8Array, callback?: () => void): boolean {
    if (!this.writable) return false
    const to = this.#wire.client?.life.host
    if (this.life.isAlive && to !== undefined) this.#wire.network.onServerFrame(bytes, to, this.life)
    this.#writtenBytes += bytes.length
    if (callback !== undefined) this.#callbacks.push({ afterBytes: this.#writtenBytes, call: callback })
    this.#wire.toClient.write(bytes)
    return this.writableLength < highWaterBytes
  }

  end(): void {
    if (!this.writable) return
    this.#isEnded = true
    this.#wire.toClient.end()
    this.#closeIfOver()
  }

  pause(): void {
    this.#wire.toServer.pause(true)
  }

  resume(): void {
    this.#wire.toServer.pause(false)
  }

  destroy(): void {
    this.#close(undefined)
  }

  data(bytes: Buffer): void {
    if (!this.destroyed) this.emit('data', bytes)
  }

  ended(): void {
    if (this.destroyed || this.#peerEnded) return
    this.#peerEnded = true
    this.emit('end')
    if (this.writable) this.end()
    this.#closeIfOver()
  }

  reset(): void {
    this.#close(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
  }

  taken(): void {
    const sentBytes = this.#writtenBytes - this.writableLength
    const done = this.#callbacks.filter(each => each.afterBytes <= sentBytes)
    this.#callbacks = this.#callbacks.filter(each => each.afterBytes > sentBytes)
    for (const { call } of done) this.life.after(0, call)
    this.#closeIfOver()
  }

  #closeIfOver(): void {
    if (this.#isEnded && this.#peerEnded && this.writableLength === 0) this.#close(undefined)
  }

  #close(error: Error | undefined): void {
    if (this.destroyed) return
    this.destroyed = true
    this.#wire.toClient.drop()
    this.#wire.toClient.end()
    this.#wire.network.forgetIfOver(this.#wire)
    this.life.after(0, () => {
      if (error !== undefined) this.emit('error', error)
      for (const { call } of this.#callbacks.splice(0)) call()
      this.emit('close', error !== undefined)
    })
  }
}

class SimulatedServer extends EventEmitter {
  maxConnections = 0
  readonly #sockets = new Set<SimulatedSocket>()
  readonly #onClose: () => void
  #whenClosed: (() => void) | undefined

  constructor(onClose: () => void) {
    super()
    this.#onClose = onClose
  }

  listen(_port: number, _host: string, callback: () => void): void {
    queueMicrotask(callback)
  }

  address(): { readonly port: number } {
    return { port: 7420 }
  }

  accept(socket: SimulatedSocket): void {
    this.#sockets.add(socket)
    socket.on('close', () => {
      this.#sockets.delete(socket)
      this.#tellIfClosed()
    })
    this.emit('connection', socket as unknown as Socket)
  }

  close(callback: () => void): void {
    this.#onClose()
    this.#whenClosed = callback
    this.#tellIfClosed()
  }

  #tellIfClosed(): void {
    if (this.#whenClosed === undefined || this.#sockets.size > 0) return
    const tell = this.#whenClosed
    this.#whenClosed = undefined
    queueMicrotask(tell)
  }
}
