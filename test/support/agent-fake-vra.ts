import * as net from 'node:net'
import { sequence, vpgId } from '../../src/base/ids.ts'
import {
  decodeFrame,
  decompressPayload,
  encodeFrame,
  FrameReader,
  type AgentStatus,
  type BatchView,
  type ControlMessage,
  type Hello,
  type Marker,
  type Participant,
} from '../../src/wire/wire.ts'

export interface FakeCheckpoint {
  readonly marker: Marker
  /** The volumes as the stream up to the marker makes them, by name. */
  readonly images: ReadonlyMap<string, Buffer>
}

/**
 * A VRA in memory: it keeps each volume as a plain array made of nothing but the stream, checks that the stream has no gap, and loses
 * what was not durable when it is killed. It survives its kills: the same object listens again on the same port.
 */
export class FakeVra {
  readonly volumes: readonly { readonly name: string; readonly sizeBytes: number }[]
  readonly models = new Map<string, Buffer>()
  readonly checkpoints: FakeCheckpoint[] = []
  readonly statuses: AgentStatus[] = []
  readonly hellos: Hello[] = []
  readonly faults: string[] = []
  duplicateCount = 0
  durable = 0
  epoch = 1
  stream = 1
  /** Of a VPG of several agents, each with a VRA like this one; empty: the agent is alone. */
  participants: readonly Participant[] = []
  counter = 0
  checkpointIntervalMillis = 3_600_000
  creditBytes = 16 * 1024 * 1024
  /** While false, frames are taken and not made durable. */
  storing = true
  /** While false, what is durable is not told. */
  acknowledging = true
  /** Answers Hello with this error instead of Welcome. */
  refusal: { readonly code: string; readonly sentence: string } | undefined
  readonly #agent: string
  #received: (BatchView | Marker)[] = []
  #server: net.Server | undefined
  #socket: net.Socket | undefined
  #port = 0
  #sessionBytes = 0

  constructor(agent: string, volumes: readonly { readonly name: string; readonly sizeBytes: number }[]) {
    this.#agent = agent
    this.volumes = volumes
    for (const { name, sizeBytes } of volumes) this.models.set(name, Buffer.alloc(sizeBytes))
  }

  get address(): { readonly host: string; readonly port: number } {
    return { host: '127.0.0.1', port: this.#port }
  }
  get isConnected(): boolean {
    return this.#socket !== undefined
  }
  /** The newest record that is received, durable or not. */
  get receivedThrough(): number {
    const last = this.#received.at(-1)
    return last === undefined ? this.durable : lastSequenceOf(last)
  }

  async listen(): Promise<this> {
    const server = net.createServer(socket => this.#accept(socket))
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#port, '127.0.0.1', () => resolve())
    })
    this.#port = (server.address() as net.AddressInfo).port
    return this
  }

  /** Cuts everything at once; what was received and is not durable is gone. */
  async kill(): Promise<void> {
    this.#received = []
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    const closed = new Promise<void>(resolve => server.close(() => resolve()))
    this.cut()
    await closed
  }

  /** Cuts the session only. */
  cut(): void {
    this.#socket?.destroy()
    this.#socket = undefined
    this.#received = []
  }

  requestCheckpoint(requestId: number): void {
    this.send({ type: 'checkpoint-request', requestId })
  }

  send(message: ControlMessage): void {
    this.#socket?.write(encodeFrame(message))
  }

  /** Makes the oldest `count` received frames durable, and tells it where acknowledging. */
  store(count = Infinity): void {
    for (const frame of this.#received.splice(0, Math.min(count, this.#received.length))) {
      if (frame.type === 'marker') this.#keepCheckpoint(frame)
      else this.#apply(frame)
      this.durable = lastSequenceOf(frame)
    }
    if (this.acknowledging) this.acknowledge()
  }

  acknowledge(): void {
    const durable = { generation: 1, sequence: sequence(this.durable) }
    this.send({ type: 'ack', durable, offloaded: durable, creditBytes: this.#sessionBytes + this.creditBytes })
  }

  #accept(socket: net.Socket): void {
    const reader = new FrameReader()
    socket.on('error', () => undefined)
    socket.on('close', () => {
      if (this.#socket === socket) this.#socket = undefined
    })
    socket.on('data', chunk => {
      try {
        for (const bytes of reader.push(chunk)) {
          const message = decodeFrame(bytes)
          if (message.type === 'hello') this.#welcome(socket, message)
          else if (this.#socket === socket) this.#take(message, bytes.length)
        }
        if (this.storing && this.#received.length > 0) this.store()
      } catch (error) {
        this.faults.push(String(error))
        socket.destroy()
      }
    })
  }

  #welcome(socket: net.Socket, hello: Hello): void {
    const former = this.hellos.at(-1)
    if (former !== undefined && hello.sessionNumber <= former.sessionNumber)
      this.faults.push('session number did not rise')
    this.hellos.push(hello)
    const exact = hello.resumableFrom.sequence <= this.durable && this.durable <= hello.lastNumbered.sequence
    const refusal =
      this.refusal ?? (exact ? undefined : { code: 'SYNC_REQUIRED', sentence: `the VRA is at ${this.durable}` })
    if (refusal !== undefined) {
      socket.end(encodeFrame({ type: 'error', ...refusal }))
      return
    }
    this.cut()
    this.#socket = socket
    this.#sessionBytes = 0
    const durable = { generation: this.durable === 0 ? 0 : 1, sequence: sequence(this.durable) }
    this.send({
      type: 'welcome',
      protocolVersion: 1,
      vpg: vpgId('0123456789abcdef0123456789abcdef'),
      epoch: this.epoch,
      incarnation: 1,
      stream: this.stream,
      volumes: this.volumes.map((volume, index) => ({ ...volume, number: index + 1 })),
      durable,
      offloaded: durable,
      creditBytes: this.creditBytes,
      heartbeatIntervalMillis: 200,
      heartbeatTimeoutMillis: 5_000,
      coordinator: {
        agent: this.#agent,
        term: 1,
        counter: this.counter,
        checkpointIntervalMillis: this.checkpointIntervalMillis,
        participants: this.participants,
      },
    })
  }

  #take(message: ControlMessage | BatchView, sizeBytes: number): void {
    if (message.type === 'agent-status') this.statuses.push(message)
    if (message.type !== 'write-batch' && message.type !== 'marker') return
    this.#sessionBytes += sizeBytes
    const first = message.type === 'marker' ? message.sequence : message.firstSequence
    if (lastSequenceOf(message) <= this.durable) this.duplicateCount++
    else if (first !== this.receivedThrough + 1) throw new Error(`a gap: ${first} behind ${this.receivedThrough}`)
    else this.#received.push(message)
  }

  #apply(batch: BatchView): void {
    const raw = Buffer.alloc(batch.rawSizeBytes)
    if (!decompressPayload(batch, raw)) throw new Error('the payload does not decompress')
    let at = 0
    for (let index = 0; index < batch.writeCount; index++) {
      const model = this.models.get(this.volumes[batch.volume(index) - 1]!.name)!
      const [offsetBytes, lengthBytes] = [batch.offsetBytes(index), batch.lengthBytes(index)]
      if (offsetBytes + lengthBytes > model.length) throw new Error('past the end')
      if (batch.isZero(index)) model.fill(0, offsetBytes, offsetBytes + lengthBytes)
      else at += raw.copy(model, offsetBytes, at, at + lengthBytes)
    }
  }

  #keepCheckpoint(marker: Marker): void {
    if (marker.counter <= this.counter) this.faults.push(`marker counter ${marker.counter} behind ${this.counter}`)
    this.counter = marker.counter
    const images = new Map([...this.models].map(([name, model]) => [name, Buffer.from(model)]))
    this.checkpoints.push({ marker, images })
  }
}

function lastSequenceOf(frame: BatchView | Marker): number {
  return frame.type === 'marker' ? frame.sequence : frame.firstSequence + frame.writeCount - 1
}
