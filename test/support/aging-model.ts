import * as fs from 'node:fs'
import {
  checkpointOrdinal,
  comparePositions,
  type Ordinal,
  type Sequence,
  type StreamPosition,
  type VpgId,
} from '../../src/base/ids.ts'
import { regionSizeBytes } from '../../src/base/limits.ts'
import { MiB } from '../../src/base/units.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import type { AgingConfig, AgingNotices, ImagePlan, PackedVpg } from '../../src/aging/service.ts'
import { MirrorWorker, type WorkerSurroundings } from '../../src/aging/mirror-worker.ts'
import { openImage } from '../../src/image/image.ts'
import type { RecordHeader } from '../../src/journal/record.ts'
import { openSegment, tailSource, type TailRecord } from '../../src/segment/segment.ts'
import type { ObjectStore } from '../../src/store/object-store.ts'
import type { Checkpoint, CheckpointVolume } from '../../src/timeline/checkpoint.ts'
import type { VpgDefinition } from '../../src/timeline/definition.ts'
import { BatchBuilder, encodeFrame } from '../../src/wire/wire.ts'
import { FatefulStore, MemoryLog, SteppedClock, type Fate } from './aging-surroundings.ts'
import { someVpg } from './segment-records.ts'
import { MemoryStore } from './segment-store.ts'

// The model: a map of sectors per volume, copied at every checkpoint. Each data sector begins and ends with the number of the
// write that wrote it; so an image tells for every sector whose write it shows.

const sectorBytes = 512
export const volumeSizeBytes = 2 * regionSizeBytes + 64 * MiB
export const streams = [1, 2] as const
const never = new AbortController().signal

type Sectors = Map<string, number>

export interface ModelCheckpoint {
  readonly checkpoint: Checkpoint
  readonly sectors: ReadonlyMap<string, number>
}

/** One VPG of two volumes, each written by a stream of its own, with everything around the aging thread in memory. */
export class AgingModel {
  readonly clock: SteppedClock
  readonly memory: MemoryStore
  readonly log: MemoryLog
  readonly checkpoints: ModelCheckpoint[] = []
  readonly notices: { readonly name: string; readonly notice: unknown }[] = []
  readonly vpg: VpgId
  readonly definition: VpgDefinition
  readonly random: () => number
  worker: MirrorWorker
  /** Of every process that opens from now on: see WorkerSurroundings. With 0 VPGs sleep whenever they can. */
  contentsSizeBytesMax = Infinity
  store: FatefulStore
  /** Whence images are read, and where strays are looked for. */
  images: ObjectStore
  readonly #positions = new Map<number, number>(streams.map(stream => [stream, 0]))
  readonly #generations = new Map<number, number>(streams.map(stream => [stream, 1]))
  /** Of the newest record of each stream. */
  readonly #lastRecords = new Map<number, StreamPosition>()
  readonly #sectors: Sectors = new Map()
  readonly #config: AgingConfig
  #writeNumber = 0
  #counter = 0
  historyClockMillis = 0
  /** In which records are written. */
  epoch = 1
  /** What happens in the daemon before it answers that checkpoints are given up. */
  beforeGivenUp: () => Promise<void> = async () => undefined

  /** `beside` is the model of another VPG that the same process ages: what surrounds it is shared. */
  constructor(
    random: () => number,
    scratchDirectory: string,
    historyMillis: number,
    vpg: VpgId = someVpg,
    beside?: AgingModel,
  ) {
    this.random = random
    this.vpg = vpg
    this.clock = beside?.clock ?? new SteppedClock()
    this.memory = beside?.memory ?? new MemoryStore()
    this.log = beside?.log ?? new MemoryLog(48 * 1024)
    this.images = this.memory
    this.definition = {
      id: vpg,
      name: 'orders',
      incarnation: 1,
      volumes: streams.map(number => ({ number, name: `disk${number}`, sizeBytes: volumeSizeBytes, stream: number })),
      streams: streams.map(number => ({ number, agent: `agent${number}` })),
      historyMillis,
      checkpointIntervalMillis: 1000,
      syncRateBytesPerSecond: 0,
      paused: false,
      removedVolumes: [],
      journalWarnSizeBytes: 0,
      journalLimitSizeBytes: 0,
      createdAtMicros: 1,
    }
    this.#config = {
      store: { kind: 'directory', directory: scratchDirectory },
      logDirectory: scratchDirectory,
      scratchDirectory,
      memoDirectory: undefined,
      applianceId: 'appliance-one',
      adopt: false,
      segmentSizeBytesTarget: 64 * 1024,
      segmentAgeMillisMax: 10_000,
      foldSizeBytesMin: 192 * 1024,
      foldSizeBytesMax: 320 * 1024,
      deltaShareMax: 0.45,
      garbageGraceMillis: 60_000,
      logSizeBytesPressure: 2 ** 40,
    }
    this.store = new FatefulStore(this.memory)
    this.worker = beside?.worker ?? this.#newWorker()
  }

  below(end: number): number {
    return Math.floor(this.random() * end)
  }

  /** Opens a new process on what the store and the log hold. The one before it is not closed: it was killed. */
  async restart(
    fateOf: (operation: number, key: string) => Fate = () => 'works',
    config = this.#config,
    surroundings: WorkerSurroundings = {},
  ): Promise<readonly PackedVpg[]> {
    this.store.isDead = true
    this.store = new FatefulStore(this.memory, fateOf)
    this.worker = this.#newWorker(surroundings)
    const { vpgs } = await this.worker.open(config)
    await this.worker.follow({ durable: this.log.mark })
    return vpgs
  }

  get config(): AgingConfig {
    return this.#config
  }

  /** Everything that is due, until nothing is. */
  async age(): Promise<void> {
    this.worker.durable(this.log.mark)
    await this.worker.readTail()
    while (await this.worker.step());
  }

  write(stream: (typeof streams)[number], writeCount: number): void {
    const builder = new BatchBuilder()
    const firstSequence = this.#next(stream)
    for (let index = 0; index < writeCount; index++) {
      const zero = this.random() < 0.15
      const offsetBytes = this.#place()
      const lengthBytes = (1 + this.below(zero ? 200 : 24)) * sectorBytes
      const number = ++this.#writeNumber
      if (zero) builder.addZero({ volume: stream, offsetBytes, lengthBytes })
      else {
        builder.add({ volume: stream, offsetBytes, data: this.#dataOf(number, lengthBytes) })
      }
      for (let sector = offsetBytes / sectorBytes; sector < (offsetBytes + lengthBytes) / sectorBytes; sector++) {
        if (zero) this.#sectors.delete(`${stream}/${sector}`)
        else this.#sectors.set(`${stream}/${sector}`, number)
      }
    }
    const frame = builder.finish({ generation: this.#generation(stream), firstSequence, timestampMicros: 1 })
    this.#append('batch', stream, firstSequence, firstSequence + writeCount - 1, frame, 0)
    this.#positions.set(stream, firstSequence + writeCount - 1)
  }

  /** An image of the stream's volume that somebody hands over: sectors that the VRA has from no stream. */
  writeImage(file: string, stream: (typeof streams)[number], sectorCount: number): void {
    const image = fs.openSync(file, 'w')
    fs.ftruncateSync(image, volumeSizeBytes)
    for (let index = 0; index < sectorCount; index++) {
      const number = ++this.#writeNumber
      const offsetBytes = this.#place()
      const sector = Buffer.alloc(sectorBytes, 7)
      sector.writeUInt32LE(number, 0)
      sector.writeUInt32LE(number, sectorBytes - 4)
      fs.writeSync(image, sector, 0, sectorBytes, offsetBytes)
      this.#sectors.set(`${stream}/${offsetBytes / sectorBytes}`, number)
    }
    fs.closeSync(image)
  }

  /** One write of this place, as a synchronisation sends it. */
  writeOver(stream: (typeof streams)[number], offsetBytes: number, lengthBytes: number): void {
    const number = ++this.#writeNumber
    const firstSequence = this.#next(stream)
    const builder = new BatchBuilder()
    const data = this.#dataOf(number, lengthBytes)
    for (let at = 0; at < lengthBytes; at += sectorBytes) {
      this.#sectors.set(`${stream}/${(offsetBytes + at) / sectorBytes}`, number)
    }
    builder.add({ volume: stream, offsetBytes, data })
    const frame = builder.finish({ generation: this.#generation(stream), firstSequence, timestampMicros: 1 })
    this.#append('batch', stream, firstSequence, firstSequence, frame, 0)
    this.#positions.set(stream, firstSequence)
  }

  /** Incompressible. */
  #dataOf(number: number, lengthBytes: number): Buffer {
    const data = Buffer.alloc(lengthBytes)
    for (let at = 0; at < lengthBytes; at += 4) data.writeUInt32LE(Math.imul(number + at, 2654435761) >>> 0, at)
    for (let at = 0; at < lengthBytes; at += sectorBytes) {
      data.writeUInt32LE(number, at)
      data.writeUInt32LE(number, at + sectorBytes - 4)
    }
    return data
  }

  /** A batch whose payload is not what its columns say. */
  writeBad(stream: (typeof streams)[number]): void {
    const builder = new BatchBuilder()
    const firstSequence = this.#next(stream)
    const data = Buffer.alloc(16 * 1024, 'abcdefgh')
    builder.add({ volume: stream, offsetBytes: 4096, data })
    const generation = this.#generation(stream)
    const frame = Buffer.from(builder.finish({ generation, firstSequence, timestampMicros: 1 }))
    frame.fill(0xff, frame.length - 40)
    frame.writeUInt32LE(crc32c(frame.subarray(16), crc32c(frame.subarray(0, 12))), 12)
    this.#append('batch', stream, firstSequence, firstSequence, frame, 0)
    this.#positions.set(stream, firstSequence)
  }

  /** Open deltas of any manifest that an image was opened on. */
  openDeltaCount = 0

  /** The agent of this stream cannot continue exactly: what follows is numbered anew. */
  openGeneration(stream: (typeof streams)[number]): number {
    const generation = this.#generation(stream) + 1
    this.#generations.set(stream, generation)
    this.#positions.set(stream, 0)
    return generation
  }

  /** A checkpoint of which only the first stream has its marker. What is returned gives the other stream its own. */
  halfCheckpoint(): () => ModelCheckpoint {
    const counter = ++this.#counter
    const sectors = new Map(this.#sectors)
    const first = this.#mark(1, counter)
    return () => {
      const vector = [first, this.#mark(2, counter)]
      const volumes = this.#named()
      const { historyClockMillis: historyMillis } = this
      const ordinal = checkpointOrdinal(1, counter)
      return { checkpoint: { ordinal, timestampMicros: counter, historyMillis, vector, volumes }, sectors }
    }
  }

  /** Volumes that markers do not name any more, as their agent has heard that they were removed. */
  readonly unnamed = new Set<number>()

  #named(): CheckpointVolume[] {
    return this.definition.volumes
      .filter(({ number }) => !this.unnamed.has(number))
      .map(({ number, sizeBytes }) => ({ number, sizeBytes, included: true }))
  }

  #mark(stream: (typeof streams)[number], counter: number): StreamPosition {
    const sequence = this.#next(stream)
    const volumes = this.#named()
    const generation = this.#generation(stream)
    const at = { generation, sequence, term: 1, counter, timestampMicros: counter }
    const frame = encodeFrame({ type: 'marker', ...at, participants: [...streams], volumes, requestId: 0 })
    this.#append('marker', stream, sequence, sequence, frame, this.historyClockMillis)
    this.#positions.set(stream, sequence)
    return { stream, generation, sequence: sequence as Sequence }
  }

  checkpoint(): ModelCheckpoint {
    this.historyClockMillis += 1000
    const counter = ++this.#counter
    const vector: StreamPosition[] = []
    const volumes = this.#named()
    for (const stream of streams) {
      vector.push(this.#mark(stream, counter))
      // The other stream goes on before its own marker: the cut is at different places of the log.
      if (stream !== 2 && this.random() < 0.5) this.write(2, 1 + this.below(3))
    }
    vector.sort((a, b) => a.stream - b.stream || comparePositions(a, b))
    const historyMillis = this.historyClockMillis
    const ordinal = checkpointOrdinal(1, counter)
    const checkpoint = { ordinal, timestampMicros: counter, historyMillis, vector, volumes }
    const made = { checkpoint, sectors: new Map(this.#sectors) }
    this.checkpoints.push(made)
    return made
  }

  /** A reading of all that is in the log now, and what it has to show. */
  async openNewest(): Promise<{ readonly plan: ImagePlan; readonly sectors: ReadonlyMap<string, number> }> {
    this.worker.durable(this.log.mark)
    const positions = [...this.#lastRecords.values()]
    const sectors = new Map(this.#sectors)
    return { plan: await this.worker.openReading({ vpg: this.vpg, positions }), sectors }
  }

  at(ordinal: Ordinal): ModelCheckpoint | undefined {
    return this.checkpoints.find(({ checkpoint }) => checkpoint.ordinal === ordinal)
  }

  async open({ checkpoint }: ModelCheckpoint): Promise<ImagePlan> {
    this.worker.durable(this.log.mark)
    const plan = await this.worker.openImage({ vpg: this.vpg, checkpoint, owner: 'model' })
    this.openDeltaCount += plan.state.deltas.filter(delta => delta.open !== undefined).length
    return plan
  }

  async close(plan: ImagePlan): Promise<void> {
    await this.worker.closeImage({ vpg: this.vpg, pinId: plan.pinId })
  }

  /** The first sector at which the image differs from the model, or undefined. */
  async difference(plan: ImagePlan, sectors?: ReadonlyMap<string, number>): Promise<string | undefined> {
    const frames = this.log.reader()
    const tools = {
      store: this.images,
      openSegment: (segment: ImagePlan['state']['segments'][number]) => openSegment(this.images, segment),
      openTail: (records: readonly TailRecord[]) => tailSource('log', [...records], frames),
      cacheSizeBytes: 4 * MiB,
      regionSizeBytes,
    }
    const wanted = sectors ?? this.at(plan.checkpoint.ordinal)?.sectors ?? new Map<string, number>()
    const image = await openImage(plan, tools, never)
    const found: Sectors = new Map()
    let torn: string | undefined
    const shown = streams.filter(stream =>
      plan.checkpoint.volumes.some(each => each.number === stream && each.included),
    )
    for (const stream of shown) {
      const range = { startBytes: 0, endBytes: volumeSizeBytes }
      const take = (offsetBytes: number, bytes: Uint8Array): void => {
        const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
        for (let at = 0; at < view.length; at += sectorBytes) {
          const number = view.readUInt32LE(at)
          const name = `${stream}/${(offsetBytes + at) / sectorBytes}`
          if (view.readUInt32LE(at + sectorBytes - 4) !== number) torn ??= `sector ${name} is of two writes`
          if (number !== 0) found.set(name, number)
        }
      }
      await image.scatter(stream, range, { piece: take, progress: () => undefined }, never)
    }
    if (torn !== undefined) return torn
    for (const name of new Set([...wanted.keys(), ...found.keys()])) {
      const [write, expected] = [found.get(name), wanted.get(name)]
      if (write === expected || !shown.some(stream => name.startsWith(`${stream}/`))) continue
      return `sector ${name}: write ${write}, expected ${expected}`
    }
    return undefined
  }

  /** A few places near the starts of the three regions, so that writes overlap often. */
  #place(): number {
    return this.below(3) * regionSizeBytes + this.below(300) * sectorBytes + this.below(3) * 512 * 1024
  }

  #generation(stream: number): number {
    return this.#generations.get(stream) ?? 1
  }

  #next(stream: number): number {
    return (this.#positions.get(stream) ?? 0) + 1
  }

  #append(
    kind: 'batch' | 'marker',
    stream: number,
    firstSequence: number,
    lastSequence: number,
    frame: Uint8Array,
    historyMillis: number,
  ): void {
    const header: RecordHeader = {
      kind,
      fileIdentity: 0,
      offsetBytes: 0,
      vpg: this.vpg,
      stream,
      epoch: this.epoch,
      generation: this.#generation(stream),
      firstSequence,
      lastSequence,
      durableOffsetBytes: 0,
      frameSizeBytes: frame.length,
      frameCrc32c: crc32c(frame),
      timestampMicros: kind === 'marker' ? this.#counter : 1,
      historyMillis,
    }
    this.#lastRecords.set(stream, { stream, generation: this.#generation(stream), sequence: lastSequence as Sequence })
    this.log.append({ header, frame: Uint8Array.from(frame) })
  }

  #newWorker(surroundings: WorkerSurroundings = {}): MirrorWorker {
    const store = this.store
    const notify = <K extends keyof AgingNotices>(name: K, notice: AgingNotices[K]): void => {
      if (name === 'checkpointsGivenUp') {
        const answer = async (): Promise<void> => {
          await this.beforeGivenUp()
          worker.durable(this.log.mark)
          await worker.givenUp(notice as AgingNotices['checkpointsGivenUp'])
        }
        answer().catch(() => undefined)
      }
      if (store.isDead) return
      this.notices.push({ name, notice })
      if (name === 'logFileFree') this.log.free((notice as AgingNotices['logFileFree']).fileIdentity)
    }
    const worker = new MirrorWorker(this.clock, notify, {
      openStore: async () => store,
      openLog: () => this.log.reader(),
      contentsSizeBytesMax: this.contentsSizeBytesMax,
      ...surroundings,
    })
    return worker
  }
}
