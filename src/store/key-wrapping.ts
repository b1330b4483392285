import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { Failure } from '../base/failure.ts'

// The user's key never encrypts an object: it wraps the keys that do. A file of 32 bytes does that here, AWS KMS in kms-wrapping.ts.

export const dataKeySizeBytes = 32

export interface WrappedKey {
  readonly dataKey: Uint8Array
  readonly wrapped: Uint8Array
}

/** What the user's key does. Failures: CONFIG_INVALID where it is not the one, or may not be used; STORE_UNAVAILABLE for what may pass. */
export interface KeyWrapper {
  /** Kept beside what it wraps: 1 a file, 2 KMS. */
  readonly kind: 1 | 2
  /** 32 bytes that tell keys apart and nothing of them; zeros where the wrapped bytes themselves do. */
  readonly keyId: Uint8Array
  /** A fresh random key, wrapped for this place and no other. */
  newKey(place: string, signal: AbortSignal): Promise<WrappedKey>
  unwrap(place: string, wrapped: Uint8Array, signal: AbortSignal): Promise<Uint8Array>
  close(): void
}

const nonceSizeBytes = 12
const tagSizeBytes = 16

export class FileWrapper implements KeyWrapper {
  readonly kind = 1
  readonly keyId: Uint8Array
  readonly #wrappingKey: Uint8Array

  constructor(userKey: Uint8Array) {
    this.keyId = createHmac('sha256', userKey).update('vra key id').digest()
    this.#wrappingKey = new Uint8Array(hkdfSync('sha256', userKey, '', 'vra wrapping key', 32))
  }

  async newKey(place: string): Promise<WrappedKey> {
    const dataKey = randomBytes(dataKeySizeBytes)
    const nonce = randomBytes(nonceSizeBytes)
    const cipher = createCipheriv('aes-256-gcm', this.#wrappingKey, nonce).setAAD(Buffer.from(place))
    const sealed = Buffer.concat([cipher.update(dataKey), cipher.final()])
    return { dataKey, wrapped: Buffer.concat([nonce, sealed, cipher.getAuthTag()]) }
  }

  async unwrap(place: string, wrapped: Uint8Array): Promise<Uint8Array> {
    try {
      const nonce = wrapped.subarray(0, nonceSizeBytes)
      const sealed = wrapped.subarray(nonceSizeBytes, wrapped.length - tagSizeBytes)
      const decipher = createDecipheriv('aes-256-gcm', this.#wrappingKey, nonce, { authTagLength: tagSizeBytes })
      decipher.setAAD(Buffer.from(place)).setAuthTag(wrapped.subarray(wrapped.length - tagSizeBytes))
      return Buffer.concat([decipher.update(sealed), decipher.final()])
    } catch (cause) {
      throw new Failure('CONFIG_INVALID', `the key file does not open "${place}"`, { key: place }, { cause })
    }
  }

  close(): void {}
}

/** 32 bytes as they are, or as 64 hexadecimal digits or Base64. */
export function readKeyFile(file: string): Uint8Array {
  let bytes: Buffer
  try {
    if ((statSync(file).mode & 0o007) !== 0)
      throw new Failure('CONFIG_INVALID', `the key file ${file} is open to everybody on this host: chmod o= it`)
    bytes = readFileSync(file)
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw new Failure('CONFIG_INVALID', `the key file ${file} cannot be read: ${String(cause)}`, {}, { cause })
  }
  if (bytes.length === dataKeySizeBytes) return bytes
  const text = bytes.toString('latin1').trim()
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex')
  if (/^[A-Za-z0-9+/]{43}=$/.test(text)) return Buffer.from(text, 'base64')
  const sentence = `the key file ${file} holds no key: 32 bytes are needed, as they are, or as hexadecimal digits or Base64`
  throw new Failure('CONFIG_INVALID', sentence, { sizeBytes: bytes.length })
}
