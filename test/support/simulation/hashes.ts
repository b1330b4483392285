import { createHash } from 'node:crypto'
import { hashSizeBytes } from '../../../src/base/limits.ts'
import { isZero } from '../../../src/codec/zeros.ts'
import type { OpenHashes } from '../../../src/ingest/ingest.ts'
import type { VpgDefinition } from '../../../src/timeline/definition.ts'
import { decodeFrame, decompressPayload, type HashRequest } from '../../../src/wire/wire.ts'
import type { KeptRecord } from './vra.ts'
import type { Life } from './world.ts'

/** What the thread that reads images answers, from an image made of the records at the first question. */
export class SimulatedHashes implements OpenHashes {
  readonly #life: Life
  readonly #definition: VpgDefinition
  readonly #records: () => readonly KeptRecord[]
  #images: ReadonlyMap<number, Uint8Array> | undefined

  constructor(life: Life, definition: VpgDefinition, records: () => readonly KeptRecord[]) {
    this.#life = life
    this.#definition = definition
    this.#records = records
  }

  hashesOf({ volume, offsetBytes, blockSizeBytes, blockCount }: HashRequest): Promise<Uint8Array> {
    this.#images ??= imagesOf(this.#definition, this.#records())
    const image = this.#images.get(volume)!
    const hashes = new Uint8Array(blockCount * hashSizeBytes)
    for (let index = 0; index < blockCount; index++) {
      const start = offsetBytes + index * blockSizeBytes
      const block = image.subarray(start, start + blockSizeBytes)
      if (isZero(block)) continue
      hashes.set(createHash('sha256').update(block).digest().subarray(0, hashSizeBytes), index * hashSizeBytes)
    }
    const { world } = this.#life.host
    return new Promise(resolve => {
      this.#life.after(world.delay(0.1, 50), () => resolve(hashes))
    })
  }

  close(): void {
    this.#images = undefined
  }
}

function imagesOf(definition: VpgDefinition, records: readonly KeptRecord[]): ReadonlyMap<number, Uint8Array> {
  const images = new Map(definition.volumes.map(({ number, sizeBytes }) => [number, new Uint8Array(sizeBytes)]))
  for (const { frame } of records) {
    const batch = decodeFrame(frame)
    if (batch.type !== 'write-batch') continue
    const payload = new Uint8Array(batch.rawSizeBytes)
    if (!decompressPayload(batch, payload)) throw new Error('a kept batch does not decompress')
    let at = 0
    for (let index = 0; index < batch.writeCount; index++) {
      const [start, length] = [batch.offsetBytes(index), batch.lengthBytes(index)]
      const image = images.get(batch.volume(index))!
      if (batch.isZero(index)) image.fill(0, start, start + length)
      else image.set(payload.subarray(at, (at += length)), start)
    }
  }
  return images
}
