import { promises as fs } from 'node:fs'
import * as path from 'node:path'

/** Where a simulated bucket keeps its bodies: for tests in memory, for measurements in a directory. */
export type BodyPlace = 'memory' | { readonly directory: string }

interface Stored {
  readonly sizeBytes: number
  readonly body: Buffer | undefined
  readonly file: string
}

/** The objects of one bucket, with the consistency that S3 promises: a create is seen by all that begins after it. */
export class SimulatedBucket {
  readonly #place: BodyPlace
  readonly #objects = new Map<string, Stored>()
  /** Creates under way, whose outcome others wait for. */
  readonly #creating = new Map<string, Promise<void>>()
  #sortedKeys: string[] | undefined = []
  #nextFile = 1

  constructor(place: BodyPlace) {
    this.#place = place
  }

  /** False, and nothing is changed, where the key exists. */
  async create(key: string, body: Buffer): Promise<boolean> {
    while (this.#creating.has(key)) await this.#creating.get(key)
    if (this.#objects.has(key)) return false
    const work = this.#store(key, body)
    this.#creating.set(key, work)
    try {
      await work
    } finally {
      this.#creating.delete(key)
    }
    return true
  }

  async #store(key: string, body: Buffer): Promise<void> {
    if (this.#place === 'memory') {
      this.#objects.set(key, { sizeBytes: body.length, body, file: '' })
    } else {
      const file = path.join(this.#place.directory, String(this.#nextFile++))
      await fs.writeFile(file, body)
      this.#objects.set(key, { sizeBytes: body.length, body: undefined, file })
    }
    const keys = this.#sortedKeys
    if (keys !== undefined && (keys.length === 0 || key > (keys.at(-1) ?? ''))) keys.push(key)
    else this.#sortedKeys = undefined
  }

  async read(key: string, startBytes: number, endBytes: number): Promise<Buffer> {
    const stored = this.#objects.get(key)
    if (stored === undefined) throw new Error(`no object ${key}`)
    if (stored.body !== undefined) return stored.body.subarray(startBytes, endBytes)
    const open = await fs.open(stored.file, 'r')
    try {
      const target = Buffer.allocUnsafe(endBytes - startBytes)
      await open.read(target, 0, target.length, startBytes)
      return target
    } finally {
      await open.close()
    }
  }

  sizeBytes(key: string): number | undefined {
    return this.#objects.get(key)?.sizeBytes
  }

  async remove(key: string): Promise<void> {
    const stored = this.#objects.get(key)
    if (stored === undefined) return
    this.#objects.delete(key)
    this.#sortedKeys = undefined
    if (stored.body === undefined) await fs.rm(stored.file, { force: true })
  }

  /** In byte order, as S3 lists them. */
  keysAfter(prefix: string, after: string, countMax: number): string[] {
    this.#sortedKeys ??= [...this.#objects.keys()].sort()
    const found: string[] = []
    for (const key of this.#sortedKeys) {
      if (key <= after || !key.startsWith(prefix)) continue
      found.push(key)
      if (found.length === countMax) break
    }
    return found
  }

  get objectCount(): number {
    return this.#objects.size
  }
}
