import { connect, type Socket } from 'node:net'
import { once } from 'node:events'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'

// The guest of the demonstration: a small NBD client (fixed newstyle, simple replies), enough to write a disk as a virtual
// machine would, many requests in flight.

const optionMagic = 0x49484156454f5054n // 'IHAVEOPT'
const optionReplyMagic = 0x0003e889045565a9n
const requestMagic = 0x25609513
const simpleReplyMagic = 0x67446698
const optionGo = 7
const replyAck = 1
const replyInfo = 3
const infoExport = 0
const commandRead = 0
const commandWrite = 1
const commandDisconnect = 2
const commandFlush = 3

interface Waiting {
  readonly target: Uint8Array | undefined
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/** A connection to one NBD export. Requests may overlap in time; each promise settles when the server has answered. */
export class NbdClient {
  readonly sizeBytes: number
  readonly #socket: Socket
  readonly #waiting = new Map<bigint, Waiting>()
  #nextCookie = 1n

  private constructor(socket: Socket, sizeBytes: number, reader: ByteReader) {
    this.#socket = socket
    this.sizeBytes = sizeBytes
    void this.#receive(reader)
  }

  /** Fails PEER_LOST when nobody listens or the server refuses the export. */
  static async connect(address: { host: string; port: number; exportName: string }): Promise<NbdClient> {
    const socket = connect({ host: address.host, port: address.port, noDelay: true })
    const reader = new ByteReader(socket)
    await once(socket, 'connect')
    const sizeBytes = await negotiate(socket, reader, address.exportName)
    return new NbdClient(socket, sizeBytes, reader)
  }

  write(offsetBytes: number, data: Uint8Array): Promise<void> {
    return this.#request(commandWrite, offsetBytes, data.length, data, undefined)
  }

  read(offsetBytes: number, target: Uint8Array): Promise<void> {
    return this.#request(commandRead, offsetBytes, target.length, undefined, target)
  }

  flush(): Promise<void> {
    return this.#request(commandFlush, 0, 0, undefined, undefined)
  }

  async close(): Promise<void> {
    this.#socket.write(requestHeader(commandDisconnect, 0n, 0, 0))
    this.#socket.end()
    if (!this.#socket.closed) await once(this.#socket, 'close')
  }

  #request(
    command: number,
    offsetBytes: number,
    sizeBytes: number,
    data: Uint8Array | undefined,
    target: Uint8Array | undefined,
  ): Promise<void> {
    const cookie = this.#nextCookie++
    return new Promise((resolve, reject) => {
      this.#waiting.set(cookie, { target, resolve, reject })
      this.#socket.cork()
      this.#socket.write(requestHeader(command, cookie, offsetBytes, sizeBytes))
      if (data !== undefined) this.#socket.write(data)
      this.#socket.uncork()
    })
  }

  async #receive(reader: ByteReader): Promise<void> {
    try {
      for (;;) {
        const header = await reader.read(16)
        if (header.readUInt32BE(0) !== simpleReplyMagic)
          throw new Failure('PEER_LOST', 'the NBD server broke the protocol')
        const cookie = header.readBigUInt64BE(8)
        const waiting = this.#waiting.get(cookie)
        if (waiting === undefined) throw new Failure('PEER_LOST', 'the NBD server answered what was not asked')
        this.#waiting.delete(cookie)
        const error = header.readUInt32BE(4)
        if (error !== 0) {
          waiting.reject(new Failure('DISK_FAILED', `the disk answered error ${error}`))
          continue
        }
        if (waiting.target !== undefined) waiting.target.set(await reader.read(waiting.target.length))
        waiting.resolve()
      }
    } catch (error) {
      for (const { reject } of this.#waiting.values())
        reject(new Failure('PEER_LOST', 'the NBD connection ended', {}, { cause: error }))
      this.#waiting.clear()
    }
  }
}

async function negotiate(socket: Socket, reader: ByteReader, exportName: string): Promise<number> {
  await reader.read(18) // magic, option magic, handshake flags
  const name = Buffer.from(exportName)
  const hello = Buffer.alloc(4 + 16 + 4 + name.length + 2)
  hello.writeUInt32BE(3, 0) // fixed newstyle, no zeroes
  hello.writeBigUInt64BE(optionMagic, 4)
  hello.writeUInt32BE(optionGo, 12)
  hello.writeUInt32BE(4 + name.length + 2, 16)
  hello.writeUInt32BE(name.length, 20)
  name.copy(hello, 24)
  socket.write(hello)
  let sizeBytes: number | undefined
  for (;;) {
    const header = await reader.read(20)
    assert(header.readBigUInt64BE(0) === optionReplyMagic, 'an option is answered')
    const type = header.readUInt32BE(12)
    const body = await reader.read(header.readUInt32BE(16))
    if (type === replyInfo && body.readUInt16BE(0) === infoExport) sizeBytes = Number(body.readBigUInt64BE(2))
    else if (type === replyAck && sizeBytes !== undefined) return sizeBytes
    else if (type >= 2 ** 31)
      throw new Failure('PEER_LOST', `the NBD server refuses the export "${exportName}": ${body.toString()}`)
  }
}

function requestHeader(command: number, cookie: bigint, offsetBytes: number, sizeBytes: number): Buffer {
  const header = Buffer.alloc(28)
  header.writeUInt32BE(requestMagic, 0)
  header.writeUInt16BE(command, 6)
  header.writeBigUInt64BE(cookie, 8)
  header.writeBigUInt64BE(BigInt(offsetBytes), 16)
  header.writeUInt32BE(sizeBytes, 24)
  return header
}

/** Exactly so many bytes at a time from a socket. */
class ByteReader {
  #chunks: Buffer[] = []
  #buffered = 0
  #ended = false
  #wake: () => void = () => undefined

  constructor(socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#buffered += chunk.length
      this.#wake()
    })
    const end = (): void => {
      this.#ended = true
      this.#wake()
    }
    socket.on('close', end)
    socket.on('error', end)
  }

  async read(sizeBytes: number): Promise<Buffer> {
    while (this.#buffered < sizeBytes) {
      if (this.#ended) throw new Failure('PEER_LOST', 'the NBD server closed the connection')
      await new Promise<void>(resolve => (this.#wake = resolve))
    }
    const all = this.#chunks.length === 1 ? (this.#chunks[0] as Buffer) : Buffer.concat(this.#chunks)
    this.#chunks = all.length > sizeBytes ? [all.subarray(sizeBytes)] : []
    this.#buffered = all.length - sizeBytes
    return all.subarray(0, sizeBytes)
  }
}
