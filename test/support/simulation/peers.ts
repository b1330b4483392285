import type {
  PeerConnection,
  PeerConnectionUser,
  PeerListenAddress,
  PeerListener,
  PeerNetwork,
} from '../../../src/cut/cut.ts'
import type { Life, World } from './world.ts'

// The network between the agents of a VPG. As on the link to the VRA bytes arrive in order, late, and cut anywhere; while the network
// is out nothing arrives and nothing is lost, and a host without power says nothing.

interface Listening {
  readonly life: Life
  readonly accept: (connection: PeerConnection) => void
}

export class SimulatedPeers {
  latencyMillis = { min: 0.1, max: 2 }
  readonly world: World
  #isUp = true
  readonly #listening = new Map<string, Listening>()
  readonly #ends = new Set<PeerEnd>()

  constructor(world: World) {
    this.world = world
  }

  get isUp(): boolean {
    return this.#isUp
  }

  setUp(isUp: boolean): void {
    this.#isUp = isUp
    for (const end of this.#ends) end.flow()
  }

  /** Some of the connections break. */
  breakConnections(): void {
    for (const end of [...this.#ends]) if (this.world.random.chance(0.5)) end.fail('the connection was reset')
  }

  of(life: Life): PeerNetwork {
    return {
      listen: (at, accept) => this.#listen(life, at, accept),
      connect: address => this.#connect(life, address),
    }
  }

  /** As Network.killed. */
  killed(life: Life): void {
    for (const [address, { life: listener }] of this.#listening) if (listener === life) this.#listening.delete(address)
    for (const end of [...this.#ends]) if (end.life === life) end.killed()
  }

  forget(end: PeerEnd): void {
    this.#ends.delete(end)
  }

  #listen(
    life: Life,
    { host, port }: PeerListenAddress,
    accept: (connection: PeerConnection) => void,
  ): Promise<PeerListener> {
    const address = `${host}:${port}`
    this.#listening.set(address, { life, accept })
    return Promise.resolve({
      port,
      close: () => {
        if (this.#listening.get(address)?.life === life) this.#listening.delete(address)
        return Promise.resolve()
      },
    })
  }

  #connect(life: Life, address: string): PeerConnection {
    const { world } = this
    const near = new PeerEnd(this, life, address)
    const { min, max } = this.latencyMillis
    world.after(world.delay(min, max), () => {
      const at = this.#listening.get(address)
      if (!this.isUp || at === undefined || !at.life.host.isUp) {
        if (this.isUp || world.random.chance(0.5)) near.fail('the connection failed')
        return // or no answer at all
      }
      at.life.after(0, () => {
        const far = new PeerEnd(this, at.life, 'a peer')
        this.#ends.add(near).add(far)
        ;[near.other, far.other] = [far, near]
        at.accept(far)
        far.tell(user => user.opened(undefined))
        near.tell(user => user.opened(undefined))
      })
    })
    return near
  }
}

class PeerEnd implements PeerConnection {
  readonly address: string
  readonly bufferedBytes = 0
  readonly life: Life
  other: PeerEnd | undefined
  readonly #network: SimulatedPeers
  readonly #arriving: ((user: PeerConnectionUser) => void)[] = []
  #user: PeerConnectionUser | undefined
  #isDelivering = false
  #isClosed = false
  /** The other side is gone without a word. */
  #isSilent = false

  constructor(network: SimulatedPeers, life: Life, address: string) {
    this.#network = network
    this.life = life
    this.address = address
  }

  attach(user: PeerConnectionUser): void {
    this.#user = user
  }

  send(bytes: Uint8Array): void {
    if (this.#isClosed) return
    const { random } = this.#network.world
    const copy = Buffer.from(bytes)
    const cut = random.chance(0.1) ? random.integer(1, copy.length) : copy.length
    for (const piece of [copy.subarray(0, cut), copy.subarray(cut)])
      if (piece.length > 0) this.other?.tell(user => user.received(piece))
  }

  close(how: 'flush' | 'at-once'): void {
    if (this.#isClosed) return
    if (how === 'at-once') this.other?.drop()
    this.other?.fail('the peer has closed the connection')
    this.#isClosed = true
    this.#network.forget(this)
    this.life.after(0, () => this.#user?.closed('closed here'))
  }

  fail(sentence: string): void {
    this.tell(user => {
      this.#isClosed = true
      this.#network.forget(this)
      user.closed(sentence)
    })
  }

  killed(): void {
    this.#isClosed = true
    this.#network.forget(this)
    if (this.other === undefined) return
    if (!this.life.host.isUp) this.other.#isSilent = true
    else this.other.fail('the peer has closed the connection')
  }

  drop(): void {
    this.#arriving.length = 0
  }

  tell(what: (user: PeerConnectionUser) => void): void {
    this.#arriving.push(what)
    this.flow()
  }

  flow(): void {
    const { world, latencyMillis, isUp } = this.#network
    if (this.#isDelivering || this.#arriving.length === 0 || !isUp || this.#isSilent) return
    this.#isDelivering = true
    this.life.after(world.delay(latencyMillis.min, latencyMillis.max), () => {
      this.#isDelivering = false
      if (!this.#network.isUp || this.#isSilent) return
      const what = this.#arriving.shift()
      if (what !== undefined && this.#user !== undefined && !this.#isClosed) what(this.#user)
      this.flow()
    })
  }
}
