import { once } from 'node:events'
import { open } from 'node:fs/promises'
import * as net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import * as tls from 'node:tls'
import { sequence, type Position } from '../src/base/ids.ts'
import { KiB } from '../src/base/units.ts'
import {
  BatchBuilder,
  decodeFrame,
  encodeFrame,
  FrameReader,
  type Coordinator,
  type Welcome,
} from '../src/wire/wire.ts'
import type { FramePool } from './frames.ts'
import type { PlainPosition, SenderJob } from './job.ts'

/** A frame under way. */
export interface SentFrame {
  readonly sizeBytes: number
  readonly dueMillis: number
  /** The stream's bytes, or the last sequence number, up to the end of this frame. */
  readonly upTo: number
}

export interface StreamHooks {
  onAcked(frame: SentFrame): void
  onRoom(): void
}

export interface SenderStream {
  readonly hasRoom: boolean
  readonly isBusy: boolean
  readonly failure: Error | undefined
  send(pool: FramePool, dueMillis: number): void
  /** The file's bytes that are not zeros, at the places that they have in it. */
  sendImage(file: string): Promise<void>
  /** What is due by the clock beside the data: heartbeats and markers. */
  tick(nowMillis: number): void
  close(): Promise<void>
}

/** What waits in this process for the kernel to take it; beyond that the window would be counted twice. */
const unsentBytesMax = 2 * 1024 * 1024
const imagePieceSizeBytes = 64 * KiB

abstract class Stream implements SenderStream {
  failure: Error | undefined
  protected readonly job: SenderJob
  protected readonly socket: net.Socket
  protected readonly hooks: StreamHooks
  protected sentBytes = 0
  readonly #underWay: SentFrame[] = []
  #first = 0
  #underWayBytes = 0

  constructor(job: SenderJob, socket: net.Socket, hooks: StreamHooks) {
    this.job = job
    this.socket = socket
    this.hooks = hooks
    socket.on('drain', () => hooks.onRoom())
    socket.on('error', error => this.fail(error))
    socket.on('close', () => this.fail(new Error('the connection was closed')))
  }

  get hasRoom(): boolean {
    return (
      this.failure === undefined &&
      this.#underWayBytes < this.job.windowBytes &&
      this.socket.writableLength < unsentBytesMax &&
      this.mayStillSend()
    )
  }

  get isBusy(): boolean {
    return this.failure === undefined && this.#first < this.#underWay.length
  }

  protected abstract mayStillSend(): boolean
  abstract send(pool: FramePool, dueMillis: number): void
  abstract sendImage(file: string): Promise<void>
  abstract tick(nowMillis: number): void
  abstract close(): Promise<void>

  protected write(pieces: readonly Uint8Array[]): number {
    this.socket.cork()
    let sizeBytes = 0
    for (const piece of pieces) {
      this.socket.write(piece)
      sizeBytes += piece.length
    }
    this.socket.uncork()
    this.sentBytes += sizeBytes
    return sizeBytes
  }

  protected track(frame: SentFrame): void {
    this.#underWay.push(frame)
    this.#underWayBytes += frame.sizeBytes
  }

  protected acknowledge(upTo: number): void {
    for (;;) {
      const frame = this.#underWay[this.#first]
      if (frame === undefined || frame.upTo > upTo) break
      this.#first++
      this.#underWayBytes -= frame.sizeBytes
      this.hooks.onAcked(frame)
    }
    if (this.#first > 1000) {
      this.#underWay.splice(0, this.#first)
      this.#first = 0
    }
    this.hooks.onRoom()
  }

  protected fail(error: Error): void {
    this.failure ??= error
  }
}

async function connect(job: SenderJob): Promise<net.Socket> {
  const socket =
    job.tls === undefined
      ? net.connect({ host: '127.0.0.1', port: job.port, noDelay: true })
      : tls.connect({
          host: '127.0.0.1',
          port: job.port,
          minVersion: 'TLSv1.3',
          ca: job.tls.authority,
          cert: job.tls.certificate,
          key: job.tls.privateKey,
        })
  await once(socket, job.tls === undefined ? 'connect' : 'secureConnect')
  socket.setNoDelay(true)
  return socket
}

/** Frames into the reference: it answers with the bytes that are durable. */
export class SinkStream extends Stream {
  #cursor = 0
  #sequence = 1
  #answer = Buffer.alloc(0)

  static async open(job: SenderJob, hooks: StreamHooks): Promise<SinkStream> {
    return new SinkStream(job, await connect(job), hooks)
  }

  private constructor(job: SenderJob, socket: net.Socket, hooks: StreamHooks) {
    super(job, socket, hooks)
    socket.on('data', (chunk: Buffer) => {
      this.#answer = Buffer.concat([this.#answer, chunk])
      const whole = this.#answer.length - (this.#answer.length % 8)
      if (whole === 0) return
      const upTo = Number(this.#answer.readBigUInt64LE(whole - 8))
      this.#answer = this.#answer.subarray(whole)
      this.acknowledge(upTo)
    })
  }

  protected mayStillSend(): boolean {
    return true
  }

  send(pool: FramePool, dueMillis: number): void {
    const frame = pool.next({ sequence: this.#sequence, cursor: this.#cursor }, this.job.volumeSizeBytes)
    this.#sequence += pool.writesPerFrame
    this.#cursor += pool.writesPerFrame
    const sizeBytes = this.write(frame)
    this.track({ sizeBytes, dueMillis, upTo: this.sentBytes })
  }

  tick(): void {}

  async sendImage(): Promise<void> {
    throw new Error('a sink knows no places')
  }

  async close(): Promise<void> {
    this.socket.destroy()
  }
}

/** A session as proto/README.md has it. */
export class VraStream extends Stream {
  readonly #frames = new FrameReader()
  readonly #opened: Promise<Welcome>
  #settleOpened: { resolve: (welcome: Welcome) => void; reject: (error: Error) => void } | undefined
  #cursor = 0
  #sequence = 0
  #durable = 0
  #credit = 0
  #stream = 0
  #frameSizeBytes = 0
  #coordinator: Coordinator = { agent: '', term: 0, counter: 0, checkpointIntervalMillis: 0, participants: [] }
  #counter = 0
  #markerDueMillis = 0
  #heartbeatDueMillis = 0
  /** Credit counts stream frames only. */
  #streamBytes = 0

  static async open(
    job: SenderJob,
    vpg: { readonly name: string; readonly durable: PlainPosition },
    hooks: StreamHooks,
  ): Promise<VraStream> {
    const stream = new VraStream(job, await connect(job), hooks)
    await stream.#begin(vpg)
    return stream
  }

  private constructor(job: SenderJob, socket: net.Socket, hooks: StreamHooks) {
    super(job, socket, hooks)
    this.#opened = new Promise((resolve, reject) => (this.#settleOpened = { resolve, reject }))
    socket.on('data', (chunk: Buffer) => {
      for (const frame of this.#frames.push(chunk)) this.#receive(frame)
    })
  }

  async #begin(vpg: { readonly name: string; readonly durable: PlainPosition }): Promise<void> {
    this.write([
      encodeFrame({
        type: 'hello',
        protocolVersionMin: 1,
        protocolVersionMax: 1,
        vpg: vpg.name,
        agent: this.job.agent,
        sessionNumber: Date.now() * 1000,
        epoch: 0,
        incarnation: 0,
        volumes: [{ name: this.job.volumeName, sizeBytes: this.job.volumeSizeBytes, sync: 'none' }],
        resumableFrom: vpg.durable as Position,
        lastNumbered: vpg.durable as Position,
        software: 'bench',
        openGeneration: 0,
        peerAddress: '',
        highestTerm: 0,
      }),
    ])
    const welcome = await this.#opened
    this.#sequence = this.#durable = welcome.durable.sequence
    this.#credit = welcome.creditBytes
    this.#stream = welcome.stream
    this.#coordinator = welcome.coordinator
    this.#counter = welcome.coordinator.counter
    this.#markerDueMillis = performance.now() + (this.job.markerMillis ?? Infinity)
  }

  #receive(frame: Buffer): void {
    const message = decodeFrame(frame)
    if (message.type === 'welcome') this.#settleOpened?.resolve(message)
    else if (message.type === 'ack') {
      this.#credit = message.creditBytes
      this.#durable = message.durable.sequence
      this.acknowledge(message.durable.sequence)
    } else if (message.type === 'error') this.fail(new Error(`${message.code}: ${message.sentence}`))
  }

  protected override fail(error: Error): void {
    super.fail(error)
    this.#settleOpened?.reject(this.failure ?? error)
  }

  protected mayStillSend(): boolean {
    return this.#streamBytes + this.#frameSizeBytes + 4096 <= this.#credit
  }

  send(pool: FramePool, dueMillis: number): void {
    const position = { sequence: this.#sequence + 1, cursor: this.#cursor }
    const sizeBytes = this.write(pool.next(position, this.job.volumeSizeBytes))
    this.#sequence += pool.writesPerFrame
    this.#cursor += pool.writesPerFrame
    this.#streamBytes += sizeBytes
    this.#frameSizeBytes = Math.max(this.#frameSizeBytes, sizeBytes)
    this.track({ sizeBytes, dueMillis, upTo: this.#sequence })
  }

  async sendImage(file: string): Promise<void> {
    const image = await open(file)
    const piece = Buffer.alloc(imagePieceSizeBytes)
    const zeros = Buffer.alloc(imagePieceSizeBytes)
    for (let offsetBytes = 0; ; offsetBytes += piece.length) {
      const { bytesRead } = await image.read(piece, 0, piece.length, offsetBytes)
      if (bytesRead === 0) break
      const data = piece.subarray(0, bytesRead)
      if (data.equals(zeros.subarray(0, bytesRead))) continue
      while (!this.hasRoom) await delay(1)
      if (this.failure !== undefined) throw this.failure
      const builder = new BatchBuilder()
      builder.add({ volume: 1, offsetBytes, data })
      const firstSequence = sequence(++this.#sequence)
      const sizeBytes = this.write([
        builder.finish({ generation: 1, firstSequence, timestampMicros: Date.now() * 1000 }),
      ])
      this.#streamBytes += sizeBytes
      this.#frameSizeBytes = Math.max(this.#frameSizeBytes, sizeBytes)
      this.track({ sizeBytes, dueMillis: performance.now(), upTo: this.#sequence })
    }
    await image.close()
  }

  tick(nowMillis: number): void {
    if (this.failure !== undefined) return
    if (nowMillis >= this.#heartbeatDueMillis) {
      this.#heartbeatDueMillis = nowMillis + 1000
      this.write([encodeFrame({ type: 'heartbeat', timestampMicros: Date.now() * 1000 })])
    }
    if (nowMillis < this.#markerDueMillis || this.#streamBytes + 4096 > this.#credit) return
    this.#markerDueMillis = nowMillis + (this.job.markerMillis ?? Infinity)
    this.#sendMarker()
  }

  #sendMarker(): void {
    this.#streamBytes += this.write([
      encodeFrame({
        type: 'marker',
        generation: 1,
        sequence: ++this.#sequence,
        term: this.#coordinator.term,
        counter: ++this.#counter,
        timestampMicros: Date.now() * 1000,
        participants: [this.#stream],
        volumes: [{ number: 1, sizeBytes: this.job.volumeSizeBytes, included: true }],
        requestId: 0,
      }),
    ])
  }

  /** With markers, the last thing in the stream is a checkpoint of all of it, and it is durable. */
  async close(): Promise<void> {
    if (this.failure !== undefined) throw this.failure
    if (this.job.markerMillis !== undefined) {
      this.#sendMarker()
      while (this.#durable < this.#sequence && this.failure === undefined) await once(this.socket, 'data')
    }
    this.write([encodeFrame({ type: 'goodbye' })])
    this.socket.destroySoon()
  }
}
