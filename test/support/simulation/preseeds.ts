import type { MirrorWorker } from '../../../src/aging/mirror-worker.ts'
import { Failure, failedWith } from '../../../src/base/failure.ts'
import type { VpgId } from '../../../src/base/ids.ts'
import { Preseeds, type PreseedEvent, type PreseedParts } from '../../../src/daemon/preseeds.ts'
import type { VpgEntry } from '../../../src/daemon/vpg-table.ts'
import type { OpenVolumeFile, VolumeFile } from '../../../src/disk/disk.ts'
import type { VolumeDefinition, VpgDefinition } from '../../../src/timeline/definition.ts'
import { stampOf } from './guests.ts'
import { SimulatedImageFile, SimulatedImageFiles } from './image-files.ts'
import { sameBytes, sectorBytes, zeroSector, type Sectors, type SimulatedVolume } from './volume.ts'
import type { Life, World } from './world.ts'

// Images that are handed over, and the people who do it: the real jobs of the daemon in every process of the VRA, over files that are what the
// disks were, or are not. Somebody hands one over while no checkpoint includes the volume, maybe a second one instead, and cancels some.

/** Ways to break a preseed, for showing that it is noticed. */
export interface PreseedMutations {
  /** What is in the mirror is not what was said to be read into it. */
  readonly preseedsNothing?: boolean
}

export interface PreseedsWorld {
  readonly world: World
  readonly vpg: VpgId
  readonly mutations: PreseedMutations
  /** The protected one. */
  readonly diskOf: (volume: number) => SimulatedVolume | undefined
}

export interface PreseedsSite {
  readonly life: Life
  readonly aging: PreseedParts['aging']
  readonly entry: VpgEntry
  readonly redefine: (definition: VpgDefinition) => void
  /** What a volume holds in the mirror and all behind it, but for sectors of which there are records. Fails as the store fails. */
  readonly readBelowRecords: (
    volume: number,
  ) => Promise<{ readonly found: Sectors; readonly written: ReadonlySet<number> }>
}

/** What one process of the VRA has of it. */
export interface RunningPreseeds {
  readonly jobs: Preseeds
  readonly site: PreseedsSite
}

/** The newest image of a volume. */
interface HandedOver {
  readonly file: SimulatedImageFile
  readonly versionCount: number
}

const differentSectorsMax = 30
const attemptsPerHistoryMax = 12
/** Of those that are compared. */
const lateImageShare = 0.3

export class SimulatedPreseeds {
  readonly files: SimulatedImageFiles
  readonly #of: PreseedsWorld
  /** By volume. */
  readonly #newest = new Map<number, HandedOver>()
  /** By volume and sector: all that images of it have ever held there. */
  readonly #below = new Map<number, Map<number, Uint8Array[]>>()
  #fileCount = 0
  #stampCount = 0

  constructor(of: PreseedsWorld) {
    this.#of = of
    this.files = new SimulatedImageFiles(of.world)
  }

  /** For the aging of this process. */
  openerOf(life: Life): OpenVolumeFile {
    const open = this.files.openerOf(life)
    if (this.#of.mutations.preseedsNothing !== true) return open
    return path => ({ ...open(path), read: async (target: Uint8Array) => void target.fill(0) }) satisfies VolumeFile
  }

  /** In a process that is starting; those that were under way are gone on with when resume() is called. */
  open(site: PreseedsSite): RunningPreseeds {
    const running: RunningPreseeds = {
      site,
      jobs: new Preseeds({
        aging: site.aging,
        clock: site.life.clock,
        redefine: (_, definition) => {
          if (site.life.isAlive) site.redefine(definition)
        },
        told: event => {
          if (site.life.isAlive) this.#ended(running, event)
        },
      }),
    }
    return running
  }

  /** For what answers agents. Where a volume is compared, somebody may think just then of handing another image over: `another` does. */
  noteCompared(worker: MirrorWorker, another: (volume: number) => void): MirrorWorker['noteCompared'] {
    const { world } = this.#of
    return async argument => {
      const { volume } = argument
      if (this.#newest.has(volume) && world.random.chance(lateImageShare))
        world.after(world.delay(0, 100), () => another(volume))
      return await worker.noteCompared(argument)
    }
  }

  /** What an image may have put below everything that was written there; zeros are below in any case. */
  mayLieBelow(volume: number, sector: number): readonly Uint8Array[] {
    return this.#below.get(volume)?.get(sector) ?? []
  }

  /** Somebody hands an image of the volume over, as it was once, or as it never was. */
  async begin({ jobs, site }: RunningPreseeds, volume: VolumeDefinition): Promise<void> {
    const { world, diskOf } = this.#of
    const disk = diskOf(volume.number)
    if (disk === undefined || this.#fileCount >= attemptsPerHistoryMax) return
    const { file, what } = this.#newFile(volume, disk, site.life)
    const handed = { file, versionCount: file.versionCount }
    try {
      const before = this.#newest.get(volume.number)
      this.#newest.set(volume.number, handed)
      const started = jobs.start(site.entry, volume, file.path)
      started.catch(() => {
        if (before !== undefined && this.#newest.get(volume.number) === handed) this.#newest.set(volume.number, before)
      })
      await started
      if (!site.life.isAlive) return
      world.count(`an image is handed over: ${what}`)
      world.trace(`${file.path}, ${what}, is handed over for ${volume.name}`)
    } catch (error) {
      if (!site.life.isAlive) return
      const isThere = this.files.files.get(file.path) === file && file.isOn(site.life.host)
      const isWrong = file.sizeBytes !== volume.sizeBytes || !isThere
      world.count(
        `an image is refused${isWrong ? '' : ', a right one'}: ${error instanceof Failure ? error.code : '?'}`,
      )
      const mayBe = [
        'STORE_UNAVAILABLE',
        'BUSY',
        'CLOSING',
        'EPOCH_SUPERSEDED',
        'UNKNOWN_VOLUME',
        'REQUEST_INVALID',
      ] as const
      if (mayBe.some(code => failedWith(error, code)) || (isWrong && failedWith(error, 'CONFIG_INVALID'))) return
      throw error
    }
  }

  /** Goes on with those that were under way. */
  resume({ jobs, site }: RunningPreseeds): void {
    jobs.resume([site.entry])
    if (jobs.list().some(({ state }) => state === 'running')) this.#of.world.count('a preseed is gone on with')
  }

  cancelOne({ jobs, site }: RunningPreseeds): void {
    const { world } = this.#of
    const running = jobs.list().filter(({ state }) => state === 'running')
    if (running.length === 0) return
    const cancelled = jobs.cancel(world.pick(running).id).then(({ state }) => {
      if (site.life.isAlive && state === 'running') throw new Error('a preseed that was cancelled goes on')
    })
    world.background(cancelled)
  }

  /** Something becomes of one of the newest files. */
  harmOne(): void {
    const { world } = this.#of
    const { random } = world
    const volumes = [...this.#newest.keys()]
    if (volumes.length === 0) return
    const volume = world.pick(volumes)
    const { file } = this.#newest.get(volume)!
    const harm = world.pick(['changed', 'changed in secret', 'truncated', 'lost', 'unreadable'] as const)
    world.count(`an image file is ${harm}`)
    world.trace(`${file.path} is ${harm}`)
    switch (harm) {
      case 'changed':
      case 'changed in secret': {
        const contents = this.#someSectors(file.sizeBytes)
        this.#noteBelow(volume, contents)
        file.change(contents, harm === 'changed' ? 'by its time' : 'by nothing')
        return
      }
      case 'truncated':
        file.truncate(random.integer(0, file.sizeBytes / sectorBytes - 1) * sectorBytes)
        return
      case 'lost':
        file.lose()
        return
      case 'unreadable':
        file.setUnreadable()
    }
  }

  /** An image that is being read, a file that is open: in words; undefined where there is nothing of the kind. */
  leftOf({ site }: RunningPreseeds): string | undefined {
    const under = site.entry.definition.volumes.filter(({ preseed }) => preseed?.state === 'under-way')
    if (under.length > 0) return `the preseed of ${under.map(({ name }) => name).join(', ')} does not end`
    const openCount = this.files.openCount(site.life)
    return openCount > 0 ? `${openCount} image files are left open` : undefined
  }

  #ended(running: RunningPreseeds, { volume: name, file: path, state, failure }: PreseedEvent): void {
    const { world } = this.#of
    world.count(`a preseed is ${state}`)
    world.trace(`the preseed of ${name} from ${path} is ${state} ${failure ?? ''}`)
    const volume = running.site.entry.definition.volumes.find(each => each.name === name)
    const file = this.files.files.get(path)
    if (volume === undefined || file === undefined) return
    if (state === 'failed') this.#checkFailed(running, volume, file, failure)
    if (state === 'done') world.background(this.#checkDone(running, volume, file))
  }

  #checkFailed({ jobs, site }: RunningPreseeds, volume: VolumeDefinition, file: SimulatedImageFile, why = ''): void {
    const isBecauseOfFile = file.hasSuffered || !file.isOn(site.life.host) || file.sizeBytes !== volume.sizeBytes
    const isFenced = jobs.list().some(job => job.file === file.path && job.failure?.code === 'EPOCH_SUPERSEDED')
    if (isBecauseOfFile || isFenced) return
    throw new Error(`the preseed of ${volume.name} has failed with a good file: ${why}`)
  }

  /** What the file held is there, wherever nothing was written over it. */
  async #checkDone(
    running: RunningPreseeds,
    { number, name, sizeBytes }: VolumeDefinition,
    file: SimulatedImageFile,
  ): Promise<void> {
    const { world } = this.#of
    const { life, readBelowRecords } = running.site
    const isNewest = (): boolean => {
      const newest = this.#newest.get(number)
      return newest?.file === file && newest.versionCount === file.versionCount
    }
    if (!isNewest()) return
    try {
      const { found, written } = await readBelowRecords(number)
      if (!life.isAlive || !isNewest()) return
      for (let sector = 0; sector < sizeBytes / sectorBytes; sector++) {
        if (written.has(sector)) continue
        const [held, was] = [found.get(sector) ?? zeroSector, file.sectors.get(sector) ?? zeroSector]
        if (!sameBytes(held, was))
          throw new Error(
            `sector ${sector} of ${name} is ${stampOf(held)} after its preseed from ${file.path}, which has ${stampOf(was)}`,
          )
      }
      world.count('a preseed is what its file was')
    } catch (error) {
      if (!life.isAlive) return
      const mayBe = ['STORE_UNAVAILABLE', 'CLOSING', 'EPOCH_SUPERSEDED', 'UNKNOWN_VPG', 'BUSY'] as const
      if (!mayBe.some(code => failedWith(error, code))) throw error
    }
  }

  #newFile(
    { number, sizeBytes }: VolumeDefinition,
    disk: SimulatedVolume,
    life: Life,
  ): { readonly file: SimulatedImageFile; readonly what: string } {
    const { world } = this.#of
    const { random } = world
    const what = world.pick([
      'a copy',
      'an older copy',
      'an older copy',
      'another disk',
      'zeros',
      'of another size',
      'nothing',
    ])
    const otherSizeBytes = sizeBytes + world.pick([-1, 1, 1_000]) * sectorBytes
    const file = new SimulatedImageFile({
      path: `/mnt/image${++this.#fileCount}`,
      sizeBytes: what === 'of another size' ? otherSizeBytes : sizeBytes,
      host: random.chance(0.5) ? life.host : undefined,
      delayMillisMax: world.pick([2, 200, 4_000]),
    })
    if (['a copy', 'an older copy'].includes(what))
      for (const [sector, bytes] of disk.sectors) if (sector * sectorBytes < sizeBytes) file.sectors.set(sector, bytes)
    if (['an older copy', 'another disk'].includes(what))
      for (const [sector, bytes] of this.#someSectors(sizeBytes)) file.sectors.set(sector, bytes)
    if (what !== 'nothing') this.files.files.set(file.path, file)
    this.#noteBelow(number, file.sectors)
    return { file, what }
  }

  #someSectors(sizeBytes: number): Sectors {
    const { random } = this.#of.world
    const sectors: Sectors = new Map()
    const sectorCount = Math.floor(sizeBytes / sectorBytes)
    for (let count = random.integer(1, differentSectorsMax); count > 0 && sectorCount > 0; count--) {
      const stamp = Buffer.from(Int32Array.of(0x20000000 + ++this.#stampCount).buffer)
      sectors.set(
        random.integer(0, sectorCount - 1),
        random.chance(0.1) ? zeroSector : Buffer.alloc(sectorBytes, stamp),
      )
    }
    return sectors
  }

  #noteBelow(volume: number, sectors: Sectors): void {
    const below = this.#below.get(volume) ?? new Map<number, Uint8Array[]>()
    this.#below.set(volume, below)
    for (const [sector, bytes] of sectors) below.set(sector, [...(below.get(sector) ?? []), bytes])
  }
}
