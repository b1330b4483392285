import { DecryptCommand, GenerateDataKeyCommand, KMSClient, KMSServiceException } from '@aws-sdk/client-kms'
import { Failure } from '../base/failure.ts'
import { dataKeySizeBytes, type KeyWrapper, type WrappedKey } from './key-wrapping.ts'
import type { EncryptionConfig } from './object-store.ts'

const requestTimeoutMillis = 15_000
const keyIdSizeBytes = 32

/** These pass by themselves; any other answer below 500 is for a person. */
const passingNames = new Set([
  'ThrottlingException',
  'KMSInternalException',
  'DependencyTimeoutException',
  'KeyUnavailableException',
])

/** A key that never leaves AWS KMS, or a server that speaks its protocol. The place is the encryption context: what is wrapped for one opens at no other. */
export class KmsWrapper implements KeyWrapper {
  readonly kind = 2
  readonly keyId = new Uint8Array(keyIdSizeBytes)
  readonly #client: KMSClient
  readonly #kmsKeyId: string

  constructor({ kmsKeyId, region, endpoint, credentials }: Extract<EncryptionConfig, { key: 'kms' }>) {
    this.#kmsKeyId = kmsKeyId
    this.#client = new KMSClient({
      region,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(credentials === undefined ? {} : { credentials }),
      maxAttempts: 3,
      requestHandler: { connectionTimeout: 5_000, requestTimeout: requestTimeoutMillis, throwOnRequestTimeout: true },
    })
  }

  async newKey(place: string, signal: AbortSignal): Promise<WrappedKey> {
    const command = new GenerateDataKeyCommand({
      KeyId: this.#kmsKeyId,
      KeySpec: 'AES_256',
      EncryptionContext: { 'vra-object': place },
    })
    const { Plaintext, CiphertextBlob } = await this.#asked(
      () => this.#client.send(command, { abortSignal: signal }),
      signal,
    )
    return { dataKey: checked(Plaintext), wrapped: CiphertextBlob ?? new Uint8Array(0) }
  }

  async unwrap(place: string, wrapped: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const command = new DecryptCommand({
      KeyId: this.#kmsKeyId,
      CiphertextBlob: wrapped,
      EncryptionContext: { 'vra-object': place },
    })
    return checked((await this.#asked(() => this.#client.send(command, { abortSignal: signal }), signal)).Plaintext)
  }

  close(): void {
    this.#client.destroy()
  }

  async #asked<T>(send: () => Promise<T>, signal: AbortSignal): Promise<T> {
    try {
      return await send()
    } catch (cause) {
      signal.throwIfAborted()
      const said = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)
      const isFinal = cause instanceof KMSServiceException && cause.$fault === 'client' && !passingNames.has(cause.name)
      if (!isFinal) throw new Failure('STORE_UNAVAILABLE', `KMS does not answer (${said})`, {}, { cause })
      const hint =
        'is it the one that this store was encrypted with, enabled, and may the role use kms:GenerateDataKey and kms:Decrypt on it?'
      throw new Failure('CONFIG_INVALID', `KMS refuses the key ${this.#kmsKeyId} (${said}): ${hint}`, {}, { cause })
    }
  }
}

function checked(key: Uint8Array | undefined): Uint8Array {
  if (key?.length === dataKeySizeBytes) return key
  throw new Failure('STORE_UNAVAILABLE', `KMS answers with a key of ${key?.length ?? 0} bytes, not ${dataKeySizeBytes}`)
}
