import * as net from 'node:net'
import { sequence } from '../../src/base/ids.ts'
import { frameHeaderSizeBytes } from '../../src/base/limits.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import {
  decodeFrame,
  encodeFrame,
  frameChecksumStart,
  FrameReader,
  type ControlMessage,
  type Welcome,
} from '../../src/wire/wire.ts'
import { pause, until } from './scenario-role.ts'
import { buildBatch, randomWrites, type SampleWrite } from './wire-samples.ts'

interface QueuedFrame {
  readonly lastSequence: number
  readonly bytes: Buffer
}

/**
 * An agent that is nothing but a sender: it numbers random writes of one volume, keeps each frame until it is acknowledged and no
 * longer, so what the VRA acknowledged and lost cannot come back, and holds a plain array of what the volume must be.
 */
export class Sender {
  readonly model: Buffer
  /** The model at each checkpoint, by its counter. */
  readonly references = new Map<number, Buffer>()
  /** Everything up to here is acknowledged. */
  acked = 0
  lastSequence = 0
  readonly errors: { readonly code: string; readonly sentence: string }[] = []
  readonly faults: string[] = []
  welcome: Welcome | undefined
  sessionCount = 0
  readonly #port: number
  readonly #identity: { readonly vpg: string; readonly agent: string; readonly volume: string }
  readonly #random: () => number
  #queue: QueuedFrame[] = []
  #sentCount = 0
  #sentBytes = 0
  #creditBytes = 0
  #counter = 0
  #socket: net.Socket | undefined
  #heartbeats: NodeJS.Timeout | undefined

  constructor(
    port: number,
    identity: { readonly vpg: string; readonly agent: string; readonly volume: string; readonly sizeBytes: number },
    random: () => number,
  ) {
    this.#port = port
    this.#identity = identity
    this.#random = random
    this.model = Buffer.alloc(identity.sizeBytes)
  }

  get isConnected(): boolean {
    return this.#socket !== undefined && this.welcome !== undefined
  }

  get unackedCount(): number {
    return this.#queue.length
  }

  /** Connects until it is welcomed, and sends again what is not acknowledged. */
  async connect(): Promise<Welcome> {
    return until('a Welcome', async () => {
      if (this.#socket === undefined) this.#open()
      await pause(10)
      return this.welcome
    })
  }

  /** Connects once; it is welcomed, or the connection is gone, when this returns. */
  async attempt(): Promise<void> {
    this.#open()
    await until('an answer', () => this.isConnected || this.#socket === undefined)
  }

  /** Numbers random writes, as one batch. */
  write(countMax: number): void {
    this.writeExactly(randomWrites(this.#random, countMax))
  }

  writeExactly(writes: readonly SampleWrite[]): void {
    const firstSequence = this.lastSequence + 1
    const bytes = buildBatch(writes, { generation: 1, firstSequence })
    for (const { offsetBytes, lengthBytes, data } of writes) {
      if (data === undefined) this.model.fill(0, offsetBytes, offsetBytes + lengthBytes)
      else data.copy(this.model, offsetBytes)
    }
    this.#enqueue(this.lastSequence + writes.length, bytes)
  }

  /** A batch whose columns, sizes and checksums are right, and whose payload cannot be decompressed. */
  writeUndecompressable(writes: readonly SampleWrite[]): void {
    const bytes = buildBatch(writes, { generation: 1, firstSequence: this.lastSequence + 1 })
    bytes.fill(0xff, bytes.length - 64)
    const body = bytes.subarray(frameHeaderSizeBytes)
    bytes.writeUInt32LE(crc32c(body, frameChecksumStart(bytes)), frameHeaderSizeBytes - 4)
    this.#enqueue(this.lastSequence + writes.length, bytes)
  }

  /** A checkpoint here; its counter. */
  mark(requestId = 0): number {
    const { welcome } = this
    if (welcome === undefined) throw new Error('not welcomed yet')
    const { term } = welcome.coordinator
    const counter = ++this.#counter
    this.references.set(counter, Buffer.from(this.model))
    const marker = {
      type: 'marker',
      generation: 1,
      sequence: this.lastSequence + 1,
      term,
      counter,
      timestampMicros: Date.now() * 1000,
      participants: [welcome.stream],
      volumes: welcome.volumes.map(({ number, sizeBytes }) => ({ number, sizeBytes, included: true })),
      requestId,
    } as const
    this.#enqueue(this.lastSequence + 1, encodeFrame(marker))
    return counter
  }

  async untilAcked(): Promise<void> {
    const wanted = this.lastSequence
    await until(`an Ack of ${wanted}`, async () => {
      if (this.#socket === undefined) await this.connect()
      return this.acked >= wanted
    })
  }

  /** Poses as one who has sent up to here already. */
  continueFrom(sequence: number): void {
    this.acked = sequence
    this.lastSequence = sequence
  }

  close(): void {
    this.#socket?.destroy()
    this.#lost()
  }

  #enqueue(lastSequence: number, bytes: Buffer): void {
    this.lastSequence = lastSequence
    this.#queue.push({ lastSequence, bytes })
    this.#pump()
  }

  #open(): void {
    const { vpg, agent, volume } = this.#identity
    const socket = net.connect(this.#port, '127.0.0.1')
    const reader = new FrameReader()
    this.#socket = socket
    this.sessionCount++
    const lost = (): void => {
      if (this.#socket === socket) this.#lost()
    }
    socket.on('error', lost)
    socket.on('close', lost)
    socket.on('data', chunk => {
      for (const frame of reader.push(chunk)) {
        const message = decodeFrame(frame)
        if (message.type !== 'write-batch' && this.#socket === socket) this.#take(message)
      }
    })
    const here = { generation: this.lastSequence === 0 ? 0 : 1, sequence: sequence(this.lastSequence) }
    const hello = {
      type: 'hello',
      protocolVersionMin: 1,
      protocolVersionMax: 1,
      vpg,
      agent,
      sessionNumber: Date.now() * 1000 + this.sessionCount,
      epoch: 0,
      incarnation: 0,
      volumes: [{ name: volume, sizeBytes: this.model.length, sync: 'none' }],
      resumableFrom: { generation: this.acked === 0 ? 0 : 1, sequence: sequence(this.acked) },
      lastNumbered: here,
      software: 'a test',
      openGeneration: 0,
      peerAddress: '',
      highestTerm: 0,
    } as const
    socket.write(encodeFrame(hello))
    this.#heartbeats = setInterval(() => this.#send({ type: 'heartbeat', timestampMicros: Date.now() * 1000 }), 1000)
  }

  #lost(): void {
    clearInterval(this.#heartbeats)
    this.#socket = undefined
    this.welcome = undefined
  }

  #take(message: ControlMessage): void {
    switch (message.type) {
      case 'welcome':
        if (message.durable.sequence < this.acked)
          this.faults.push(`acknowledged up to ${this.acked}, and after a restart only ${message.durable.sequence}`)
        this.welcome = message
        this.#counter = Math.max(this.#counter, message.coordinator.counter)
        this.#forget(message.durable.sequence)
        this.#sentCount = 0
        this.#sentBytes = 0
        this.#creditBytes = message.creditBytes
        this.#pump()
        return
      case 'ack':
        if (message.durable.sequence < this.acked) this.faults.push(`Acks fell to ${message.durable.sequence}`)
        this.#forget(message.durable.sequence)
        this.#creditBytes = message.creditBytes
        this.#pump()
        return
      case 'checkpoint-request':
        this.mark(message.requestId)
        return
      case 'error':
        this.errors.push({ code: message.code, sentence: message.sentence })
        return
    }
  }

  #forget(durable: number): void {
    this.acked = Math.max(this.acked, durable)
    const count = this.#queue.findIndex(frame => frame.lastSequence > durable)
    const gone = count < 0 ? this.#queue.length : count
    this.#queue.splice(0, gone)
    this.#sentCount = Math.max(0, this.#sentCount - gone)
  }

  #pump(): void {
    if (!this.isConnected) return
    for (;;) {
      const next = this.#queue[this.#sentCount]
      if (next === undefined || this.#sentBytes + next.bytes.length > this.#creditBytes) return
      this.#sentBytes += next.bytes.length
      this.#sentCount++
      this.#socket?.write(next.bytes)
    }
  }

  #send(message: ControlMessage): void {
    if (this.isConnected) this.#socket?.write(encodeFrame(message))
  }
}
