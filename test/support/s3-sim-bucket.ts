import { promises as fs } from 'node:fs'
import * as path from 'node:path'

/** Where a simulated bucket keeps its bodies: for tests in memory, for measurements in a directory. */
export type BodyPlace = 'memory' | { readonly directory: string }

interface Stored {
  readonly sizeBytes: number
  readonly body: Buffer | undefined
  readonly file: string
}

export interface Retention {
  readonly mode: 'GOVERNANCE' | 'COMPLIANCE'
  readonly untilMillis: number
}

/** What is kept of a key below its current version: former ones, and markers of removals. */
interface Version {
  readonly id: string
  /** Undefined: a marker. */
  readonly stored: Stored | undefined
  retention: Retention | undefined
}

/**
 * The objects of one bucket, with the consistency that S3 promises: a create is seen by all that begins after it. A versioned one keeps what is
 * removed, behind a marker, until somebody removes the version or the lifecycle rule does.
 */
export class SimulatedBucket {
  readonly #place: BodyPlace
  /** Of a versioned bucket: every version by its key, oldest first; the last is the current one. */
  readonly #versions: Map<string, Version[]> | undefined
  #nextVersion = 1
  readonly #objects = new Map<string, Stored>()
  /** Creates under way, whose outcome others wait for. */
  readonly #creating = new Map<string, Promise<void>>()
  #sortedKeys: string[] | undefined = []
  #nextFile = 1

  constructor(place: BodyPlace, options: { readonly isVersioned: boolean } = { isVersioned: false }) {
    this.#place = place
    this.#versions = options.isVersioned ? new Map() : undefined
  }

  /** False, and nothing is changed, where the key exists. */
  async create(key: string, body: Buffer, retention?: Retention): Promise<boolean> {
    while (this.#creating.has(key)) await this.#creating.get(key)
    if (this.#objects.has(key)) return false
    const work = this.#store(key, body, retention)
    this.#creating.set(key, work)
    try {
      await work
    } finally {
      this.#creating.delete(key)
    }
    return true
  }

  async #store(key: string, body: Buffer, retention: Retention | undefined): Promise<void> {
    let stored: Stored = { sizeBytes: body.length, body, file: '' }
    if (this.#place !== 'memory') {
      const file = path.join(this.#place.directory, String(this.#nextFile++))
      await fs.writeFile(file, body)
      stored = { sizeBytes: body.length, body: undefined, file }
    }
    this.#objects.set(key, stored)
    this.#addVersion(key, stored, retention)
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
    if (this.#versions !== undefined) {
      this.#addVersion(key, undefined, undefined)
      return
    }
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

  /** Those that hold bytes, of all keys. */
  get versionCount(): number {
    const all = [...(this.#versions?.values() ?? [])].flat()
    return all.filter(({ stored }) => stored !== undefined).length
  }

  /** Of a key, oldest first. */
  versions(
    key: string,
  ): { readonly id: string; readonly isMarker: boolean; readonly retention: Retention | undefined }[] {
    return (this.#versions?.get(key) ?? []).map(({ id, stored, retention }) => {
      return { id, isMarker: stored === undefined, retention }
    })
  }

  /** Of all keys below the prefix, in byte order, the newest of a key first. */
  allVersions(prefix: string): { key: string; id: string; sizeBytes: number | undefined; isLatest: boolean }[] {
    const keys = [...(this.#versions?.keys() ?? [])].filter(key => key.startsWith(prefix)).sort()
    return keys.flatMap(key => {
      const versions = [...(this.#versions?.get(key) ?? [])].reverse()
      return versions.map(({ id, stored }, index) => ({ key, id, sizeBytes: stored?.sizeBytes, isLatest: index === 0 }))
    })
  }

  setRetention(key: string, retention: Retention): void {
    const current = this.#versions?.get(key)?.at(-1)
    if (current !== undefined) current.retention = retention
  }

  /** Markers, too. What the version covered is the current one then. False where there is no such version. */
  removeVersion(key: string, id: string): boolean {
    const versions = this.#versions?.get(key) ?? []
    const at = versions.findIndex(version => version.id === id)
    if (at < 0) return false
    versions.splice(at, 1)
    if (versions.length === 0) this.#versions?.delete(key)
    const current = versions.at(-1)?.stored
    if (current === undefined) this.#objects.delete(key)
    else this.#objects.set(key, current)
    this.#sortedKeys = undefined
    return true
  }

  /** What a lifecycle rule for noncurrent versions and for markers with nothing below them does in the end. */
  expireVersions(nowMillis: number): void {
    for (const [key, versions] of [...(this.#versions ?? [])]) {
      for (const { id, retention } of versions.slice(0, -1))
        if (retention === undefined || retention.untilMillis <= nowMillis) this.removeVersion(key, id)
      const [only, ...others] = versions
      if (only?.stored === undefined && others.length === 0) this.#versions?.delete(key)
    }
  }

  #addVersion(key: string, stored: Stored | undefined, retention: Retention | undefined): void {
    if (this.#versions === undefined) return
    const versions = this.#versions.get(key) ?? []
    versions.push({ id: `v${this.#nextVersion++}`, stored, retention })
    this.#versions.set(key, versions)
  }
}
