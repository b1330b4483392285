import * as net from 'node:net'
import * as tls from 'node:tls'
import { Failure } from '../base/failure.ts'
import { handshakeTimeoutMillis, peerConnectionsMax } from '../base/limits.ts'
import type {
  PeerConnection,
  PeerConnectionUser,
  PeerListenAddress,
  PeerListener,
  PeerNetwork,
} from './peer-network.ts'

/** PEM texts of this agent. The same certificate serves both ends: it must be good for client and for server. */
export interface PeerTls {
  readonly certificateAuthority: string
  readonly certificate: string
  readonly privateKey: string
}

const flushTimeoutMillis = 1_000

/** TCP, or with certificates TLS 1.3 where both sides show one of the same authority. */
export class TcpNetwork implements PeerNetwork {
  readonly #tls: PeerTls | undefined

  constructor(certificates: PeerTls | undefined) {
    this.#tls = certificates
  }

  async listen(at: PeerListenAddress, accept: (connection: PeerConnection) => void): Promise<PeerListener> {
    const server = this.#tls === undefined ? net.createServer() : createTlsServer(this.#tls)
    const sockets = new Set<net.Socket>()
    server.maxConnections = peerConnectionsMax
    server.on('connection', (socket: net.Socket) => {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
      socket.setNoDelay(true)
      if (this.#tls === undefined) accept(new TcpConnection(socket, 'open'))
    })
    server.on('secureConnection', (socket: tls.TLSSocket) => accept(new TcpConnection(socket, 'open')))
    server.on('tlsClientError', (_error: Error, socket: tls.TLSSocket) => socket.destroy())
    await new Promise<void>((resolve, reject) => {
      server.once('error', cause => {
        const where = `${at.host}:${at.port}`
        reject(new Failure('CONFIG_INVALID', `cannot listen on ${where} for other agents: ${cause.message}`))
      })
      server.listen(at.port, at.host, () => resolve())
    })
    server.removeAllListeners('error')
    server.on('error', () => undefined) // of a connection that could not be accepted
    return {
      port: (server.address() as net.AddressInfo).port,
      close: () => closed(server, sockets),
    }
  }

  connect(address: string): PeerConnection {
    const at = parseAddress(address)
    const certificates = this.#tls
    if (certificates === undefined) return new TcpConnection(net.connect(at), 'connect', address)
    const socket = tls.connect({
      ...at,
      minVersion: 'TLSv1.3',
      ca: certificates.certificateAuthority,
      cert: certificates.certificate,
      key: certificates.privateKey,
      // An agent has a name, not a host: PeerHello must say the certificate's, which peer-session.ts checks.
      checkServerIdentity: () => undefined,
    })
    return new TcpConnection(socket, 'secureConnect', address)
  }
}

/** `host:port`, `[::1]:port`. Fails CONFIG_INVALID. */
export function parseAddress(address: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(address)
  const [host, port] = [match?.[1] ?? match?.[2], Number(match?.[3])]
  if (host === undefined || port < 1 || port > 65_535)
    throw new Failure('CONFIG_INVALID', `"${address}" is not an address of the form host:port`)
  return { host, port }
}

function createTlsServer(certificates: PeerTls): tls.Server {
  try {
    return tls.createServer({
      cert: certificates.certificate,
      key: certificates.privateKey,
      ca: certificates.certificateAuthority,
      minVersion: 'TLSv1.3',
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: handshakeTimeoutMillis,
    })
  } catch (cause) {
    throw new Failure('CONFIG_INVALID', `the agent's certificate or key is of no use: ${String(cause)}`, {}, { cause })
  }
}

/** Peers have a moment to read why. One that is in its TLS handshake, or does not close its side, is not waited for. */
async function closed(server: net.Server, sockets: ReadonlySet<net.Socket>): Promise<void> {
  const late = setTimeout(() => {
    for (const socket of sockets) socket.destroy()
  }, flushTimeoutMillis)
  await new Promise<void>(resolve => server.close(() => resolve()))
  clearTimeout(late)
}

class TcpConnection implements PeerConnection {
  readonly address: string
  readonly #socket: net.Socket
  readonly #opening: 'open' | 'connect' | 'secureConnect'

  constructor(socket: net.Socket, opening: 'open' | 'connect' | 'secureConnect', address?: string) {
    this.#socket = socket
    this.#opening = opening
    this.address = address ?? `${socket.remoteAddress}:${socket.remotePort}`
    socket.setNoDelay(true)
    socket.on('error', () => undefined) // until somebody attaches; 'close' follows
  }

  attach(user: PeerConnectionUser): void {
    const socket = this.#socket
    let problem = 'the other agent closed the connection'
    socket.on('error', cause => (problem = `the connection failed: ${cause.message}`))
    socket.on('end', () => socket.destroy())
    socket.on('close', () => user.closed(problem))
    if (this.#opening === 'open') user.opened(certifiedNameOf(socket))
    else socket.once(this.#opening, () => user.opened(certifiedNameOf(socket)))
    socket.on('data', chunk => user.received(chunk))
  }

  send(bytes: Uint8Array): void {
    if (this.#socket.writable) this.#socket.write(bytes)
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength
  }

  close(how: 'flush' | 'at-once'): void {
    if (how === 'at-once') this.#socket.destroy()
    else {
      this.#socket.end()
      // However much it goes on to say.
      const late = setTimeout(() => this.#socket.destroy(), flushTimeoutMillis)
      this.#socket.once('close', () => clearTimeout(late))
    }
  }
}

function certifiedNameOf(socket: net.Socket): string | undefined {
  if (!(socket instanceof tls.TLSSocket)) return undefined
  const name: unknown = socket.getPeerCertificate().subject?.CN
  return typeof name === 'string' ? name : '' // a certificate without a name is nobody's
}
