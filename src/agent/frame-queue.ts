import { assert } from '../base/assert.ts'
import { copyInto } from '../base/copy.ts'
import {
  creditPerStreamBytesMax,
  frameOverheadSizeBytesMax,
  sealingPieceCountMax,
  sealingPieceSizeBytes,
} from '../base/limits.ts'
import { MemoryPool } from '../base/memory-pool.ts'
import { MiB } from '../base/units.ts'
import { BatchBuilder } from '../wire/wire.ts'
import type { TakenWrites } from './pending-records.ts'
import { frameOf, type RecordBatch, type Sealer } from './sealing/sealer.ts'

/** A batch or a marker as it goes over the wire. */
export interface QueuedFrame {
  readonly firstSequence: number
  readonly lastSequence: number
  readonly bytes: Buffer
}

/** What its records do not say of a batch. */
export type Sealing = Pick<RecordBatch, 'generation' | 'isHurried'>

/** What has become of a batch. */
export interface SealedBatch {
  readonly recordCount: number
  readonly rawSizeBytes: number
  readonly frameSizeBytes: number
}

/** Memory of frames that is kept for those that come: as much as the credit of a stream, which one acknowledgement may bring back, in sizes that the pool has. */
const frameKeptBytesMax = creditPerStreamBytesMax + 8 * MiB

/** Frames that are so large a share of the piece in which they were made stay there; a smaller one is copied, so that the piece is free. */
const keptPieceShareMin = 0.4
/** As long as so many are left for others. */
const piecesLeftMin = sealingPieceCountMax / 4

/** Its memory is used again when nobody holds it: the queue does until it is acknowledged, a connection until it has sent it. */
interface Place {
  readonly firstSequence: number
  readonly lastSequence: number
  /** In memory now. */
  sizeBytes: number
  /** Undefined while it is made elsewhere. */
  frame: Buffer | undefined
  /** Of what the frame is made: there until somebody has made it. */
  batch: RecordBatch | undefined
  holderCount: number
  /** Nobody holds it. */
  giveBack: (frame: Buffer) => void
}

/** The frames of a stream, in the order of their numbers, from when their batches are taken to be sealed until they are acknowledged; see sealing/sealer.ts. */
export class FrameQueue {
  readonly #sealer: Sealer
  readonly #onSealed: (batch: SealedBatch) => void
  readonly #builder = new BatchBuilder()
  readonly #memory = new MemoryPool(frameKeptBytesMax)
  #places: Place[] = []
  #bytes = 0
  /** Of these, of batches that are no frames yet. */
  #sealingBytes = 0
  #sentCount = 0

  /** `onSealed` is called in the step in which a batch has become a frame of the queue. */
  constructor(sealer: Sealer, onSealed: (batch: SealedBatch) => void) {
    this.#sealer = sealer
    this.#onSealed = onSealed
  }

  /** In memory. */
  get bytes(): number {
    return this.#bytes
  }

  /** Of these, of batches that are no frames yet. */
  get sealingBytes(): number {
    return this.#sealingBytes
  }

  /** Of the first frame that ends past this sequence. */
  firstSequencePast(sequence: number): number | undefined {
    return this.#places.find(place => place.lastSequence > sequence)?.firstSequence
  }

  /** From a former run: into a queue that is empty. */
  load(frames: readonly QueuedFrame[]): void {
    assert(this.#places.length === 0, 'a queue that is empty')
    for (const frame of frames) this.addFrame(frame)
  }

  addFrame({ firstSequence, lastSequence, bytes: frame }: QueuedFrame): void {
    this.#add({ firstSequence, lastSequence, frame, batch: undefined, giveBack: leave }, frame.length)
  }

  /** Seals these in line, and releases them. */
  addSealed({ writes, release, ...taken }: TakenWrites, how: Sealing): void {
    const { firstSequence, lastSequence, timestampMicros, rawSizeBytes } = taken
    const frame = this.#frameOf({ ...how, firstSequence, timestampMicros, writes })
    release()
    this.#add({ firstSequence, lastSequence, frame, batch: undefined, giveBack: this.#giveToMemory }, frame.length)
    this.#onSealed({ recordCount: writes.length, rawSizeBytes, frameSizeBytes: frame.length })
  }

  /** Has these sealed elsewhere, and releases them when that is done. False where it cannot be done so. */
  addToSeal({ writes, release, isInPieces, bytes, ...taken }: TakenWrites, how: Sealing): boolean {
    const { firstSequence, lastSequence, timestampMicros, rawSizeBytes } = taken
    const sizeBytesMax = rawSizeBytes + frameOverheadSizeBytesMax(writes.length)
    const piece = isInPieces && sizeBytesMax <= sealingPieceSizeBytes ? this.#sealer.pieces.take() : undefined
    if (piece === undefined) return false
    const batch: RecordBatch = { ...how, firstSequence, timestampMicros, writes }
    const place = this.#add({ firstSequence, lastSequence, frame: undefined, batch, giveBack: leave }, bytes)
    this.#sealer.seal(batch, piece, sizeBytes => {
      const isWanted = place.batch !== undefined // still in the queue, and not sealed in line
      const isKept = isWanted && sizeBytes !== undefined && this.#fillFrom(place, piece, sizeBytes)
      if (isWanted && sizeBytes === undefined) this.#fillInLine(place, batch)
      if (!isKept) this.#sealer.pieces.give(piece)
      release()
      if (isWanted) this.#onSealed({ recordCount: writes.length, rawSizeBytes, frameSizeBytes: place.sizeBytes })
    })
    return true
  }

  /** Every frame; what is not sealed yet is sealed in line. */
  sealAll(): readonly QueuedFrame[] {
    return this.#places.map(place => {
      if (place.batch !== undefined) this.#fillInLine(place, place.batch)
      const { firstSequence, lastSequence, frame: bytes } = place
      assert(bytes !== undefined, 'it is sealed')
      return { firstSequence, lastSequence, bytes }
    })
  }

  /** Nothing was sent yet, of the session that begins. */
  rewind(): void {
    this.#sentCount = 0
  }

  /** The next one that was not sent; undefined where there is none, or where it is not sealed yet. */
  next(): Buffer | undefined {
    return this.#places[this.#sentCount]?.frame
  }

  /** What next() gave is on its way. Call what it returns when its bytes are not read any more, or never. */
  sent(): () => void {
    const place = this.#places[this.#sentCount]
    assert(place?.frame !== undefined, 'a frame that next() gave')
    this.#sentCount++
    place.holderCount++
    return () => this.#release(place)
  }

  /** Frames that end at this sequence, or before, are not needed any more. */
  dropThrough(sequence: number): void {
    const kept = this.#places.findIndex(place => place.lastSequence > sequence)
    const gone = this.#places.splice(0, kept === -1 ? this.#places.length : kept)
    this.#sentCount = Math.max(0, this.#sentCount - gone.length)
    for (const place of gone) this.#drop(place)
  }

  clear(): void {
    for (const place of this.#places.splice(0)) this.#drop(place)
    this.#sentCount = 0
  }

  #add(parts: Omit<Place, 'sizeBytes' | 'holderCount'>, sizeBytes: number): Place {
    const place: Place = { ...parts, sizeBytes, holderCount: 1 }
    this.#places.push(place)
    this.#bytes += sizeBytes
    if (place.batch !== undefined) this.#sealingBytes += sizeBytes
    return place
  }

  /** True where the piece is the frame's from now on. */
  #fillFrom(place: Place, piece: Buffer, sizeBytes: number): boolean {
    const { pieces } = this.#sealer
    const sealed = piece.subarray(0, sizeBytes)
    const isKept = sizeBytes >= keptPieceShareMin * piece.length && pieces.leftCount >= piecesLeftMin
    if (isKept) {
      this.#fill(place, sealed, () => pieces.give(piece))
    } else {
      const copy = this.#memory.take(sizeBytes)
      copyInto(copy, 0, sealed)
      this.#fill(place, copy, this.#giveToMemory)
    }
    return isKept
  }

  #fillInLine(place: Place, batch: RecordBatch): void {
    this.#fill(place, this.#frameOf(batch), this.#giveToMemory)
  }

  #fill(place: Place, frame: Buffer, giveBack: Place['giveBack']): void {
    this.#sealingBytes -= place.sizeBytes
    place.batch = undefined
    place.frame = frame
    place.giveBack = giveBack
    this.#bytes += frame.length - place.sizeBytes
    place.sizeBytes = frame.length
  }

  #frameOf(batch: RecordBatch): Buffer {
    return frameOf(this.#builder, batch, sizeBytes => this.#memory.take(sizeBytes))
  }

  readonly #giveToMemory = (frame: Buffer): void => this.#memory.give(frame)

  #drop(place: Place): void {
    this.#bytes -= place.sizeBytes
    if (place.batch !== undefined) this.#sealingBytes -= place.sizeBytes
    place.batch = undefined
    this.#release(place)
  }

  #release(place: Place): void {
    place.holderCount--
    if (place.holderCount === 0 && place.frame !== undefined) place.giveBack(place.frame)
  }
}

/** To the garbage collector. */
const leave = (): void => undefined
