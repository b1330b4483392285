import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { Closable } from '../base/shutdown.ts'
import type { ControlMessage, Participant as PeerPlace, PeerHello } from '../wire/wire.ts'
import type { CutEvents } from './events.ts'
import type { Participant } from './participant.ts'
import type { PeerConnection, PeerListenAddress, PeerListener, PeerNetwork } from './peer-network.ts'
import { checkPeer, PeerSession } from './peer-session.ts'

export interface PeerServerOptions {
  readonly clock: Clock
  readonly events: CutEvents
  readonly network: PeerNetwork
  readonly participant: Participant
  /** Undefined until the VRA has said who this agent is. */
  readonly hello: () => PeerHello | undefined
  /** The other agents of the VPG, as the VRA names them. */
  readonly peers: () => readonly PeerPlace[]
}

/** Where other agents reach this one: every connection may hold, and what it held ends with it. */
export class PeerServer implements Closable {
  readonly #listener: PeerListener
  readonly #sessions: Set<PeerSession>

  private constructor(listener: PeerListener, sessions: Set<PeerSession>) {
    this.#listener = listener
    this.#sessions = sessions
  }

  /** Listens on return. Fails CONFIG_INVALID. */
  static async open(at: PeerListenAddress, options: PeerServerOptions): Promise<PeerServer> {
    const sessions = new Set<PeerSession>()
    let holderCount = 0
    const listener = await options.network.listen(at, connection => serve(connection, ++holderCount, options, sessions))
    return new PeerServer(listener, sessions)
  }

  get port(): number {
    return this.#listener.port
  }

  async close(): Promise<void> {
    const closed = this.#listener.close()
    for (const session of this.#sessions) session.close(new Failure('CLOSING', 'the agent is stopping'))
    for (const session of [...this.#sessions]) await session.ended
    await closed
  }
}

function serve(
  connection: PeerConnection,
  holder: number,
  options: PeerServerOptions,
  sessions: Set<PeerSession>,
): void {
  const { clock, events, participant } = options
  const address = connection.address
  let agent = ''
  const session: PeerSession = new PeerSession(
    connection,
    {
      clock,
      hello: () => ownHello(options),
      greeted: (said, certifiedName) => {
        admit(said, certifiedName, options)
        agent = said.agent
        participant.heardOfTerm(said.term)
        events.peerUp({ agent, address })
      },
      received: message => answer(message, { agent, holder }, session, participant),
      ended: sentence => {
        sessions.delete(session)
        participant.lost(holder)
        if (agent === '') events.peerRefused({ address, sentence })
        else events.peerDown({ agent, address, sentence })
      },
    },
    'accepted',
  )
  sessions.add(session)
}

function ownHello(options: PeerServerOptions): PeerHello {
  const hello = options.hello()
  if (hello !== undefined) return hello
  throw new Failure('UNKNOWN_VPG', 'this agent has not heard of its VPG from the VRA yet')
}

function admit(said: PeerHello, certifiedName: string | undefined, options: PeerServerOptions): void {
  const own = ownHello(options)
  const expected = options.peers().find(peer => peer.agent === said.agent)
  if (expected === undefined && said.vpg === own.vpg)
    throw new Failure('IDENTITY_REFUSED', `"${said.agent}" is no other agent of this VPG`)
  checkPeer(said, { vpg: own.vpg, agent: said.agent, stream: expected?.stream ?? said.stream }, certifiedName)
}

function answer(
  message: ControlMessage,
  from: { readonly agent: string; readonly holder: number },
  session: PeerSession,
  participant: Participant,
): void {
  switch (message.type) {
    case 'hold':
      session.send(participant.hold(message, from))
      return
    case 'cut':
      session.send(participant.cut(message, from))
      return
    case 'release':
      participant.release(message, from.holder)
      return
    default:
      throw new Failure('FRAME_INVALID', `an agent sent ${message.type} to another`)
  }
}
