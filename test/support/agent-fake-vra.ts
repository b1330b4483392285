import { createHash } from 'node:crypto'
import * as net from 'node:net'
import { sequence, vpgId, type Position } from '../../src/base/ids.ts'
import { hashSizeBytes } from '../../src/base/limits.ts'
import {
  decodeFrame,
  decompressPayload,
  encodeFrame,
  FrameReader,
  type AgentStatus,
  type BatchView,
  type ControlMessage,
  type Directive,
  type HashRequest,
  type Hello,
  type Marker,
  type Participant,
} from '../../src/wire/wire.ts'

export interface FakeCheckpoint {
  readonly marker: Marker
  /** The volumes as the stream up to the marker makes them, by name. */
  readonly images: ReadonlyMap<string, Buffer>
}

/** The side of a connection that the VRA writes to; a socket is one. */
export interface FakePeer {
  write(bytes: Uint8Array): unknown
  end(bytes: Uint8Array): unknown
  destroy(): unknown
}

/**
 * A VRA in memory: it keeps each volume as a plain array made of nothing but the stream, checks that the stream has no gap, and loses
 * what was not durable when it is killed. It survives its kills: the same object listens again on the same port.
 */
export class FakeVra {
  readonly volumes: { readonly name: string; readonly sizeBytes: number }[]
  readonly models = new Map<string, Buffer>()
  readonly checkpoints: FakeCheckpoint[] = []
  readonly statuses: AgentStatus[] = []
  readonly hellos: Hello[] = []
  readonly faults: string[] = []
  duplicateCount = 0
  /** The sequence that is durable, in `generation`. */
  durable = 0
  generation = 0
  offloaded: Position = { generation: 0, sequence: sequence(0) }
  epoch = 1
  stream = 1
  /** False: checkpoints are kept without their images. */
  keepsImages = true
  /** Of a VPG of several agents, each with a VRA like this one; empty: the agent is alone. */
  participants: readonly Participant[] = []
  vpg = vpgId('0123456789abcdef0123456789abcdef')
  paused = false
  syncRateBytesPerSecond = 0
  /** Answers hash requests with this sentence instead of hashes. */
  hashFailure = ''
  /** While true it is said that the failure may pass. */
  hashFailurePasses = false
  heldSyncs: Directive['heldSyncs'] = []
  comparedVolumes: readonly number[] = []
  quiescedBy = ''
  /** While false, hash requests wait. */
  answeringHashes = true
  hashRequestCount = 0
  /** Data and zero bytes that arrived since the object was made. */
  receivedDataBytes = 0
  receivedZeroBytes = 0
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
  #offloading = true
  #received: (BatchView | Marker)[] = []
  #questions: HashRequest[] = []
  /** What survives the loss of the appliance. */
  #safe: { readonly models: ReadonlyMap<string, Buffer>; readonly checkpointCount: number } | undefined
  #server: net.Server | undefined
  #socket: FakePeer | undefined
  #port = 0
  #statusOfSession: AgentStatus | undefined
  #sessionBytes = 0

  constructor(agent: string, volumes: readonly { readonly name: string; readonly sizeBytes: number }[]) {
    this.#agent = agent
    this.volumes = [...volumes]
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

  async listen(host = '127.0.0.1'): Promise<this> {
    const server = net.createServer(socket => {
      const line = this.accept(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => line.closed())
      socket.on('data', chunk => line.received(chunk))
    })
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(this.#port, host, () => resolve())
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

  /** Another volume is defined. */
  addVolume(name: string, sizeBytes: number): void {
    this.volumes.push({ name, sizeBytes })
    this.models.set(name, Buffer.alloc(sizeBytes))
  }

  direct(directive: Partial<Omit<Directive, 'type'>>): void {
    this.paused = directive.paused ?? this.paused
    this.syncRateBytesPerSecond = directive.syncRateBytesPerSecond ?? this.syncRateBytesPerSecond
    this.heldSyncs = directive.heldSyncs ?? this.heldSyncs
    this.comparedVolumes = directive.comparedVolumes ?? this.comparedVolumes
    this.quiescedBy = directive.quiescedBy ?? this.quiescedBy
    this.#sendDirective()
  }

  get offloading(): boolean {
    return this.#offloading
  }
  /** While false, what is durable is not offloaded, unless offload() says so. */
  set offloading(isOffloading: boolean) {
    this.#offloading = isOffloading
    this.offload()
  }

  /** Everything durable is offloaded. */
  offload(): void {
    if (this.durable > 0) this.offloaded = { generation: this.generation, sequence: sequence(this.durable) }
    this.#safe = undefined
    if (this.#offloading) return // it follows what is durable, and nothing can be lost
    const models = new Map([...this.models].map(([name, model]) => [name, Buffer.from(model)]))
    this.#safe = { models, checkpointCount: this.checkpoints.length }
  }

  /** Another appliance has taken over: what was not offloaded is gone. */
  loseAppliance(): void {
    this.cut()
    if (this.#safe === undefined) return
    for (const [name, model] of this.models) this.#safe.models.get(name)!.copy(model)
    this.checkpoints.length = this.#safe.checkpointCount
    this.generation = this.offloaded.generation
    this.durable = this.offloaded.sequence
  }

  /** The object store is gone as well. */
  loseEverything(): void {
    this.#safe = undefined
    this.offloaded = { generation: 0, sequence: sequence(0) }
    this.cut()
    for (const model of this.models.values()) model.fill(0)
    this.checkpoints.length = this.generation = this.durable = 0
  }

  answerHashes(): void {
    for (const question of this.#questions.splice(0)) this.#answerHash(question)
  }

  /** Makes the oldest `count` received frames durable, and tells it where acknowledging. */
  store(count = Infinity): void {
    for (const frame of this.#received.splice(0, Math.min(count, this.#received.length))) {
      if (frame.type === 'marker') this.#keepCheckpoint(frame)
      else this.#apply(frame)
      this.durable = lastSequenceOf(frame)
    }
    if (this.#offloading) this.offload()
    if (this.acknowledging) this.acknowledge()
  }

  acknowledge(): void {
    const durable = { generation: this.generation, sequence: sequence(this.durable) }
    const { offloaded } = this
    this.send({ type: 'ack', durable, offloaded, creditBytes: this.#sessionBytes + this.creditBytes })
  }

  /** Somebody connects. */
  accept(socket: FakePeer): { received(chunk: Buffer): void; closed(): void } {
    const reader = new FrameReader()
    const closed = (): void => {
      if (this.#socket === socket) this.#socket = undefined
    }
    const received = (chunk: Buffer): void => {
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
    }
    return { received, closed }
  }

  #whyNot(hello: Hello): string | undefined {
    const at = this.generation === 0 ? 1 : this.generation
    const { resumableFrom, lastNumbered, openGeneration } = hello
    if (openGeneration > this.generation) {
      const begins = resumableFrom.generation === openGeneration && resumableFrom.sequence === 0
      return begins ? undefined : 'a generation is opened at its beginning'
    }
    if (resumableFrom.generation !== at || lastNumbered.generation !== at)
      return `the VRA is in generation ${this.generation}`
    const exact = resumableFrom.sequence <= this.durable && this.durable <= lastNumbered.sequence
    return exact ? undefined : `the VRA is at ${this.durable}`
  }

  #welcome(socket: FakePeer, hello: Hello): void {
    const former = this.hellos.at(-1)
    if (former !== undefined && hello.sessionNumber <= former.sessionNumber)
      this.faults.push('session number did not rise')
    this.hellos.push(hello)
    const why = this.#whyNot(hello)
    const refusal = this.refusal ?? (why === undefined ? undefined : { code: 'SYNC_REQUIRED', sentence: why })
    if (refusal !== undefined) {
      socket.end(encodeFrame({ type: 'error', ...refusal }))
      return
    }
    this.cut()
    this.#socket = socket
    this.#statusOfSession = undefined
    this.#sessionBytes = 0
    this.#questions = []
    if (hello.openGeneration > this.generation) {
      this.generation = hello.openGeneration
      this.durable = 0
    }
    const durable = { generation: this.generation, sequence: sequence(this.durable) }
    this.send({
      type: 'welcome',
      protocolVersion: 1,
      vpg: this.vpg,
      epoch: this.epoch,
      incarnation: 1,
      stream: this.stream,
      volumes: this.volumes.map((volume, index) => ({ ...volume, number: index + 1 })),
      durable,
      offloaded: this.offloaded,
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
    this.#sendDirective()
  }

  #sendDirective(): void {
    const { paused, syncRateBytesPerSecond, heldSyncs, comparedVolumes, quiescedBy } = this
    this.send({ type: 'directive', paused, syncRateBytesPerSecond, heldSyncs, comparedVolumes, quiescedBy })
  }

  /** What a marker must not include: what is in a synchronisation by the agent's own words. */
  #isInSync(name: string): boolean {
    const number = this.volumes.findIndex(volume => volume.name === name) + 1
    const said = this.#statusOfSession?.volumes.find(volume => volume.number === number)?.sync
    return (said ?? this.hellos.at(-1)?.volumes.find(volume => volume.name === name)?.sync ?? 'none') !== 'none'
  }

  #answerHash({ requestId, volume, offsetBytes, blockSizeBytes, blockCount }: HashRequest): void {
    this.hashRequestCount++
    if (this.hashFailure !== '') {
      this.send({
        type: 'hash-reply',
        requestId,
        hashes: new Uint8Array(0),
        failure: this.hashFailure,
        passing: this.hashFailurePasses,
      })
      return
    }
    const model = this.models.get(this.volumes[volume - 1]!.name)!
    const hashes = Buffer.alloc(blockCount * hashSizeBytes)
    for (let block = 0; block < blockCount; block++) {
      const start = offsetBytes + block * blockSizeBytes
      const bytes = model.subarray(start, start + blockSizeBytes)
      if (bytes.length === 0) throw new Error('hashes past the end')
      if (bytes.some(byte => byte !== 0))
        createHash('sha256')
          .update(bytes)
          .digest()
          .copy(hashes, block * hashSizeBytes, 0, hashSizeBytes)
    }
    this.send({ type: 'hash-reply', requestId, hashes, failure: '', passing: false })
  }

  #take(message: ControlMessage | BatchView, sizeBytes: number): void {
    if (message.type === 'agent-status') {
      this.statuses.push(message)
      this.#statusOfSession = message
    }
    if (message.type === 'hash-request') {
      this.#questions.push(message)
      if (this.answeringHashes) this.answerHashes()
    }
    if (message.type !== 'write-batch' && message.type !== 'marker') return
    this.#sessionBytes += sizeBytes
    if (message.generation !== this.generation)
      throw new Error(`a frame of generation ${message.generation} in ${this.generation}`)
    if (message.type === 'marker') this.#checkMarker(message)
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
      if (batch.isZero(index)) {
        model.fill(0, offsetBytes, offsetBytes + lengthBytes)
        this.receivedZeroBytes += lengthBytes
      } else {
        at += raw.copy(model, offsetBytes, at, at + lengthBytes)
        this.receivedDataBytes += lengthBytes
      }
    }
  }

  #checkMarker(marker: Marker): void {
    for (const { number, included } of marker.volumes) {
      const name = this.volumes[number - 1]!.name
      if (included && this.#isInSync(name)) this.faults.push(`marker ${marker.counter} includes "${name}" in its sync`)
    }
    if (marker.volumes.length !== this.volumes.length) this.faults.push('a marker does not name every volume')
    if (!marker.volumes.some(volume => volume.included)) this.faults.push('a marker of nothing')
  }

  #keepCheckpoint(marker: Marker): void {
    if (marker.counter <= this.counter) this.faults.push(`marker counter ${marker.counter} behind ${this.counter}`)
    this.counter = marker.counter
    const models = this.keepsImages ? [...this.models] : []
    const images = new Map(models.map(([name, model]) => [name, Buffer.from(model)]))
    this.checkpoints.push({ marker, images })
  }
}

function lastSequenceOf(frame: BatchView | Marker): number {
  return frame.type === 'marker' ? frame.sequence : frame.firstSequence + frame.writeCount - 1
}
