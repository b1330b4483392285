import * as net from 'node:net'
import * as tls from 'node:tls'

/** PEM texts, not paths: whoever reads the configuration reads the files. */
export interface AgentTls {
  readonly certificateAuthority: string
  readonly certificate: string
  readonly privateKey: string
  /** The name that the VRA's certificate must bear, where it is not the host that is connected to. */
  readonly serverName?: string
}

export interface VraTarget {
  readonly host: string
  readonly port: number
  readonly tls?: AgentTls
}

/** One connection to the VRA, as a session uses it. */
export interface Connection {
  /** Given, and not yet taken by the network. */
  readonly bufferedBytes: number
  /** Sends in order, or never. After the end it does nothing. The bytes stay as they are until `taken` is called, which may be never. */
  write(bytes: Uint8Array, taken?: () => void): void
  /** No more is written; what was is still sent. */
  end(): void
  /** Ends at once, and what was not sent is lost. `closed` is told, in a later turn. */
  destroy(): void
}

export interface ConnectionEnd {
  readonly by: 'peer' | 'network'
  readonly cause: Error | undefined
}

/** What a connection tells, never within the call that makes it. */
export interface ConnectionEvents {
  opened(): void
  received(chunk: Buffer): void
  /** All that was buffered is taken. */
  drained(): void
  /** Told once, and nothing after it. */
  closed(end: ConnectionEnd): void
}

export type Connect = (target: VraTarget, events: ConnectionEvents) => Connection

/** A TCP connection, or TLS 1.3 where the target has certificates. */
export const connectSocket: Connect = (target, events) => {
  const socket = openSocket(target)
  let end: ConnectionEnd = { by: 'network', cause: undefined }
  socket.setNoDelay(true)
  socket.once(target.tls === undefined ? 'connect' : 'secureConnect', () => events.opened())
  socket.on('data', chunk => events.received(chunk))
  socket.on('drain', () => events.drained())
  socket.on('end', () => {
    end = { by: 'peer', cause: undefined }
    socket.destroy()
  })
  socket.on('error', cause => {
    end = { by: 'network', cause }
  })
  socket.on('close', () => events.closed(end))
  return {
    get bufferedBytes() {
      return socket.writableLength
    },
    write: (bytes, taken) => void socket.write(bytes, taken),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  }
}

function openSocket({ host, port, tls: certificates }: VraTarget): net.Socket {
  if (certificates === undefined) return net.connect({ host, port })
  const { certificateAuthority, certificate, privateKey, serverName } = certificates
  return tls.connect({
    host,
    port,
    minVersion: 'TLSv1.3',
    ca: certificateAuthority,
    cert: certificate,
    key: privateKey,
    ...(serverName === undefined ? {} : { servername: serverName }),
  })
}
