import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { logRecordHeaderSizeBytes } from '../base/limits.ts'
import { decodeRecordHeader, recordSizeBytes, type RecordHeader } from '../journal/record.ts'
import { decompressPayload, type BatchView, type Marker } from '../wire/wire.ts'
import { decodeRecordFrame } from './segment-builder.ts'
import { corrupt } from './segment-format.ts'

/** A record of a segment that has passed all checks but that of its payload. */
export interface CheckedRecord {
  readonly header: RecordHeader
  /** A view of the bytes that it was read from. */
  readonly message: BatchView | Marker
  readonly sizeBytes: number
}

export interface RecordPlace {
  readonly object: string
  readonly vpg: VpgId
  readonly offsetBytes: number
}

/** The record header at the start of `source`, for what stands at this place of this object. Fails OBJECT_CORRUPT, VERSION_UNSUPPORTED. */
export function checkRecordHeader(place: RecordPlace, source: Uint8Array): RecordHeader {
  const { object, offsetBytes } = place
  const header = decodeRecordHeader(source)
  if (header === undefined) throw corrupt(object, offsetBytes, 'there should be a record, and its header is damaged')
  if (header === 'other-version')
    throw new Failure('VERSION_UNSUPPORTED', `${object}, byte ${offsetBytes}: a record of an unknown format version`, {
      object,
      offsetBytes,
    })
  if (header.vpg !== place.vpg) throw corrupt(object, offsetBytes, `a record of another VPG, ${header.vpg}`)
  if (header.offsetBytes !== offsetBytes || header.fileIdentity !== 0)
    throw corrupt(object, offsetBytes, `a record that belongs at byte ${header.offsetBytes}, or to another file`)
  if (header.kind === 'pad') throw corrupt(object, offsetBytes, 'a pad, which no segment has')
  return header
}

/** The whole record in `source`, which is exactly as long as it. Fails OBJECT_CORRUPT, VERSION_UNSUPPORTED. */
export function checkRecord(place: RecordPlace, source: Uint8Array): CheckedRecord {
  const { object, offsetBytes } = place
  const header = checkRecordHeader(place, source)
  const endBytes = logRecordHeaderSizeBytes + header.frameSizeBytes
  if (recordSizeBytes(header.frameSizeBytes) !== source.length)
    throw corrupt(object, offsetBytes, 'a record of another size than its place has')
  for (let at = endBytes; at < source.length; at++) {
    if (source[at] !== 0) throw corrupt(object, offsetBytes + at, 'the padding behind a record is not zeros')
  }
  try {
    const message = decodeRecordFrame(header, source.subarray(logRecordHeaderSizeBytes, endBytes))
    return { header, message, sizeBytes: source.length }
  } catch (error) {
    if (error instanceof Failure) throw corrupt(object, offsetBytes, error.message, { cause: error })
    throw error
  }
}

/** The raw payload of a batch: where it stands if it is stored raw, else in memory that the next call uses again. */
export class PayloadReader {
  #memory = new Uint8Array(0)

  /** Undefined when a block does not decompress. */
  read(batch: BatchView): Uint8Array | undefined {
    // No block is stored larger than it is raw, so that together they are as large means that none is compressed.
    if (batch.payload.length === batch.rawSizeBytes) return batch.payload
    if (batch.rawSizeBytes > this.#memory.length) this.#memory = new Uint8Array(batch.rawSizeBytes)
    const payload = this.#memory.subarray(0, batch.rawSizeBytes)
    return decompressPayload(batch, payload) ? payload : undefined
  }
}
