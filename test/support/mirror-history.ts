import { ordinal, sequence, type Ordinal, type PositionVector } from '../../src/base/ids.ts'
import type { Checkpoint, CheckpointVolume } from '../../src/timeline/checkpoint.ts'
import type { SegmentSpan, StreamRange } from '../../src/timeline/state.ts'
import { MemorySource, type TestBatch, type TestWrite } from './mirror-source.ts'

/** mulberry32: the same numbers for the same seed, everywhere. */
export function seeded(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

export interface SealedSegment {
  readonly span: SegmentSpan
  readonly source: MemorySource
}

/**
 * A VPG that is written to by several streams, each with volumes of its own, beside plain arrays that say what every volume held at
 * every checkpoint. Records of the streams are interleaved at random, so no place in a source is a cut.
 */
export class History {
  readonly checkpoints: Checkpoint[] = []
  /** By ordinal, then volume: what it held. */
  readonly contents = new Map<Ordinal, Map<number, Uint8Array>>()
  readonly segments: SealedSegment[] = []
  readonly #random: (below: number) => number
  readonly #volumes: readonly CheckpointVolume[]
  readonly #streamOf: (volume: number) => number
  readonly #model = new Map<number, Uint8Array>()
  readonly #positions: { stream: number; generation: number; sequence: number }[]
  /** Not yet in a source, by stream. */
  readonly #queues = new Map<number, TestBatch[]>()
  #batches: TestBatch[] = []

  constructor(random: (below: number) => number, volumes: readonly CheckpointVolume[], streamCount: number) {
    this.#random = random
    this.#volumes = volumes
    this.#streamOf = volume => 1 + ((volume - 1) % streamCount)
    for (const { number, sizeBytes } of volumes) this.#model.set(number, new Uint8Array(sizeBytes))
    this.#positions = Array.from({ length: streamCount }, (_, index) => ({
      stream: index + 1,
      generation: 1,
      sequence: 0,
    }))
  }

  /** One batch of a few writes to the volumes of one stream. */
  write(): void {
    const position = this.#positions[this.#random(this.#positions.length)]!
    const volumes = this.#volumes.filter(({ number }) => this.#streamOf(number) === position.stream)
    const writes: TestWrite[] = []
    const count = 1 + this.#random(5)
    for (let index = 0; index < count; index++) {
      const { number, sizeBytes } = volumes[this.#random(volumes.length)]!
      writes.push(this.#randomWrite(number, sizeBytes))
    }
    if (this.#random(20) === 0) Object.assign(position, { generation: position.generation + 1, sequence: 0 })
    const firstSequence = position.sequence + 1
    position.sequence += count
    this.#queue({ stream: position.stream, generation: position.generation, firstSequence, writes })
    for (const write of writes) {
      const model = this.#model.get(write.volume)!
      if (write.data === undefined) model.fill(0, write.offsetBytes, write.offsetBytes + write.sizeBytes)
      else model.set(write.data, write.offsetBytes)
    }
  }

  #randomWrite(volume: number, volumeSizeBytes: number): TestWrite {
    const sectors = volumeSizeBytes / 512
    const shape = this.#random(10)
    const aligned = shape < 4
    const length = aligned ? 8 : shape < 8 ? 1 + this.#random(24) : 1 + this.#random(Math.min(sectors, 300))
    const start = aligned ? 8 * this.#random(Math.floor(sectors / 8)) : this.#random(sectors - length + 1)
    const sizeBytes = Math.min(length, sectors - start) * 512
    const zero = this.#random(6) === 0
    const data = zero ? undefined : new Uint8Array(sizeBytes)
    for (let at = 0; at < (data?.length ?? 0); at += 512) data!.fill(1 + this.#random(255), at, at + 512)
    return { volume, offsetBytes: start * 512, sizeBytes, data }
  }

  #queue(batch: TestBatch): void {
    const queue = this.#queues.get(batch.stream)
    if (queue === undefined) this.#queues.set(batch.stream, [batch])
    else queue.push(batch)
  }

  /** Lets some of what was written arrive; streams overtake each other. */
  #arrive(all: boolean): void {
    for (;;) {
      const waiting = [...this.#queues.values()].filter(queue => queue.length > 0)
      if (waiting.length === 0 || (!all && this.#random(3) === 0)) return
      this.#batches.push(waiting[this.#random(waiting.length)]!.shift()!)
    }
  }

  /** A cut through all streams now. */
  checkpoint(): Checkpoint {
    for (const position of this.#positions) position.sequence++
    const vector: PositionVector = this.#positions.map(position => ({
      ...position,
      sequence: sequence(position.sequence),
    }))
    const count = this.checkpoints.length + 1
    const checkpoint: Checkpoint = {
      ordinal: ordinal(count * 7),
      timestampMicros: count * 1_000_000,
      historyMillis: count * 1000,
      vector,
      volumes: this.#volumes,
    }
    this.checkpoints.push(checkpoint)
    this.contents.set(
      checkpoint.ordinal,
      new Map([...this.#model].map(([volume, bytes]) => [volume, Uint8Array.from(bytes)])),
    )
    return checkpoint
  }

  /** Puts what has arrived into a segment, whose end is no cut; all of what was written where told. */
  seal(what: 'some' | 'all'): void {
    this.#arrive(what === 'all')
    if (this.#batches.length === 0) return
    const commitNumber = this.segments.length + 1
    const key = `segment-${commitNumber}`
    const batches = this.#batches
    this.#batches = []
    const ranges = new Map<string, StreamRange>()
    for (const { stream, generation, firstSequence, writes } of batches) {
      const id = `${stream}.${generation}`
      const lastSequence = firstSequence + writes.length - 1
      ranges.set(id, {
        stream,
        generation,
        lastSequence,
        firstSequence: ranges.get(id)?.firstSequence ?? firstSequence,
      })
    }
    const span: SegmentSpan = {
      kind: 'segment',
      commitNumber,
      object: { key, sizeBytes: 1 },
      footerOffsetBytes: 0,
      footerSizeBytes: 0,
      ranges: [...ranges.values()],
      writeCount: batches.reduce((sum, batch) => sum + batch.writes.length, 0),
      rawSizeBytes: 0,
      firstOrdinal: ordinal(0),
      lastOrdinal: ordinal(0),
    }
    this.segments.push({ span, source: new MemorySource(key, batches) })
  }

  /** What has arrived and is in no segment, as the log's tail would give it. */
  tail(): { readonly batches: readonly TestBatch[]; readonly source: MemorySource } {
    this.#arrive(true)
    return { batches: this.#batches, source: new MemorySource('tail', this.#batches) }
  }

  random(below: number): number {
    return this.#random(below)
  }
}
