import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { Failure } from '../base/failure.ts'
import { KiB } from '../base/units.ts'

// An encrypted object is a row of chunks, each 64 KiB but for the last, so that a range is read and proved without the rest. README.md has the
// table. Every creation has a salt of its own, and with it a key of its own, so that no nonce is ever used twice with a key: not for an object
// that is created again after a lost answer, nor for one that two appliances race to create.

export const chunkSizeBytes = 64 * KiB
export const chunkHeaderSizeBytes = 32
const tagSizeBytes = 16
const saltSizeBytes = 24
export const chunkOverheadBytes = chunkHeaderSizeBytes + tagSizeBytes
/** Of the object's own bytes, in every chunk but the last. */
export const chunkDataSizeBytes = chunkSizeBytes - chunkOverheadBytes

const magic = 0x45_41_52_56 // 'VRAE'
const formatVersion = 1
const lastFlag = 1
/** The event loop gets a turn after so many. */
const chunksAtOnce = 64

/** The object's own size, of what is stored; never less than nothing, where that cannot be one. */
export function plainSizeBytes(storedSizeBytes: number): number {
  return Math.max(0, storedSizeBytes - chunkOverheadBytes * Math.ceil(storedSizeBytes / chunkSizeBytes))
}

/** True of the first bytes of an encrypted object. */
export function isSealedChunk(firstBytes: Uint8Array): boolean {
  return firstBytes.length >= 4 && Buffer.from(firstBytes).readUInt32LE(0) === magic
}

/** What an object of this size takes in the store. */
export function storedSizeBytes(bodySizeBytes: number): number {
  return bodySizeBytes + chunkOverheadBytes * Math.max(1, Math.ceil(bodySizeBytes / chunkDataSizeBytes))
}

/**
 * The object as it is stored under this name; in `spare`, where that is large enough: memory that the kernel has to give anew costs several times what
 * the cipher does.
 */
export async function sealChunks(name: string, dataKey: Uint8Array, body: Uint8Array, spare?: Buffer): Promise<Buffer> {
  const count = Math.max(1, Math.ceil(body.length / chunkDataSizeBytes))
  const sizeBytes = storedSizeBytes(body.length)
  const isRoomy = spare !== undefined && spare.length >= sizeBytes
  const stored = isRoomy ? spare.subarray(0, sizeBytes) : Buffer.allocUnsafeSlow(sizeBytes)
  const salt = randomBytes(saltSizeBytes)
  const key = objectKey(name, dataKey, salt)
  for (let chunk = 0; chunk < count; chunk++) {
    const at = chunk * chunkSizeBytes
    const data = body.subarray(chunk * chunkDataSizeBytes, (chunk + 1) * chunkDataSizeBytes)
    stored.writeUInt32LE(magic, at)
    stored.writeUInt8(formatVersion, at + 4)
    stored.writeUInt8(chunk === count - 1 ? lastFlag : 0, at + 5)
    stored.writeUInt16LE(0, at + 6)
    salt.copy(stored, at + 8)
    const cipher = createCipheriv('aes-256-gcm', key, nonceOf(chunk), { authTagLength: tagSizeBytes })
    cipher.setAAD(stored.subarray(at, at + chunkHeaderSizeBytes))
    stored.set(cipher.update(data), at + chunkHeaderSizeBytes)
    cipher.final()
    stored.set(cipher.getAuthTag(), at + chunkHeaderSizeBytes + data.length)
    if (chunk % chunksAtOnce === chunksAtOnce - 1) await new Promise(resolve => setImmediate(resolve))
  }
  return stored
}

/**
 * Of the object's own bytes in consecutive chunks, from `firstChunk` on, those in `range`, counted from the first of these chunks, into the target; all chunks are
 * proved. OBJECT_CORRUPT where they are not what was stored there under this name;
 * VERSION_UNSUPPORTED where another program stored them.
 */
export async function openChunks(
  name: string,
  dataKey: Uint8Array,
  stored: Uint8Array,
  firstChunk: number,
  range: { readonly startBytes: number; readonly endBytes: number },
  target: Uint8Array,
): Promise<void> {
  const bytes = Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength)
  const count = Math.ceil(bytes.length / chunkSizeBytes)
  if (bytes.length < chunkOverheadBytes) throw corrupt(name, firstChunk, 'is shorter than any')
  const salt = bytes.subarray(8, 8 + saltSizeBytes)
  const key = objectKey(name, dataKey, salt)
  for (let index = 0; index < count; index++) {
    const chunk = bytes.subarray(index * chunkSizeBytes, (index + 1) * chunkSizeBytes)
    const number = firstChunk + index
    if (chunk.length < chunkOverheadBytes) throw corrupt(name, number, 'is shorter than any')
    if (chunk.readUInt32LE(0) !== magic) throw corrupt(name, number, 'does not begin with VRAE: it is not encrypted')
    const version = chunk.readUInt8(4)
    const isLast = (chunk.readUInt8(5) & lastFlag) !== 0
    if (!chunk.subarray(8, 8 + saltSizeBytes).equals(salt)) throw corrupt(name, number, 'is of another object')
    const goesOn = index < count - 1 || chunk.length === chunkSizeBytes
    if (isLast ? index < count - 1 : !goesOn) throw corrupt(name, number, 'is not where the object ends')
    try {
      const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(number), { authTagLength: tagSizeBytes })
      decipher.setAAD(chunk.subarray(0, chunkHeaderSizeBytes))
      decipher.setAuthTag(chunk.subarray(chunk.length - tagSizeBytes))
      const data = decipher.update(chunk.subarray(chunkHeaderSizeBytes, chunk.length - tagSizeBytes))
      decipher.final()
      const ownStart = index * chunkDataSizeBytes
      const wanted = data.subarray(Math.max(0, range.startBytes - ownStart), Math.max(0, range.endBytes - ownStart))
      if (wanted.length > 0) target.set(wanted, Math.max(ownStart, range.startBytes) - range.startBytes)
    } catch (cause) {
      if (version !== formatVersion)
        throw new Failure(
          'VERSION_UNSUPPORTED',
          `${name} is encrypted in format version ${version}, not 1`,
          { key: name },
          { cause },
        )
      throw corrupt(name, number, 'is damaged, or not of this object and key', cause)
    }
    if (index % chunksAtOnce === chunksAtOnce - 1) await new Promise(resolve => setImmediate(resolve))
  }
}

/** One key for one creation of one name. */
function objectKey(name: string, dataKey: Uint8Array, salt: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', dataKey, salt, `vra object ${name}`, 32))
}

function nonceOf(chunk: number): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUInt32LE(chunk, 0)
  return nonce
}

function corrupt(name: string, chunk: number, what: string, cause?: unknown): Failure {
  const offsetBytes = chunk * chunkSizeBytes
  return new Failure(
    'OBJECT_CORRUPT',
    `the chunk of ${name} at byte ${offsetBytes} ${what}`,
    { key: name, offsetBytes },
    { cause },
  )
}
