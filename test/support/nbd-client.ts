import * as net from 'node:net'
import type { NbdListen } from '../../src/nbd/nbd.ts'

export const nbd = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6, blockStatus: 7 } as const
export const flag = { fua: 1, noHole: 2, df: 4, reqOne: 8 } as const

export interface NbdAnswer {
  /** The protocol's number, 0 for none. */
  readonly error: number
  readonly data: Buffer
  /** Chunks of a structured reply, their types in order. */
  readonly chunkTypes: readonly number[]
}

/** Bytes in order, to be awaited piece by piece. */
class Inbox {
  #chunks: Buffer[] = []
  #sizeBytes = 0
  #closed = false
  #wake: () => void = () => undefined

  constructor(socket: net.Socket) {
    socket.on('data', chunk => {
      this.#chunks.push(chunk)
      this.#sizeBytes += chunk.length
      this.#wake()
    })
    socket.on('error', () => undefined)
    socket.on('close', () => {
      this.#closed = true
      this.#wake()
    })
  }

  /** Rejects when the connection ends before. */
  async take(sizeBytes: number): Promise<Buffer> {
    while (this.#sizeBytes < sizeBytes) {
      if (this.#closed) throw new Error('the connection was closed')
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    this.#chunks = [all.subarray(sizeBytes)]
    this.#sizeBytes -= sizeBytes
    return all.subarray(0, sizeBytes)
  }
}

export function connectTo(address: NbdListen): net.Socket {
  return 'socketPath' in address ? net.connect(address.socketPath) : net.connect(address.port, address.host)
}

export function optionBytes(type: number, data: Buffer): Buffer {
  const header = Buffer.alloc(16)
  header.write('IHAVEOPT', 'latin1')
  header.writeUInt32BE(type, 8)
  header.writeUInt32BE(data.length, 12)
  return Buffer.concat([header, data])
}

export function nameBytes(name: string): Buffer {
  const bytes = Buffer.alloc(4 + name.length)
  bytes.writeUInt32BE(name.length)
  bytes.write(name, 4, 'latin1')
  return bytes
}

export function requestBytes(request: {
  readonly type: number
  readonly flags?: number
  readonly cookie: bigint
  readonly offsetBytes?: number
  readonly lengthBytes?: number
  readonly magic?: number
}): Buffer {
  const header = Buffer.alloc(28)
  header.writeUInt32BE(request.magic ?? 0x25609513, 0)
  header.writeUInt16BE(request.flags ?? 0, 4)
  header.writeUInt16BE(request.type, 6)
  header.writeBigUInt64BE(request.cookie, 8)
  header.writeBigUInt64BE(BigInt(request.offsetBytes ?? 0), 16)
  header.writeUInt32BE(request.lengthBytes ?? 0, 24)
  return header
}

/** A small NBD client that may break every rule. Requests may be sent many at once; each resolves with its own answer. */
export class NbdClient {
  readonly socket: net.Socket
  readonly inbox: Inbox
  sizeBytes = 0
  flags = 0
  readonly #waiting = new Map<
    bigint,
    { readBytes: number; resolve: (answer: NbdAnswer) => void; reject: (e: Error) => void }
  >()
  #nextCookie = 1n

  constructor(address: NbdListen) {
    this.socket = connectTo(address)
    this.inbox = new Inbox(this.socket)
  }

  /** Connects, opens the export and is ready for requests. */
  static async open(
    address: NbdListen,
    name: string,
    options: { readonly structured?: boolean; readonly context?: boolean } = {},
  ): Promise<NbdClient> {
    const client = new NbdClient(address)
    await client.greet()
    if (options.structured ?? false) await client.option(8, Buffer.alloc(0))
    if (options.context ?? false) {
      const query = Buffer.concat([nameBytes(name), Buffer.from([0, 0, 0, 1]), nameBytes('base:allocation')])
      await client.option(10, query)
    }
    const replies = await client.option(7, Buffer.concat([nameBytes(name), Buffer.from([0, 0])]))
    const info = replies.find(reply => reply.type === 3 && reply.data.readUInt16BE(0) === 0)
    if (info === undefined) throw new Error(`GO was refused: ${JSON.stringify(replies.map(each => each.type))}`)
    client.sizeBytes = Number(info.data.readBigUInt64BE(2))
    client.flags = info.data.readUInt16BE(10)
    client.transmit()
    return client
  }

  async greet(clientFlags = 3): Promise<void> {
    await this.inbox.take(18)
    const flags = Buffer.alloc(4)
    flags.writeUInt32BE(clientFlags)
    this.socket.write(flags)
  }

  /** Sends an option and gathers its replies, up to the last. */
  async option(type: number, data: Buffer): Promise<readonly { type: number; data: Buffer }[]> {
    this.socket.write(optionBytes(type, data))
    const replies: { type: number; data: Buffer }[] = []
    for (;;) {
      const header = await this.inbox.take(20)
      const replyType = header.readUInt32BE(12)
      replies.push({ type: replyType, data: Buffer.from(await this.inbox.take(header.readUInt32BE(16))) })
      if (replyType === 1 || replyType >= 2 ** 31) return replies
    }
  }

  /** From now on answers are matched with requests; all that wait fail when the connection ends. */
  transmit(): void {
    this.#readAnswers().catch((error: unknown) => {
      for (const each of this.#waiting.values()) each.reject(error as Error)
      this.#waiting.clear()
      this.#lost = true
    })
  }
  #lost = false

  request(
    type: number,
    range: {
      readonly offsetBytes?: number
      readonly lengthBytes?: number
      readonly flags?: number
      readonly data?: Uint8Array
    } = {},
  ): Promise<NbdAnswer> {
    const cookie = this.#nextCookie++
    const lengthBytes = range.data?.length ?? range.lengthBytes ?? 0
    const { offsetBytes = 0, flags = 0 } = range
    return new Promise((resolve, reject) => {
      if (this.#lost) return reject(new Error('the connection was closed'))
      this.#waiting.set(cookie, { readBytes: type === nbd.read ? lengthBytes : 0, resolve, reject })
      this.socket.cork()
      this.socket.write(requestBytes({ type, flags, cookie, offsetBytes, lengthBytes }))
      if (range.data !== undefined) this.socket.write(range.data)
      this.socket.uncork()
    })
  }

  async write(offsetBytes: number, data: Uint8Array, flags = 0): Promise<void> {
    const answer = await this.request(nbd.write, { offsetBytes, data, flags })
    if (answer.error !== 0) throw new Error(`write failed: ${answer.error}`)
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    const answer = await this.request(nbd.read, { offsetBytes, lengthBytes })
    if (answer.error !== 0) throw new Error(`read failed: ${answer.error}`)
    return answer.data
  }

  /** Leaves in order. */
  async close(): Promise<void> {
    const closed = new Promise(resolve => this.socket.once('close', resolve))
    if (this.socket.destroyed) return
    this.socket.write(requestBytes({ type: nbd.disconnect, cookie: 0n }))
    this.socket.end()
    await closed
  }

  async #readAnswers(): Promise<void> {
    const partial = new Map<bigint, { data: Buffer[]; types: number[]; error: number }>()
    for (;;) {
      const magic = (await this.inbox.take(4)).readUInt32BE(0)
      if (magic === 0x67446698) {
        const header = await this.inbox.take(12)
        const cookie = header.readBigUInt64BE(4)
        const error = header.readUInt32BE(0)
        const waiting = this.#waiting.get(cookie)!
        const data = Buffer.from(await this.inbox.take(error === 0 ? waiting.readBytes : 0))
        this.#waiting.delete(cookie)
        waiting.resolve({ error, data, chunkTypes: [] })
      } else {
        const header = await this.inbox.take(16)
        const cookie = header.readBigUInt64BE(4)
        const data = Buffer.from(await this.inbox.take(header.readUInt32BE(12)))
        const answer = partial.get(cookie) ?? { data: [], types: [], error: 0 }
        partial.set(cookie, answer)
        const type = header.readUInt16BE(2)
        answer.types.push(type)
        if (type >= 2 ** 15) answer.error = data.readUInt32BE(0)
        else answer.data.push(type === 1 ? data.subarray(8) : data)
        if (header.readUInt16BE(0) % 2 === 0) continue
        partial.delete(cookie)
        this.#waiting
          .get(cookie)!
          .resolve({ error: answer.error, data: Buffer.concat(answer.data), chunkTypes: answer.types })
        this.#waiting.delete(cookie)
      }
    }
  }
}
