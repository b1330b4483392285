import {
  batchRawSizeBytesMax,
  batchWriteCountMax,
  blockRawSizeBytesMax,
  writeSizeBytesMax,
  zeroSizeBytesMax,
} from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { invalidFrame } from './frame.ts'
import type { BatchView } from './messages.ts'

// The body of a WriteBatch, read where it lies. This is the hot path of ingest: one object a batch, none a write, so the
// protobuf fields are walked by hand; a test holds the walk against protobufjs.

/** Checks every rule of proto/README.md that needs no session. Fails FRAME_INVALID. */
export function decodeBatchBody(body: Uint8Array): BatchView {
  const batch = new Batch(body)
  batch.checkColumns()
  batch.checkBlocks()
  return batch
}

const flagData = 0
const flagZero = 1
const bytesPerBlockEntry = 8

/** Where a field of type `bytes` lies in the body. */
interface Extent {
  startBytes: number
  sizeBytes: number
}

class Batch implements BatchView {
  readonly type = 'write-batch'
  generation = 0
  firstSequence = 0
  writeCount = 0
  timestampMicros = 0
  rawSizeBytes = 0
  blockCount = 0
  readonly #body: Uint8Array
  readonly #view: DataView
  readonly #volumes: Extent = { startBytes: 0, sizeBytes: 0 }
  readonly #offsets: Extent = { startBytes: 0, sizeBytes: 0 }
  readonly #lengths: Extent = { startBytes: 0, sizeBytes: 0 }
  readonly #flags: Extent = { startBytes: 0, sizeBytes: 0 }
  readonly #blocks: Extent = { startBytes: 0, sizeBytes: 0 }
  readonly #payload: Extent = { startBytes: 0, sizeBytes: 0 }

  constructor(body: Uint8Array) {
    this.#body = body
    this.#view = new DataView(body.buffer, body.byteOffset, body.byteLength)
    this.#readFields(new FieldReader(body))
  }

  get payload(): Uint8Array {
    return this.#body.subarray(this.#payload.startBytes, this.#payload.startBytes + this.#payload.sizeBytes)
  }

  volume(index: number): number {
    return this.#view.getUint16(this.#volumes.startBytes + 2 * index, true)
  }

  /** Past 2^53 the value is rounded; it then lies past the end of any volume. */
  offsetBytes(index: number): number {
    const at = this.#offsets.startBytes + 8 * index
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32
  }

  lengthBytes(index: number): number {
    return this.#view.getUint32(this.#lengths.startBytes + 4 * index, true)
  }

  isZero(index: number): boolean {
    return this.#view.getUint8(this.#flags.startBytes + index) === flagZero
  }

  blockRawSizeBytes(block: number): number {
    return this.#view.getUint32(this.#blocks.startBytes + bytesPerBlockEntry * block, true)
  }

  blockStoredSizeBytes(block: number): number {
    return this.#view.getUint32(this.#blocks.startBytes + bytesPerBlockEntry * block + 4, true)
  }

  checkColumns(): void {
    const count = this.writeCount
    if (count < 1 || count > batchWriteCountMax) throw invalidFrame(`a batch of ${count} writes`)
    if (this.generation < 1 || this.firstSequence < 1) throw invalidFrame('a batch whose position is not from 1')
    if (!Number.isSafeInteger(this.firstSequence + count)) throw invalidFrame('a sequence number past 2^53')
    checkColumn('volumes', this.#volumes, 2 * count)
    checkColumn('offsets', this.#offsets, 8 * count)
    checkColumn('lengths', this.#lengths, 4 * count)
    checkColumn('flags', this.#flags, count)
    for (let index = 0; index < count; index++) this.#checkWrite(index)
  }

  #checkWrite(index: number): void {
    const flag = this.#view.getUint8(this.#flags.startBytes + index)
    if (flag !== flagData && flag !== flagZero) throw invalidFrame(`write ${index} has the unknown flags ${flag}`)
    const lengthBytes = this.lengthBytes(index)
    const lengthBytesMax = flag === flagZero ? zeroSizeBytesMax : writeSizeBytesMax
    if (lengthBytes === 0 || lengthBytes % sectorSizeBytes !== 0 || lengthBytes > lengthBytesMax)
      throw invalidFrame(`write ${index} is ${lengthBytes} bytes long`)
    // The low half tells: 2^32 is a multiple of the sector.
    const offsetLow = this.#view.getUint32(this.#offsets.startBytes + 8 * index, true)
    if (offsetLow % sectorSizeBytes !== 0) throw invalidFrame(`write ${index} does not start on a sector`)
    if (flag === flagData) this.rawSizeBytes += lengthBytes
  }

  checkBlocks(): void {
    if (this.rawSizeBytes > batchRawSizeBytesMax)
      throw invalidFrame(`a raw payload of ${this.rawSizeBytes} bytes is over the bound of ${batchRawSizeBytesMax}`)
    if (this.#blocks.sizeBytes % bytesPerBlockEntry !== 0) throw invalidFrame('the block table is not whole entries')
    this.blockCount = this.#blocks.sizeBytes / bytesPerBlockEntry
    let rawSizeBytes = 0
    let storedSizeBytes = 0
    for (let block = 0; block < this.blockCount; block++) {
      const raw = this.blockRawSizeBytes(block)
      const stored = this.blockStoredSizeBytes(block)
      if (raw < 1 || raw > blockRawSizeBytesMax) throw invalidFrame(`block ${block} has ${raw} raw bytes`)
      if (stored < 1 || stored > raw)
        throw invalidFrame(`block ${block} has ${stored} stored bytes for ${raw} raw ones`)
      rawSizeBytes += raw
      storedSizeBytes += stored
    }
    if (rawSizeBytes !== this.rawSizeBytes)
      throw invalidFrame(`the blocks hold ${rawSizeBytes} raw bytes, the writes are ${this.rawSizeBytes}`)
    if (storedSizeBytes !== this.#payload.sizeBytes)
      throw invalidFrame(`the blocks hold ${storedSizeBytes} stored bytes, the payload is ${this.#payload.sizeBytes}`)
  }

  /** Field numbers as in vra.proto. Of a field that is given twice the last counts; unknown ones are passed over. */
  #readFields(fields: FieldReader): void {
    while (fields.next()) {
      switch (fields.wireType === wireTypeVarint ? fields.field : -fields.field) {
        case 1:
          this.generation = fields.uint64()
          break
        case 2:
          this.firstSequence = fields.uint64()
          break
        case 3:
          this.writeCount = fields.uint32()
          break
        case 4:
          this.timestampMicros = fields.uint64()
          break
        default:
          if (fields.wireType === wireTypeBytes) fields.bytes(this.#extentOf(fields.field) ?? unknownExtent)
          else fields.skip()
      }
    }
  }

  #extentOf(field: number): Extent | undefined {
    switch (field) {
      case 5:
        return this.#volumes
      case 6:
        return this.#offsets
      case 7:
        return this.#lengths
      case 8:
        return this.#flags
      case 9:
        return this.#blocks
      case 10:
        return this.#payload
      default:
        return undefined
    }
  }
}

const unknownExtent: Extent = { startBytes: 0, sizeBytes: 0 }

function checkColumn(name: string, column: Extent, sizeBytes: number): void {
  if (column.sizeBytes !== sizeBytes)
    throw invalidFrame(`the column "${name}" is ${column.sizeBytes} bytes, ${sizeBytes} would be one entry a write`)
}

const wireTypeVarint = 0
const wireTypeFixed64 = 1
const wireTypeBytes = 2
const wireTypeFixed32 = 5

/** Walks the fields of one protobuf message. Every step is within the message, or FRAME_INVALID. */
class FieldReader {
  field = 0
  wireType = 0
  readonly #bytes: Uint8Array
  #at = 0
  /** The last varint, as two halves: the value is high * 2^32 + low. */
  #low = 0
  #high = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  /** Reads the next field's key; false at the end of the message. */
  next(): boolean {
    if (this.#at === this.#bytes.length) return false
    this.#varint()
    if (this.#high !== 0) throw invalidFrame('a field number past 2^29')
    this.wireType = this.#low % 8
    this.field = (this.#low - this.wireType) / 8
    if (this.field === 0) throw invalidFrame('a field of number 0')
    return true
  }

  uint32(): number {
    this.#varint()
    return this.#low
  }

  uint64(): number {
    this.#varint()
    const value = this.#high * 2 ** 32 + this.#low
    if (!Number.isSafeInteger(value)) throw invalidFrame(`field ${this.field} is past 2^53`)
    return value
  }

  bytes(extent: Extent): void {
    this.#varint()
    const sizeBytes = this.#low
    if (this.#high !== 0) throw invalidFrame(`field ${this.field} runs past the end of its message`)
    extent.startBytes = this.#at
    extent.sizeBytes = sizeBytes
    this.#advance(sizeBytes)
  }

  /** Passes over a field of any other wire type. */
  skip(): void {
    switch (this.wireType) {
      case wireTypeVarint:
        this.#varint()
        return
      case wireTypeFixed64:
        this.#advance(8)
        return
      case wireTypeFixed32:
        this.#advance(4)
        return
      default:
        throw invalidFrame(`field ${this.field} has the wire type ${this.wireType}`)
    }
  }

  #advance(sizeBytes: number): void {
    if (sizeBytes > this.#bytes.length - this.#at)
      throw invalidFrame(`field ${this.field} runs past the end of its message`)
    this.#at += sizeBytes
  }

  /** Seven bits a byte, the lowest first; ten bytes at most. Multiplied, not shifted: a shift would wrap at 2^32. */
  #varint(): void {
    let low = 0
    let high = 0
    let scale = 1
    for (let index = 0; index < 10; index++) {
      const byte = this.#bytes[this.#at]
      if (byte === undefined) throw invalidFrame('a number runs past the end of its message')
      this.#at++
      const bits = byte % 128
      if (index < 4) low += bits * scale
      else if (index === 4) {
        low += (bits % 16) * 2 ** 28
        high += Math.floor(bits / 16)
      } else if (index < 9) high += bits * scale
      else high += (bits % 2) * 2 ** 31
      if (byte < 128) {
        this.#low = low
        this.#high = high
        return
      }
      scale = index === 4 ? 8 : scale * 128 // the fifth byte gave three bits to the high half
    }
    throw invalidFrame('a number of more than ten bytes')
  }
}
