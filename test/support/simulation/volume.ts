import type { VolumeFile } from '../../../src/disk/disk.ts'
import type { Life, World } from './world.ts'

export const sectorBytes = 512
export const zeroSector: Uint8Array = new Uint8Array(sectorBytes)

/** Contents by sector; one that is not there holds zeros. */
export type Sectors = Map<number, Uint8Array>

/** A sector of a volume has other contents from here on. */
export interface SectorChange {
  readonly volume: number
  readonly sector: number
  readonly bytes: Uint8Array
}

interface InFlight {
  readonly firstSector: number
  readonly data: Uint8Array
  readonly done: Set<number>
}

/**
 * One protected disk: what it holds now, and what a power cut would leave. A write reaches it in two steps, each with some of its
 * sectors; until it is synced each sector is, after a power cut, any of what was written there since.
 */
export class SimulatedVolume {
  readonly number: number
  readonly name: string
  sizeBytes: number
  readonly sectors: Sectors = new Map()
  /** What it held before anybody protected it, and what was changed since behind everybody's back. */
  readonly found: Sectors = new Map()
  /** Writes and syncs take up to so long. */
  delayMillisMax = 2
  /** So many of its reads, writes and syncs fail with EIO. */
  failureShare = 0
  failedSyncCount = 0
  readonly #world: World
  readonly #onChange: (change: SectorChange) => void
  readonly #synced: Sectors = new Map()
  readonly #unsynced = new Map<number, Uint8Array[]>()
  readonly #inFlight = new Set<InFlight>()
  /** What a failed sync should have written: clean for the kernel, and maybe not on the medium, whatever syncs come later. */
  readonly #lost = new Map<number, Uint8Array>()
  #modified = 1
  #inode = 1

  constructor(
    world: World,
    volume: { readonly number: number; readonly name: string; readonly sizeBytes: number },
    onChange: (change: SectorChange) => void,
  ) {
    this.#world = world
    this.number = volume.number
    this.name = volume.name
    this.sizeBytes = volume.sizeBytes
    this.#onChange = onChange
  }

  /** The process that wrote was killed: what it had submitted is done, or not, or by half. */
  settle(): void {
    const { random } = this.#world
    for (const write of this.#inFlight) {
      const chance = this.#world.pick([0, 0.5, 1])
      this.#apply(write, () => random.chance(chance))
    }
    this.#inFlight.clear()
  }

  /** Holds this from now on, written while nobody protects it. */
  changeBehind(sector: number, bytes: Uint8Array): void {
    this.#set(sector, bytes)
    this.#synced.set(sector, bytes)
    this.#unsynced.delete(sector)
    this.#lost.delete(sector)
    this.found.set(sector, bytes)
    this.#modified++
  }

  /** The same contents on another disk. */
  replace(): void {
    this.#inode++
  }

  grow(sizeBytes: number): void {
    this.sizeBytes = sizeBytes
  }

  losePower(): void {
    this.settle()
    for (const [sector, versions] of this.#unsynced) {
      const survivor = this.#world.pick([this.#synced.get(sector) ?? zeroSector, ...versions])
      this.#set(sector, survivor)
      this.#synced.set(sector, survivor)
    }
    this.#unsynced.clear()
    this.#lost.clear()
  }

  of(life: Life): VolumeFile {
    return {
      sizeBytes: this.sizeBytes,
      isOneHole: this.sectors.size === 0,
      claim: async () => undefined,
      currentSizeBytes: () => this.sizeBytes,
      read: (target, offsetBytes) =>
        this.#later(life, () => {
          this.#failMaybe('read')
          for (let at = 0; at < target.length;) {
            const sector = Math.floor((offsetBytes + at) / sectorBytes)
            const within = (offsetBytes + at) % sectorBytes
            const bytes = (this.sectors.get(sector) ?? zeroSector).subarray(within, within + target.length - at)
            target.set(bytes, at)
            at += bytes.length
          }
        }),
      write: (data, offsetBytes) => this.#write(life, data, offsetBytes),
      sync: () => {
        const covered = [...this.#unsynced].map(([sector, versions]) => ({ sector, newest: versions.at(-1)! }))
        return this.#later(life, () => {
          try {
            this.#failMaybe('fdatasync')
          } catch (error) {
            this.failedSyncCount++
            for (const { sector, newest } of covered) this.#lost.set(sector, newest)
            throw error
          }
          for (const { sector, newest } of covered) this.#sync(sector, newest)
        })
      },
      identity: () => ({
        device: '1',
        inode: String(this.#inode),
        sizeBytes: this.sizeBytes,
        modifiedNanos: String(this.#modified),
        changedNanos: String(this.#modified),
      }),
      close: () => Promise.resolve(),
    }
  }

  #write(life: Life, data: Uint8Array, offsetBytes: number): Promise<void> {
    if (offsetBytes % sectorBytes !== 0 || data.length % sectorBytes !== 0) throw new Error('the agent writes sectors')
    if (!life.isAlive) return new Promise(() => undefined)
    const write = { firstSector: offsetBytes / sectorBytes, data: data.slice(), done: new Set<number>() }
    this.#inFlight.add(write)
    const delayMillis = this.#world.delay(0.02, this.delayMillisMax)
    return new Promise((resolve, reject) => {
      life.after(delayMillis * this.#world.random.fraction(), () =>
        this.#apply(write, () => this.#world.random.chance(0.5)),
      )
      life.after(delayMillis, () => {
        this.#inFlight.delete(write)
        try {
          this.#failMaybe('write')
        } catch (error) {
          reject(error as Error)
          return
        }
        this.#apply(write, () => true)
        resolve()
      })
    })
  }

  #later(life: Life, call: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      life.after(this.#world.delay(0.01, this.delayMillisMax), () => {
        try {
          call()
          resolve()
        } catch (error) {
          reject(error as Error)
        }
      })
    })
  }

  #failMaybe(call: string): void {
    if (this.failureShare === 0 || !this.#world.random.chance(this.failureShare)) return
    this.#world.count(`a volume's ${call} fails`)
    throw Object.assign(new Error(`EIO: i/o error, ${call}`), { code: 'EIO' })
  }

  #apply(write: InFlight, isChosen: () => boolean): void {
    for (let index = 0; index < write.data.length / sectorBytes; index++) {
      if (write.done.has(index) || !isChosen()) continue
      write.done.add(index)
      const sector = write.firstSector + index
      const bytes = write.data.subarray(index * sectorBytes, (index + 1) * sectorBytes)
      this.#set(sector, bytes)
      const versions = this.#unsynced.get(sector)
      if (versions === undefined) this.#unsynced.set(sector, [bytes])
      else versions.push(bytes)
      this.#modified++
    }
  }

  #sync(sector: number, newest: Uint8Array): void {
    const versions = this.#unsynced.get(sector)
    const at = versions?.indexOf(newest) ?? -1
    if (versions === undefined || at === -1) return
    const lost = this.#lost.get(sector)
    if (lost !== undefined && versions.indexOf(lost) >= at) return
    this.#lost.delete(sector)
    this.#synced.set(sector, newest)
    versions.splice(0, at + 1)
    if (versions.length === 0) this.#unsynced.delete(sector)
  }

  #set(sector: number, bytes: Uint8Array): void {
    if (sameBytes(this.sectors.get(sector) ?? zeroSector, bytes)) return
    this.sectors.set(sector, bytes)
    this.#onChange({ volume: this.number, sector, bytes })
  }
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || Buffer.compare(a, b) === 0
}
