import { assert } from '../base/assert.ts'
import { copyInto } from '../base/copy.ts'
import {
  batchRawSizeBytesMax,
  batchRawSizeBytesTarget,
  batchWriteCountMax,
  blockRawSizeBytesMax,
  frameBodySizeBytesMax,
  frameHeaderSizeBytes,
  writeSizeBytesMax,
  zeroSizeBytesMax,
} from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { compressBlock } from '../codec/lz4.ts'
import { sealFrame } from './frame.ts'

const columnBytesPerWrite = 2 + 8 + 4 + 1
const bytesPerBlockEntry = 8
/** What a block has to become smaller to for the next one to be compressed too, and how many are not compressed at most otherwise. */
const worthShareMax = 0.9
const uncompressedCountMax = 8
/** Keys, lengths and the four numbers of a WriteBatch at their longest. */
const fieldSizeBytesMax = 4 * 11 + 6 * 6

/**
 * Collects writes and makes the frame of a write batch of them. Data stays the builder's until finish() has returned: what is not worth
 * compressing of large writes is read only then, straight into the frame. Small writes share blocks of 64 KiB, cut between writes; a
 * larger write starts a block of its own.
 */
export class BatchBuilder {
  #writeCount = 0
  #rawSizeBytes = 0
  #payloadSizeBytes = 0
  #blockCount = 0
  #pendingSizeBytes = 0
  readonly #volumes = Buffer.allocUnsafeSlow(2 * batchWriteCountMax)
  readonly #offsets = Buffer.allocUnsafeSlow(8 * batchWriteCountMax)
  readonly #lengths = Buffer.allocUnsafeSlow(4 * batchWriteCountMax)
  readonly #flags = Buffer.allocUnsafeSlow(batchWriteCountMax)
  /** As many as whole sectors can make: a block holds at least one. */
  readonly #blocks = Buffer.allocUnsafeSlow((bytesPerBlockEntry * batchRawSizeBytesMax) / sectorSizeBytes)
  readonly #pending = Buffer.allocUnsafeSlow(blockRawSizeBytesMax)
  /** Of the payload what was compressed, and what of small writes was not. */
  readonly #stored = Buffer.allocUnsafeSlow(batchRawSizeBytesMax)
  #storedEndBytes = 0
  /** The blocks as they are to be stored, each in #stored or where the caller has it. */
  #payload: Uint8Array[] = []
  /** Blocks that are to be stored as they are because those before would not become smaller, and how many after the next that does not. */
  #uncompressedCount = 0
  #uncompressedCountNext = 1
  #isAsIs = false

  get writeCount(): number {
    return this.#writeCount
  }

  /** Guest bytes of the data writes so far, uncompressed. */
  get rawSizeBytes(): number {
    return this.#rawSizeBytes
  }

  /** True when the batch has reached the size that is worth sending; it may take more, see hasRoom(). */
  get isFull(): boolean {
    return this.#rawSizeBytes >= batchRawSizeBytesTarget || this.#writeCount === batchWriteCountMax
  }

  /** Whether a data write of so many bytes (0: a zero write) still fits, however badly it compresses. */
  hasRoom(dataSizeBytes: number): boolean {
    if (this.#writeCount === batchWriteCountMax || this.#rawSizeBytes + dataSizeBytes > batchRawSizeBytesMax)
      return false
    const blockCountMax = this.#blockCount + 2 + Math.ceil(dataSizeBytes / blockRawSizeBytesMax)
    const bodySizeBytesMax =
      fieldSizeBytesMax +
      columnBytesPerWrite * (this.#writeCount + 1) +
      bytesPerBlockEntry * blockCountMax +
      this.#payloadSizeBytes +
      this.#pendingSizeBytes +
      dataSizeBytes
    return bodySizeBytesMax <= frameBodySizeBytesMax
  }

  /** What is added from here until finish() is not compressed: the processor has no time for it. */
  storeAsIs(): void {
    this.#isAsIs = true
  }

  /** Takes a data write; ask hasRoom() before. */
  add(write: { readonly volume: number; readonly offsetBytes: number; readonly data: Uint8Array }): void {
    const { data } = write
    assert(this.hasRoom(data.length), 'a batch with room for the write')
    assert(data.length <= writeSizeBytesMax, 'a larger write is split by the caller')
    this.#addColumns(write.volume, write.offsetBytes, data.length, 0)
    this.#rawSizeBytes += data.length
    if (this.#pendingSizeBytes + data.length > blockRawSizeBytesMax) this.#closePending()
    let at = 0
    for (; data.length - at >= blockRawSizeBytesMax; at += blockRawSizeBytesMax)
      this.#storeBlock(data.subarray(at, at + blockRawSizeBytesMax), 'stays')
    if (at === data.length) return
    copyInto(this.#pending, this.#pendingSizeBytes, data.subarray(at))
    this.#pendingSizeBytes += data.length - at
  }

  /** Takes a write that makes a range read as zeros; ask hasRoom(0) before. */
  addZero(write: { readonly volume: number; readonly offsetBytes: number; readonly lengthBytes: number }): void {
    assert(this.hasRoom(0), 'a batch with room for the write')
    assert(write.lengthBytes <= zeroSizeBytesMax, 'a larger write is split by the caller')
    this.#addColumns(write.volume, write.offsetBytes, write.lengthBytes, 1)
  }

  /** The whole frame of what was added, in memory of the given kind; the builder is empty again. */
  finish(
    position: { readonly generation: number; readonly firstSequence: number; readonly timestampMicros: number },
    allocate: (sizeBytes: number) => Buffer = Buffer.allocUnsafeSlow,
  ): Buffer {
    assert(this.#writeCount > 0, 'a batch holds at least one write')
    this.#closePending()
    const count = this.#writeCount
    const frame = allocate(
      frameHeaderSizeBytes +
        fieldSizeBytesMax +
        columnBytesPerWrite * count +
        bytesPerBlockEntry * this.#blockCount +
        this.#payloadSizeBytes,
    )
    let at = frameHeaderSizeBytes
    at = writeNumberField(frame, at, 1, position.generation)
    at = writeNumberField(frame, at, 2, position.firstSequence)
    at = writeNumberField(frame, at, 3, count)
    at = writeNumberField(frame, at, 4, position.timestampMicros)
    at = writeBytesField(frame, at, 5, this.#volumes, 2 * count)
    at = writeBytesField(frame, at, 6, this.#offsets, 8 * count)
    at = writeBytesField(frame, at, 7, this.#lengths, 4 * count)
    at = writeBytesField(frame, at, 8, this.#flags, count)
    at = writeBytesField(frame, at, 9, this.#blocks, bytesPerBlockEntry * this.#blockCount)
    at = writeBytesHead(frame, at, 10, this.#payloadSizeBytes)
    for (const block of this.#payload) {
      copyInto(frame, at, block)
      at += block.length
    }
    this.#clear()
    const whole = frame.subarray(0, at)
    sealFrame(whole, 'write-batch')
    return whole
  }

  #addColumns(volume: number, offsetBytes: number, lengthBytes: number, flags: number): void {
    assert(lengthBytes > 0 && lengthBytes % sectorSizeBytes === 0, `not whole sectors: ${lengthBytes}`)
    assert(Number.isSafeInteger(offsetBytes) && offsetBytes % sectorSizeBytes === 0, `not a sector: ${offsetBytes}`)
    const index = this.#writeCount++
    this.#volumes.writeUInt16LE(volume, 2 * index)
    this.#offsets.writeUInt32LE(offsetBytes % 2 ** 32, 8 * index)
    this.#offsets.writeUInt32LE(Math.floor(offsetBytes / 2 ** 32), 8 * index + 4)
    this.#lengths.writeUInt32LE(lengthBytes, 4 * index)
    this.#flags.writeUInt8(flags, index)
  }

  #closePending(): void {
    if (this.#pendingSizeBytes === 0) return
    this.#storeBlock(this.#pending.subarray(0, this.#pendingSizeBytes), 'passing')
    this.#pendingSizeBytes = 0
  }

  /** Compressed where that makes it smaller, else as it is; then what stays until finish() is not copied here. */
  #storeBlock(raw: Uint8Array, memory: 'stays' | 'passing'): void {
    const start = this.#storedEndBytes
    const compressedSizeBytes = this.#tryToCompress(raw, this.#stored.subarray(start, start + raw.length - 1))
    const block =
      compressedSizeBytes > 0
        ? this.#stored.subarray(start, start + compressedSizeBytes)
        : memory === 'stays'
          ? raw
          : this.#copy(raw)
    if (block !== raw) this.#storedEndBytes += block.length
    this.#payload.push(block)
    this.#blocks.writeUInt32LE(raw.length, bytesPerBlockEntry * this.#blockCount)
    this.#blocks.writeUInt32LE(block.length, bytesPerBlockEntry * this.#blockCount + 4)
    this.#blockCount++
    this.#payloadSizeBytes += block.length
  }

  #copy(raw: Uint8Array): Uint8Array {
    const copy = this.#stored.subarray(this.#storedEndBytes, this.#storedEndBytes + raw.length)
    copyInto(copy, 0, raw)
    return copy
  }

  /** 0 where that is not worth it. Data that hardly becomes smaller is the slowest to compress, and it seldom comes alone. */
  #tryToCompress(raw: Uint8Array, target: Uint8Array): number {
    if (this.#isAsIs) return 0
    if (this.#uncompressedCount > 0) {
      this.#uncompressedCount--
      return 0
    }
    const storedSizeBytes = compressBlock(raw, target)
    const isWorthIt = storedSizeBytes > 0 && storedSizeBytes <= raw.length * worthShareMax
    this.#uncompressedCount = isWorthIt ? 0 : this.#uncompressedCountNext
    this.#uncompressedCountNext = isWorthIt ? 1 : Math.min(2 * this.#uncompressedCountNext, uncompressedCountMax)
    return storedSizeBytes
  }

  #clear(): void {
    this.#writeCount = 0
    this.#rawSizeBytes = 0
    this.#payloadSizeBytes = 0
    this.#storedEndBytes = 0
    this.#payload = []
    this.#blockCount = 0
    this.#isAsIs = false
  }
}

const wireTypeVarint = 0
const wireTypeBytes = 2

function writeNumberField(target: Buffer, at: number, field: number, value: number): number {
  return writeVarint(target, writeVarint(target, at, field * 8 + wireTypeVarint), value)
}

function writeBytesField(target: Buffer, at: number, field: number, source: Buffer, sizeBytes: number): number {
  const start = writeBytesHead(target, at, field, sizeBytes)
  return start + source.copy(target, start, 0, sizeBytes)
}

function writeBytesHead(target: Buffer, at: number, field: number, sizeBytes: number): number {
  return writeVarint(target, writeVarint(target, at, field * 8 + wireTypeBytes), sizeBytes)
}

/** Seven bits a byte, the lowest first. Divided, not shifted: a shift would wrap at 2^32. */
function writeVarint(target: Buffer, at: number, value: number): number {
  assert(Number.isSafeInteger(value) && value >= 0, `not an unsigned number: ${value}`)
  let rest = value
  let next = at
  for (; rest >= 128; rest = Math.floor(rest / 128)) target[next++] = (rest % 128) + 128
  target[next++] = rest
  return next
}
