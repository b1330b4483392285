import { sectorSizeBytes } from '../../src/base/units.ts'
import type { OpenVolumeFile } from '../../src/disk/disk.ts'

interface Version {
  readonly bytes: Uint8Array
  answered: boolean
}

/**
 * A disk with a volatile cache, as its user sees it: every sector has the versions that may be there after a power cut, oldest first: the one of
 * the last flush, and all that were written since. Changes are told in the order in which the disk has to take them.
 */
export class DiskModel {
  readonly current: Uint8Array
  readonly #versions = new Map<number, Version[]>()

  constructor(contents: Uint8Array) {
    this.current = contents.slice()
  }

  /** Returns what is to be called when it was answered. */
  change(offsetBytes: number, bytes: Uint8Array): () => void {
    const first = Math.floor(offsetBytes / sectorSizeBytes)
    const end = Math.ceil((offsetBytes + bytes.length) / sectorSizeBytes)
    for (let sector = first; sector < end; sector++) {
      if (!this.#versions.has(sector)) this.#versions.set(sector, [{ bytes: this.#sector(sector), answered: true }])
    }
    this.current.set(bytes, offsetBytes)
    const added: Version[] = []
    for (let sector = first; sector < end; sector++) {
      const version = { bytes: this.#sector(sector), answered: false }
      this.#versions.get(sector)!.push(version)
      added.push(version)
    }
    return () => {
      for (const version of added) version.answered = true
    }
  }

  /** Returns what is to be called when the flush was answered. */
  flush(): () => void {
    const floors = new Map<number, Version>()
    for (const [sector, versions] of this.#versions)
      floors.set(
        sector,
        versions.findLast(({ answered }) => answered)!,
      )
    return () => {
      for (const [sector, floor] of floors) {
        const versions = this.#versions.get(sector)!
        versions.splice(0, Math.max(0, versions.indexOf(floor)))
      }
    }
  }

  /**
   * What is wrong with these contents after the power was cut, or the process killed: then the newest answered version, or a later one, has to be
   * there. Undefined: nothing; the model is then what was found.
   */
  takeAfter(end: 'power' | 'kill', found: Uint8Array): string | undefined {
    for (const [sector, versions] of this.#versions) {
      const first = end === 'power' ? 0 : versions.findLastIndex(({ answered }) => answered)
      const bytes = found.subarray(sector * sectorSizeBytes, (sector + 1) * sectorSizeBytes)
      let index = versions.findIndex((version, at) => at >= first && Buffer.compare(version.bytes, bytes) === 0)
      if (index < 0 && end === 'power' && isTorn(versions, bytes)) index = 0
      if (index < 0) return `sector ${sector} holds what it may not after a ${end}`
      // What a kill left is no more durable than it was before, and no less there; what it cut off may still be what a power cut leaves.
      const [left] = versions.splice(index, 1)
      versions.push({ bytes: left!.bytes, answered: true })
      this.current.set(bytes, sector * sectorSizeBytes)
    }
    if (Buffer.compare(this.current, found) !== 0) return `what was never written is not what it was`
    if (end === 'power') this.#versions.clear()
    return undefined
  }

  #sector(sector: number): Uint8Array {
    return this.current.slice(sector * sectorSizeBytes, (sector + 1) * sectorSizeBytes)
  }
}

/** The write of a sector was under way: it begins with one version and ends with another. */
function isTorn(versions: readonly Version[], found: Uint8Array): boolean {
  return versions.some(({ bytes: head }) => {
    let at = 0
    while (at < found.length && head[at] === found[at]) at++
    return versions.some(({ bytes: tail }) => Buffer.compare(tail.subarray(at), found.subarray(at)) === 0)
  })
}

/** Files of a process that can be killed: from then on no call of theirs does anything. */
export function killable(openFile: OpenVolumeFile): {
  readonly openFile: OpenVolumeFile
  kill(): void
  isKilled(): boolean
} {
  let isKilled = false
  const alive = async <T>(call: () => Promise<T>): Promise<T> => {
    if (isKilled) throw new Error('the process is gone')
    return await call()
  }
  return {
    kill: () => void (isKilled = true),
    isKilled: () => isKilled,
    openFile: path => {
      const file = openFile(path)
      return {
        sizeBytes: file.sizeBytes,
        isOneHole: file.isOneHole,
        claim: () => file.claim(),
        currentSizeBytes: () => file.currentSizeBytes(),
        identity: () => file.identity(),
        read: (target, offsetBytes) => alive(() => file.read(target, offsetBytes)),
        write: (data, offsetBytes) => alive(() => file.write(data, offsetBytes)),
        sync: () => alive(() => file.sync()),
        close: () => file.close(),
      }
    },
  }
}
