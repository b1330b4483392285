/** Connections between agents. The system's is in tcp-network.ts; a test or a simulation has its own. */
export interface PeerNetwork {
  /** Accepts connections on return. Fails CONFIG_INVALID where the address cannot be listened on. */
  listen(at: PeerListenAddress, accept: (connection: PeerConnection) => void): Promise<PeerListener>
  /** A connection on its way to `host:port`; whether it opens is told to who attaches to it. Fails CONFIG_INVALID for what is no address. */
  connect(address: string): PeerConnection
}

export interface PeerListenAddress {
  readonly host: string
  /** 0: any that is free. */
  readonly port: number
}

export interface PeerListener {
  readonly port: number
  /** No more are accepted; those that were stay. */
  close(): Promise<void>
}

/** Bytes in order, without loss, until it is closed: then what was under way may be lost. */
export interface PeerConnection {
  /** The other side's address, for people. */
  readonly address: string
  /** Once, in the same step in which the connection was given. */
  attach(user: PeerConnectionUser): void
  /** What is sent after the end goes nowhere. */
  send(bytes: Uint8Array): void
  /** Sent, and not yet taken by the network. */
  readonly bufferedBytes: number
  /** 'flush' lets what was sent go first, for a short while. */
  close(how: 'flush' | 'at-once'): void
}

export interface PeerConnectionUser {
  /** The peer is who its certificate says; undefined where there are none. */
  opened(certifiedName: string | undefined): void
  received(chunk: Uint8Array): void
  /** Once, the last call, also where it never opened. */
  closed(sentence: string): void
}
