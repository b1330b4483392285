import { Failure } from '../../../src/base/failure.ts'
import type { OpenVolumeFile, VolumeFile } from '../../../src/disk/disk.ts'
import { systemError } from '../name-changes.ts'
import { sectorBytes, zeroSector, type Sectors } from './volume.ts'
import type { Host, Life, World } from './world.ts'

// Image files that somebody has carried to the recovery site, and what becomes of them while they are read.

export interface ImageFileFacts {
  readonly path: string
  readonly sizeBytes: number
  /** Where it lies; undefined where every appliance has it. */
  readonly host: Host | undefined
  /** A read takes up to so long. */
  readonly delayMillisMax: number
}

export class SimulatedImageFile {
  readonly path: string
  readonly sectors: Sectors = new Map()
  sizeBytes: number
  /** Reads fail with EIO. */
  isUnreadable = false
  /** Something has become of it since it was handed over. */
  hasSuffered = false
  /** How often its contents have changed, told by its time or not. */
  versionCount = 1
  readonly #facts: ImageFileFacts
  #modified = 1
  #isThere = true

  constructor(facts: ImageFileFacts) {
    this.#facts = facts
    this.path = facts.path
    this.sizeBytes = facts.sizeBytes
  }

  isOn(host: Host): boolean {
    return this.#isThere && (this.#facts.host ?? host) === host
  }

  /** The time of its last change tells of it where that is said. */
  change(contents: Sectors, tells: 'by its time' | 'by nothing'): void {
    for (const [sector, bytes] of contents) this.sectors.set(sector, bytes)
    this.#suffer()
    if (tells === 'by its time') this.#modified++
  }

  truncate(sizeBytes: number): void {
    this.sizeBytes = sizeBytes
    this.#modified++
    this.#suffer()
  }

  lose(): void {
    this.#isThere = false
    this.#suffer()
  }

  setUnreadable(): void {
    this.isUnreadable = true
    this.#suffer()
  }

  open(life: Life, world: World, onRead: () => void): Omit<VolumeFile, 'close'> {
    const { sizeBytes } = this
    const refuse = (): Promise<never> => Promise.reject(new Error('an image is only read'))
    return {
      sizeBytes,
      isOneHole: false,
      claim: refuse,
      write: refuse,
      sync: refuse,
      currentSizeBytes: () => this.sizeBytes,
      read: (target, offsetBytes) =>
        new Promise((resolve, reject) => {
          onRead()
          life.after(world.delay(0.1, this.#facts.delayMillisMax), () => {
            try {
              this.#read(target, offsetBytes)
              resolve()
            } catch (error) {
              reject(error as Error)
            }
          })
        }),
      identity: () => {
        const modifiedNanos = String(this.#modified)
        return { device: '1', inode: this.path, sizeBytes, modifiedNanos, changedNanos: modifiedNanos }
      },
    }
  }

  #read(target: Uint8Array, offsetBytes: number): void {
    if (this.isUnreadable) throw systemError('EIO', this.path)
    if (offsetBytes + target.length > this.sizeBytes)
      throw new Failure('DISK_FAILED', `${this.path} ends at ${this.sizeBytes}`)
    for (let at = 0; at < target.length; at += sectorBytes)
      target.set(this.sectors.get((offsetBytes + at) / sectorBytes) ?? zeroSector, at)
  }

  #suffer(): void {
    this.hasSuffered = true
    this.versionCount++
  }
}

/** All image files of a history, and who has one open. */
export class SimulatedImageFiles {
  readonly files = new Map<string, SimulatedImageFile>()
  /** Called when one is about to be read: may kill the process that asks for it. */
  onRead: () => void = () => undefined
  readonly #world: World
  readonly #openCounts = new Map<Life, number>()

  constructor(world: World) {
    this.#world = world
  }

  /** Files that this process has open. */
  openCount(life: Life): number {
    return this.#openCounts.get(life) ?? 0
  }

  openerOf(life: Life): OpenVolumeFile {
    return path => {
      const file = this.files.get(path)
      if (file?.isOn(life.host) !== true)
        throw new Failure('CONFIG_INVALID', `the volume's disk ${path} cannot be opened: there is no such file`)
      if (file.sizeBytes === 0) throw new Failure('CONFIG_INVALID', `${path} is empty`)
      this.#openCounts.set(life, this.openCount(life) + 1)
      const close = async (): Promise<void> => void this.#openCounts.set(life, this.openCount(life) - 1)
      return { ...file.open(life, this.#world, () => this.onRead()), close }
    }
  }
}
