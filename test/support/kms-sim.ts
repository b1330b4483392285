import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'

// The part of AWS KMS that wraps data keys, spoken to by the real SDK. Strict: signed for the service kms, one content type, no parameter that is
// not known, and what was wrapped opens with the same key and encryption context only.

interface KmsKey {
  readonly secret: Buffer
  isEnabled: boolean
}

class Refusal extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

const known: Readonly<Record<string, readonly string[]>> = {
  GenerateDataKey: ['KeyId', 'KeySpec', 'EncryptionContext'],
  Decrypt: ['KeyId', 'CiphertextBlob', 'EncryptionContext'],
}

export class KmsSimulator {
  readonly requestCounts: Record<string, number> = { GenerateDataKey: 0, Decrypt: 0 }
  readonly #keys = new Map<string, KmsKey>()
  readonly #server: http.Server
  /** So many of the next requests are answered by this error. */
  #failing: { readonly code: string; left: number } | undefined

  private constructor() {
    this.#server = http.createServer((request, response) => {
      void this.#serve(request, response)
    })
  }

  static async start(keyIds: readonly string[]): Promise<KmsSimulator> {
    const simulator = new KmsSimulator()
    for (const id of keyIds) simulator.#keys.set(id, { secret: randomBytes(32), isEnabled: true })
    simulator.#server.listen(0, '127.0.0.1')
    await once(simulator.#server, 'listening')
    return simulator
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  disable(keyId: string): void {
    const key = this.#keys.get(keyId)
    if (key !== undefined) key.isEnabled = false
  }

  failNext(code: string, times: number): void {
    this.#failing = { code, left: times }
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    let [status, answer]: [number, unknown] = [200, undefined]
    try {
      answer = this.#perform(request.headers, Buffer.concat(chunks).toString())
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      status = error.code === 'KMSInternalException' ? 500 : 400
      answer = { __type: error.code, message: error.message }
    }
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(answer))
  }

  #perform(headers: http.IncomingHttpHeaders, body: string): unknown {
    const operation = /^TrentService\.(\w+)$/.exec(String(headers['x-amz-target']))?.[1] ?? ''
    const isSigned = /^AWS4-HMAC-SHA256 Credential=test\/\d{8}\/[a-z0-9-]+\/kms\/aws4_request, ?SignedHeaders=/.test(
      headers.authorization ?? '',
    )
    if (!isSigned) throw new Refusal('AccessDeniedException', 'not signed for kms')
    if (headers['content-type'] !== 'application/x-amz-json-1.1')
      throw new Refusal('SerializationException', 'content type')
    const parameters = known[operation]
    if (parameters === undefined) throw new Refusal('UnknownOperationException', operation)
    this.requestCounts[operation] = (this.requestCounts[operation] ?? 0) + 1
    if (this.#failing !== undefined && this.#failing.left-- > 0) throw new Refusal(this.#failing.code, 'as planned')
    const asked = JSON.parse(body) as Record<string, unknown>
    const unknown = Object.keys(asked).find(name => !parameters.includes(name))
    if (unknown !== undefined) throw new Refusal('ValidationException', unknown)
    const keyId = String(asked['KeyId'])
    const key = this.#keys.get(keyId)
    if (key === undefined) throw new Refusal('NotFoundException', `no key ${keyId}`)
    if (!key.isEnabled) throw new Refusal('DisabledException', `${keyId} is disabled.`)
    const context = Buffer.from(JSON.stringify(asked['EncryptionContext'] ?? {}))
    if (operation === 'GenerateDataKey') {
      if (asked['KeySpec'] !== 'AES_256') throw new Refusal('ValidationException', 'KeySpec')
      const plaintext = randomBytes(32)
      const nonce = randomBytes(12)
      const cipher = createCipheriv('aes-256-gcm', key.secret, nonce).setAAD(context)
      const sealed = Buffer.concat([cipher.update(plaintext), cipher.final()])
      const blob = Buffer.concat([Buffer.from(keyId.padEnd(64)), nonce, sealed, cipher.getAuthTag()])
      return { KeyId: keyId, Plaintext: plaintext.toString('base64'), CiphertextBlob: blob.toString('base64') }
    }
    const blob = Buffer.from(String(asked['CiphertextBlob']), 'base64')
    if (blob.toString('ascii', 0, 64).trim() !== keyId)
      throw new Refusal('IncorrectKeyException', 'another key wrapped it')
    try {
      const decipher = createDecipheriv('aes-256-gcm', key.secret, blob.subarray(64, 76), { authTagLength: 16 })
      decipher.setAAD(context).setAuthTag(blob.subarray(-16))
      const plaintext = Buffer.concat([decipher.update(blob.subarray(76, -16)), decipher.final()])
      return { KeyId: keyId, Plaintext: plaintext.toString('base64'), EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' }
    } catch {
      throw new Refusal('InvalidCiphertextException', 'it does not open')
    }
  }
}
