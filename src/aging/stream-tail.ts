import { checkpointOrdinal, comparePositions, type Ordinal, type Sequence, type StreamPosition } from '../base/ids.ts'
import { failedWith } from '../base/failure.ts'
import { blockRawSizeBytesMax } from '../base/limits.ts'
import type { RecordHeader } from '../journal/record.ts'
import type { DurableMarker } from '../timeline/assembler.ts'
import type { Hole } from '../timeline/state.ts'
import { decodeSummedFrame, payloadDecompresses, type BatchView } from '../wire/wire.ts'

// What the tail of the log says of one VPG's streams: which records are new, which are missing, which are bad. A payload
// is decompressed here once, only to see that it can be: a bad one is found within seconds of its ack.

/** What became of a record: known already, or new, with the holes that it tells of. */
export type Verdict =
  | { readonly kind: 'known' }
  | {
      readonly kind: 'new'
      readonly holes: readonly Hole[]
      /** False when its frame cannot be read: no segment can take it. */
      readonly sealable: boolean
      /** The last marker before it in its stream. */
      readonly afterOrdinal: Ordinal
      /** What it is, where it is one. */
      readonly marker: DurableMarker | undefined
    }

/** What a block decompresses to is looked at by nobody: one for all VPGs. */
const block = new Uint8Array(blockRawSizeBytesMax)

export class StreamTail {
  readonly #positions = new Map<number, StreamPosition>()
  readonly #lastMarkers = new Map<number, Ordinal>()
  /** How many unreadable stretches of the log lay before the last record of a stream. */
  readonly #stretchCounts = new Map<number, number>()

  /** Goes on behind these positions: what lies at or below them is in segments. */
  constructor(offloaded: readonly StreamPosition[], newestCheckpoint: Ordinal) {
    for (const position of offloaded) {
      this.#positions.set(position.stream, position)
      this.#lastMarkers.set(position.stream, newestCheckpoint)
    }
  }

  /** Up to where the log was read, per stream. */
  get positions(): readonly StreamPosition[] {
    return [...this.#positions.values()].sort((a, b) => a.stream - b.stream)
  }

  /** True when the record lies at or below what was read, or what segments hold. */
  knows({ stream, generation, lastSequence }: RecordHeader): boolean {
    const before = this.#positions.get(stream)
    return before !== undefined && comparePositions({ generation, sequence: lastSequence as Sequence }, before) <= 0
  }

  /** Of all that were seen, the newest; 0 before the first. */
  get newestMarker(): number {
    return Math.max(0, ...this.#lastMarkers.values())
  }

  /**
   * Looks at the next record of the log, which has so many unreadable stretches before it; `read` gives its frame, checked against the header, and
   * fails RECORD_CORRUPT.
   */
  next(header: RecordHeader, stretchCount: number, read: () => Uint8Array): Verdict {
    const { stream, generation } = header
    const isOverStretch = stretchCount > (this.#stretchCounts.get(stream) ?? 0)
    this.#stretchCounts.set(stream, stretchCount)
    const before = this.#positions.get(stream)
    const last = { stream, generation, sequence: header.lastSequence as Sequence }
    if (before !== undefined && comparePositions(last, before) <= 0) return { kind: 'known' }
    const holes: Hole[] = []
    const afterOrdinal = this.#lastMarkers.get(stream) ?? (0 as Ordinal)
    const expected = before !== undefined && before.generation === generation ? before.sequence + 1 : 1
    if (header.firstSequence > expected) {
      const missing = { firstSequence: expected, lastSequence: header.firstSequence - 1 }
      holes.push(holeOf(header, missing, afterOrdinal, 'these records are missing from the log', []))
    }
    // No number tells where a generation has ended, so what cannot be read behind the last that can be may be its end.
    if (isOverStretch && generation > (before?.generation ?? 1)) {
      const reason = 'the log cannot be read where the generation before it ended'
      holes.push(holeOf(header, { firstSequence: 0, lastSequence: 0 }, afterOrdinal, reason, []))
    }
    const { hole, sealable, marker } = this.#check(header, afterOrdinal, read)
    if (hole !== undefined) holes.push(hole)
    this.#positions.set(stream, last)
    return { kind: 'new', holes, sealable, afterOrdinal, marker }
  }

  #check(
    header: RecordHeader,
    afterOrdinal: Ordinal,
    read: () => Uint8Array,
  ): { hole: Hole | undefined; sealable: boolean; marker?: DurableMarker } {
    const unreadable = (reason: string) => ({ hole: damagedRecord(header, afterOrdinal, reason), sealable: false })
    try {
      const message = decodeSummedFrame(read(), header.frameCrc32c)
      if (message.type === 'marker') {
        this.#lastMarkers.set(header.stream, checkpointOrdinal(message.term, message.counter))
        const { timestampMicros, historyMillis, stream } = header
        return { hole: undefined, sealable: true, marker: { ...message, stream, timestampMicros, historyMillis } }
      }
      if (message.type !== 'write-batch') return unreadable(`the record holds a ${message.type}`)
      if (payloadDecompresses(message, block)) return { hole: undefined, sealable: true }
      const reason = 'the payload does not decompress to what its columns say'
      return { hole: holeOf(header, header, afterOrdinal, reason, rangesOf(message)), sealable: true }
    } catch (error) {
      if (!failedWith(error, 'RECORD_CORRUPT') && !failedWith(error, 'FRAME_INVALID')) throw error
      return unreadable(error.message)
    }
  }
}

/** The hole that a record makes whose bytes turned out to be damaged. */
export function damagedRecord(header: RecordHeader, afterOrdinal: Ordinal, reason: string): Hole {
  return holeOf(header, header, afterOrdinal, reason, [])
}

/** The first checkpoint that can contain a record is above the last marker before it in its stream. */
function holeOf(
  { stream, generation }: RecordHeader,
  { firstSequence, lastSequence }: { readonly firstSequence: number; readonly lastSequence: number },
  afterOrdinal: Ordinal,
  reason: string,
  ranges: Hole['ranges'],
): Hole {
  return {
    stream,
    generation,
    firstSequence,
    lastSequence,
    fromOrdinal: (afterOrdinal + 1) as Ordinal,
    reason,
    ranges,
  }
}

function rangesOf(batch: BatchView): Hole['ranges'] {
  const ranges = []
  for (let index = 0; index < batch.writeCount; index++) {
    ranges.push({
      volume: batch.volume(index),
      offsetBytes: batch.offsetBytes(index),
      sizeBytes: batch.lengthBytes(index),
    })
  }
  return ranges
}
