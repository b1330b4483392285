import * as fs from 'node:fs'
import * as net from 'node:net'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { MiB } from '../base/units.ts'
import { Connection } from './connection.ts'
import { silentNbdEvents, type NbdEvents } from './events.ts'
import type { NbdExport } from './export.ts'
import type { ExportTable } from './handshake.ts'
import { MemoryPool } from '../base/memory-pool.ts'
import { requestSizeBytesMax } from './protocol.ts'

// A Network Block Device server (fixed newstyle, without TLS: it is meant for the host's own machines). It knows the
// protocol; what a disk is, is the export's matter, see NbdExport.
//
//   socket ─> intake ─> handshake ─> validateRequest ─> NbdExport ─> reply ─> socket
//
// Several clients of one export are right only where they are one user of the disk, for instance the parallel connections of
// one kernel: two users that do not know of each other destroy a filesystem without any error. Therefore the connections to
// one export come from one address, unless the options say otherwise.

export type { NbdExport, NbdExtent, NbdWriteOptions, NbdZeroOptions } from './export.ts'
export { silentNbdEvents, type NbdEvents } from './events.ts'

export type NbdListen = { readonly host: string; readonly port: number } | { readonly socketPath: string }

/** Where clients find an export of a server that listens there: the URI of the NBD project ("nbd://host:port/name"). */
export function nbdUri(listens: NbdListen, exportName: string): string {
  const name = exportName.split('/').map(encodeURIComponent).join('/')
  if ('socketPath' in listens) return `nbd+unix:///${name}?socket=${encodeURIComponent(listens.socketPath)}`
  const host = listens.host.includes(':') ? `[${listens.host}]` : listens.host
  return `nbd://${host}:${listens.port}/${name}`
}

export interface NbdLimits {
  readonly connectionsMax: number
  /** Per connection: data of requests that run and of replies that the client has not taken. */
  readonly inFlightBytesMax: number
  readonly handshakeTimeoutMillis: number
  /** How long close() waits for the export to finish what it has begun, and for clients to take their answers. */
  readonly closeTimeoutMillis: number
}

export const nbdLimitsDefault: NbdLimits = {
  connectionsMax: 256,
  inFlightBytesMax: 48 * 1024 * 1024,
  handshakeTimeoutMillis: 10_000,
  closeTimeoutMillis: 10_000,
}

export interface NbdServerOptions {
  readonly listen: NbdListen
  readonly exports: readonly NbdExport[]
  readonly events?: NbdEvents
  readonly limits?: Partial<NbdLimits>
  /** 'one-address' (the default): while an export is in use, only the address that uses it may connect to it. */
  readonly clients?: 'one-address' | 'any'
}

/** Memory for the data of writes that is kept between them. */
const payloadKeptBytesMax = 32 * MiB

export class NbdServer {
  readonly #server: net.Server
  readonly #exports: Map<string, NbdExport>
  readonly #events: NbdEvents
  readonly #limits: NbdLimits
  readonly #clients: 'one-address' | 'any'
  readonly #connections = new Set<Connection>()
  readonly #memory = new MemoryPool(payloadKeptBytesMax)
  #closing: Promise<void> | undefined
  #tellClosed = (): void => undefined
  readonly #closed = new Promise<void>(resolve => (this.#tellClosed = resolve))

  private constructor(options: NbdServerOptions) {
    this.#limits = { ...nbdLimitsDefault, ...options.limits }
    assert(this.#limits.inFlightBytesMax > requestSizeBytesMax + 1024 * 1024, 'the longest request fits in the bound')
    this.#events = options.events ?? silentNbdEvents
    this.#clients = options.clients ?? 'one-address'
    this.#exports = new Map(options.exports.map(each => [each.name, each]))
    assert(this.#exports.size === options.exports.length, 'every export has a name of its own')
    this.#server = net.createServer({ allowHalfOpen: true }, socket => this.#accept(socket))
    this.#server.maxConnections = this.#limits.connectionsMax
  }

  /** Listens when it resolves. An address that cannot be had is CONFIG_INVALID. */
  static async open(options: NbdServerOptions): Promise<NbdServer> {
    const server = new NbdServer(options)
    const listen = options.listen
    const address = 'socketPath' in listen ? { path: listen.socketPath } : { host: listen.host, port: listen.port }
    if ('socketPath' in listen) await removeStaleSocket(listen.socketPath)
    await new Promise<void>((resolve, reject) => {
      server.#server.once('error', error => {
        reject(new Failure('CONFIG_INVALID', `disks cannot be served over NBD: ${error.message}`, {}, { cause: error }))
      })
      server.#server.listen(address, () => resolve())
    })
    return server
  }

  /** Where clients connect to; the port is the one given by the system where 0 was asked for. */
  address(): NbdListen {
    const address = this.#server.address()
    assert(address !== null, 'the server listens')
    return typeof address === 'string' ? { socketPath: address } : { host: address.address, port: address.port }
  }

  /** The connections that have opened the export. */
  connectionCount(exportName: string): number {
    return [...this.#connections].filter(each => each.export?.name === exportName).length
  }

  /** From its return clients find it. */
  addExport(added: NbdExport): void {
    assert(!this.#exports.has(added.name), 'every export has a name of its own')
    this.#exports.set(added.name, added)
  }

  /**
   * Nobody finds it any more, and its clients' connections end. When it resolves no call of the export is under way, unless one outlasts a close() meanwhile.
   */
  async removeExport(name: string): Promise<void> {
    this.#exports.delete(name)
    const connections = [...this.#connections].filter(each => each.export?.name === name)
    for (const connection of connections) connection.close()
    const idle = Promise.all(connections.map(connection => connection.idle()))
    await Promise.race([idle, this.#closed])
  }

  /**
   * Takes no more connections and no more requests, and answers those that run. When it resolves no call of an export is
   * under way, unless one outlasts the limit; connections that then still live are cut.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close().finally(() => this.#tellClosed())
    return this.#closing
  }

  async #close(): Promise<void> {
    const stopped = new Promise<void>(resolve => this.#server.close(() => resolve()))
    const connections = [...this.#connections]
    for (const connection of connections) connection.close()
    let timer: NodeJS.Timeout | undefined
    const patience = new Promise<void>(resolve => {
      timer = setTimeout(resolve, this.#limits.closeTimeoutMillis)
    })
    const finished = Promise.all(connections.map(connection => connection.idle())).then(() => stopped)
    await Promise.race([finished, patience])
    clearTimeout(timer)
    for (const connection of this.#connections) connection.destroy()
    await stopped
  }

  #accept(socket: net.Socket): void {
    const table: ExportTable = {
      list: () => [...this.#exports.values()],
      find: name => this.#find(name),
      refusal: found => this.#refusal(found, connection),
    }
    const limits = this.#limits
    const connection = new Connection(socket, table, this.#events, limits, this.#memory, negotiated => {
      const name = negotiated.export.name
      this.#events.clientConnected(name, { address: connection.address, connectionCount: this.connectionCount(name) })
    })
    this.#connections.add(connection)
    socket.on('close', () => {
      this.#connections.delete(connection)
      const name = connection.export?.name
      if (name === undefined) return
      this.#events.clientGone(name, { address: connection.address, connectionCount: this.connectionCount(name) })
    })
  }

  /** The empty name is the default export: the only one there is. */
  #find(name: string): NbdExport | undefined {
    const only = this.#exports.size === 1 ? [...this.#exports.values()][0] : undefined
    return this.#exports.get(name) ?? (name === '' ? only : undefined)
  }

  #refusal(found: NbdExport, asking: Connection): string | undefined {
    if (this.#closing !== undefined) return 'the server is shutting down'
    if (this.#clients === 'any' || (found.mayBeShared ?? found.readOnly)) return undefined
    const other = [...this.#connections].find(each => each.export === found && each.address !== asking.address)
    return other === undefined ? undefined : `the export is in use by ${other.address}`
  }
}

/** A socket file that nobody answers at is left over from a process that was killed. */
async function removeStaleSocket(socketPath: string): Promise<void> {
  if (!fs.existsSync(socketPath)) return
  const alive = await new Promise<boolean>(resolve => {
    const probe = net.connect(socketPath)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', () => resolve(false))
  })
  if (!alive) fs.rmSync(socketPath)
}
