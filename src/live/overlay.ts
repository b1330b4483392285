import * as path from 'node:path'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { MiB, sectorSizeBytes } from '../base/units.ts'
import { isZero } from '../codec/zeros.ts'
import { removeStaged, type Disk, type OpenVolumeFile, type VolumeFile } from '../disk/disk.ts'
import { BlockMap } from './block-map.ts'
import {
  blockSizeFor,
  corruptMap,
  decodeMapSector,
  encodeMapSector,
  encodeOverlayHeader,
  headerOffsetBytes,
  mapLayout,
  readOverlayHeader,
  type MapLayout,
  type MapSector,
  type OverlayHeader,
} from './overlay-format.ts'
import { KeptDisk } from './kept-disk.ts'
import { Rounds } from './rounds.ts'
import type { ScratchBudget } from './scratch-budget.ts'

// What was written to a live disk: a data file in which every block stands at its own place on the disk, and a map of the blocks that are
// the overlay's. Two maps, for two kinds of end:
//
//   running map   written before a write is answered, and not synced. It counts for a process of the same boot of the host: whatever ended
//                 the one before, the kernel has what it was given, of the map and of the data.
//   durable map   written by a flush, after the data that it speaks of was synced. It counts after another boot: a power cut may have
//                 kept any part of what was not synced, and a block of the running map without its bytes would be served.
//
//   write:  bytes to the data file ─> running map ─> answered
//   flush:  sync of the data file ─> durable map ─> sync of the map ─> answered

/** A read or write of the map is no longer than this. */
const mapPieceSizeBytes = 1 * MiB

/** That of no boot, and not of an overlay that was closed in order either. */
const otherBootId = 'ff'.repeat(16)

export interface OverlayOptions {
  readonly disk: Disk
  readonly openFile: OpenVolumeFile
  readonly dataFile: string
  readonly mapFile: string
  /** There was one before: it is not to be taken for new where it cannot be found. */
  readonly isMade: boolean
  readonly sizeBytes: number
  /** As identityOf() makes it. */
  readonly identity: string
  /** 32 hexadecimal digits: of this boot of the host. */
  readonly bootId: string
  readonly budget: ScratchBudget
}

export class Overlay {
  readonly map: BlockMap
  readonly blockSizeBytes: number
  /** How many writes of the data file have failed, of which any part may be there. */
  strayCount = 0
  readonly #options: OverlayOptions
  readonly #layout: MapLayout
  readonly #data: VolumeFile
  readonly #mapFile: VolumeFile
  readonly #runningDirty = new Set<number>()
  readonly #durableDirty = new Set<number>()
  /** Of the durable map's sectors that were ever written: the newest. */
  readonly #sequences = new Map<number, number>()
  readonly #running = new Rounds(() => this.#writeRunning())
  readonly #flushes = new Rounds(() => this.#flush())
  #isDataDirty = false
  readonly #beganStale: boolean
  #header: OverlayHeader
  /** A sync has failed: nobody knows what the disk has of what was written. */
  #broken: Error | undefined

  private constructor(
    options: OverlayOptions,
    header: OverlayHeader,
    data: VolumeFile,
    mapFile: VolumeFile,
    isNew: boolean,
  ) {
    this.#options = options
    this.#header = header
    this.#data = data
    this.#mapFile = mapFile
    this.#layout = mapLayout(header.volumeSizeBytes, header.blockSizeBytes)
    this.blockSizeBytes = header.blockSizeBytes
    this.#beganStale = header.isStale || (!isNew && header.bootId !== undefined)
    this.map = new BlockMap(this.#layout.blockCount, sectorNumber => {
      this.#runningDirty.add(sectorNumber)
      this.#durableDirty.add(sectorNumber)
    })
  }

  /**
   * Goes on with what is there; creates it where there is no map, or that of a scratch that was never ready, but where one was made before. Fails RECORD_CORRUPT,
   * naming the file and the place, where the map is damaged; REQUEST_INVALID where it is that of another disk; DISK_FAILED where the one that was made is not there.
   */
  static async open(options: OverlayOptions): Promise<Overlay> {
    const { disk, openFile, dataFile, mapFile } = options
    const isNew = !disk.exists(mapFile) || (!options.isMade && !(await isMapOf(options)))
    if (isNew && options.isMade)
      throw new Failure(
        'DISK_FAILED',
        `what was written to the disk is not in ${dataFile}: is its file system mounted?`,
      )
    if (isNew) create(options)
    const data = openFile(dataFile)
    try {
      const map = openFile(mapFile)
      try {
        const header = await readOverlayHeader(mapFile, (target, offsetBytes) => map.read(target, offsetBytes))
        checkHeader(header, options)
        const overlay = new Overlay(options, header, data, map, isNew)
        await overlay.#load()
        options.budget.count(overlay.map.roomCount * overlay.blockSizeBytes)
        return overlay
      } catch (error) {
        await map.close()
        throw error
      }
    } catch (error) {
      await data.close()
      throw error
    }
  }

  /**
   * True where blocks that are not the overlay's may have stray bytes in the data file: of a write that failed, or of one that whatever ended the
   * process, a kill or a power cut, left without its map. Nothing that was not closed in order is taken to be free of them.
   */
  get isStale(): boolean {
    return this.#beganStale || this.strayCount > 0
  }

  /** What the data file has: only blocks that are data are the disk's. */
  async readData(target: Uint8Array, offsetBytes: number): Promise<void> {
    await this.#data.read(target, offsetBytes)
  }

  /**
   * Writes the bytes, which cover or complete every block of theirs, and makes these blocks the overlay's. Blocks may not be written or zeroed
   * by two calls at a time. Fails with the code ENOSPC where there is no room, and then nothing has changed.
   */
  async write(offsetBytes: number, bytes: Uint8Array): Promise<void> {
    await this.#write(offsetBytes, bytes, addedSizeBytes => this.#options.budget.reserve(addedSizeBytes))
  }

  /** The same for bytes of the image that are to be kept for good: they count, and are not held to the limit of what guests write. */
  async copyUp(offsetBytes: number, bytes: Uint8Array): Promise<void> {
    await this.#write(offsetBytes, bytes, addedSizeBytes => this.#options.budget.count(addedSizeBytes))
  }

  /** Of blocks that are not data: the data file holds zeros there on return, and takes no more room for them than before. */
  async clear(offsetBytes: number, lengthBytes: number): Promise<void> {
    this.#throwBroken()
    const piece = Buffer.alloc(Math.min(lengthBytes, mapPieceSizeBytes))
    for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += piece.length) {
      const found = piece.subarray(0, Math.min(piece.length, offsetBytes + lengthBytes - at))
      await this.#data.read(found, at)
      if (isZero(found)) continue
      await this.#writeData(found.fill(0), at)
    }
  }

  async #write(offsetBytes: number, bytes: Uint8Array, take: (addedSizeBytes: number) => void): Promise<void> {
    this.#throwBroken()
    const firstBlock = Math.floor(offsetBytes / this.blockSizeBytes)
    const endBlock = Math.ceil((offsetBytes + bytes.length) / this.blockSizeBytes)
    const addedSizeBytes = this.map.countWithoutRoom(firstBlock, endBlock) * this.blockSizeBytes
    take(addedSizeBytes)
    try {
      await this.#writeData(bytes, offsetBytes)
    } catch (error) {
      this.#options.budget.giveBack(addedSizeBytes)
      throw error
    }
    this.map.setData(firstBlock, endBlock)
    await this.#mapWritten()
  }

  /** Dirty from when it has ended, not before: a flush meanwhile takes the mark, and need not have synced these bytes. */
  async #writeData(bytes: Uint8Array, offsetBytes: number): Promise<void> {
    try {
      await this.#data.write(bytes, offsetBytes)
    } catch (error) {
      this.strayCount++ // close() tells it to the next start, and what is not closed in order is stale anyway
      throw error
    } finally {
      this.#isDataDirty = true
    }
  }

  /** The blocks read as zeros on return. 'kept': room is taken for all of them. Fails as write() does. */
  async zero(firstBlock: number, endBlock: number, room: 'as-it-is' | 'kept'): Promise<void> {
    this.#throwBroken()
    if (room === 'kept')
      this.#options.budget.reserve(this.map.countWithoutRoom(firstBlock, endBlock) * this.blockSizeBytes)
    this.map.setZero(firstBlock, endBlock, room)
    await this.#mapWritten()
  }

  /** Everything that was answered before the call is durable. A failure is final: nothing is written any more. */
  async flush(): Promise<void> {
    this.#throwBroken()
    await this.#flushes.join()
  }

  /** The same, and the data file is synced whatever is known of it: on return it is what counts, not the map. */
  async seal(): Promise<void> {
    this.#isDataDirty = true
    await this.flush()
  }

  /** The data file as a disk of its own, for as long as this is open; claimed, so that no agent serves it besides. BUSY where one does. */
  async kept(name: string, description: string): Promise<KeptDisk> {
    await this.#data.claim()
    return new KeptDisk(name, description, this.#data)
  }

  /** Durable, and closed; what failed is told. */
  async close(): Promise<void> {
    try {
      await this.flush()
      await this.#writeHeader({ ...this.#header, bootId: undefined, isStale: this.isStale })
    } finally {
      await this.abandon()
    }
  }

  /** Closes the files as they are, as a kill would. */
  async abandon(): Promise<void> {
    this.#options.budget.giveBack(this.map.roomCount * this.blockSizeBytes)
    await Promise.all([this.#data.close(), this.#mapFile.close()])
  }

  #throwBroken(): void {
    if (this.#broken !== undefined) throw this.#broken
  }

  async #mapWritten(): Promise<void> {
    if (this.#runningDirty.size > 0) await this.#running.join()
  }

  async #writeRunning(): Promise<void> {
    const sectors = takeAll(this.#runningDirty)
    try {
      for (const { offsetBytes, bytes } of this.#encode(sectors, this.#layout.runningOffsetBytes, () => 0))
        await this.#mapFile.write(bytes, offsetBytes)
    } catch (error) {
      for (const sector of sectors) this.#runningDirty.add(sector)
      throw error
    }
  }

  async #flush(): Promise<void> {
    this.#throwBroken()
    const sectors = takeAll(this.#durableDirty)
    const isDataDirty = this.#isDataDirty
    if (sectors.length === 0 && !isDataDirty) return
    this.#isDataDirty = false
    // As they are now: what is written from here on is the next flush's, and its bytes are not synced by this one.
    for (const sector of sectors) this.#sequences.set(sector, (this.#sequences.get(sector) ?? 0) + 1)
    const areas = [0, 1].map(parity => {
      const own = sectors.filter(sector => this.#sequences.get(sector)! % 2 === parity)
      return this.#encode(own, this.#layout.durableOffsetBytes[parity]!, sector => this.#sequences.get(sector)!)
    })
    if (isDataDirty) await this.#sync(this.#data)
    if (sectors.length === 0) return
    try {
      for (const { offsetBytes, bytes } of areas.flat()) await this.#mapFile.write(bytes, offsetBytes)
    } catch (error) {
      // No room, perhaps: the next flush writes over what this one began, never over what counts.
      for (const sector of sectors) {
        this.#sequences.set(sector, this.#sequences.get(sector)! - 1)
        this.#durableDirty.add(sector)
      }
      throw error
    }
    await this.#sync(this.#mapFile)
  }

  /** A sync that failed is final: the kernel may have dropped what it should have written. */
  async #sync(file: VolumeFile): Promise<void> {
    try {
      await file.sync()
    } catch (cause) {
      const sentence = `what was written to ${this.#options.dataFile} could not be made durable: ${String(cause)}`
      this.#broken = new Failure('DISK_FAILED', sentence, { file: this.#options.dataFile }, { cause })
      // Of this boot, too, only what was durable before counts from here on; where not even this can be written, the files are as they are.
      await this.#writeHeader({ ...this.#header, bootId: otherBootId, isStale: true }).catch(() => undefined)
      throw this.#broken
    }
  }

  /** Adjacent sectors in one piece. */
  #encode(
    sectors: readonly number[],
    areaOffsetBytes: number,
    sequenceOf: (sector: number) => number,
  ): { readonly offsetBytes: number; readonly bytes: Buffer }[] {
    const pieces: { offsetBytes: number; bytes: Buffer }[] = []
    const ascending = Uint32Array.from(sectors).sort()
    for (let first = 0; first < ascending.length;) {
      let end = first + 1
      while (
        end < ascending.length &&
        ascending[end] === ascending[end - 1]! + 1 &&
        (end - first) * sectorSizeBytes < mapPieceSizeBytes
      )
        end++
      const bytes = Buffer.alloc((end - first) * sectorSizeBytes)
      for (let index = first; index < end; index++) {
        const at = (index - first) * sectorSizeBytes
        const sector = ascending[index]!
        const target = bytes.subarray(at, at + sectorSizeBytes)
        encodeMapSector(this.map.statesOf(sector), sector, sequenceOf(sector), target)
      }
      pieces.push({ offsetBytes: areaOffsetBytes + ascending[first]! * sectorSizeBytes, bytes })
      first = end
    }
    return pieces
  }

  /** Takes the map that counts, and makes the running map that of this boot. */
  async #load(): Promise<void> {
    const { bootId } = this.#options
    const isOfThisBoot = this.#header.bootId === bootId
    const { sectorCount, durableOffsetBytes, runningOffsetBytes } = this.#layout
    const perPiece = mapPieceSizeBytes / sectorSizeBytes
    for (let first = 0; first < sectorCount; first += perPiece) {
      const count = Math.min(perPiece, sectorCount - first)
      const [even, odd, running] = await this.#readAreas([...durableOffsetBytes, runningOffsetBytes], first, count)
      const corrected = Buffer.alloc(count * sectorSizeBytes)
      for (let index = 0; index < count; index++) {
        const sector = first + index
        const durable = this.#newest(even!, odd!, sector, index)
        if (durable !== undefined) this.#sequences.set(sector, durable.sequence)
        const found = decodeMapSector(sectorOf(running!, index), sector)
        if (isOfThisBoot && found === 'damaged')
          throw corruptMap(
            this.#options.mapFile,
            runningOffsetBytes + sector * sectorSizeBytes,
            'it fails its checksum',
          )
        const counting = isOfThisBoot ? (found as MapSector | undefined) : durable
        if (counting === undefined) continue
        this.map.load(sector, counting.states)
        encodeMapSector(counting.states, sector, 0, sectorOf(corrected, index))
        if (durable === undefined || Buffer.compare(durable.states, counting.states) !== 0)
          this.#durableDirty.add(sector)
      }
      if (!isOfThisBoot && corrected.compare(running!) !== 0)
        await this.#mapFile.write(corrected, runningOffsetBytes + first * sectorSizeBytes)
    }
    this.#isDataDirty = isOfThisBoot // nobody knows what was synced
    // Of this boot: the newest sectors may not be durable yet, and the next flush writes over the others. Else: the running map is whole before it counts.
    await this.#mapFile.sync()
    if (isOfThisBoot) return
    await this.#writeHeader({ ...this.#header, bootId, isStale: this.isStale })
  }

  async #readAreas(areas: readonly number[], firstSector: number, sectorCount: number): Promise<Buffer[]> {
    const pieces: Buffer[] = []
    for (const areaOffsetBytes of areas) {
      const piece = Buffer.alloc(sectorCount * sectorSizeBytes)
      await this.#mapFile.read(piece, areaOffsetBytes + firstSector * sectorSizeBytes)
      pieces.push(piece)
    }
    return pieces
  }

  /** Of the two of a sector of the durable map. One that is damaged was torn, unless the overlay was closed in order. */
  #newest(even: Buffer, odd: Buffer, sector: number, index: number): MapSector | undefined {
    let newest: MapSector | undefined
    for (const [parity, area] of [even, odd].entries()) {
      const found = decodeMapSector(sectorOf(area, index), sector)
      if (found === 'damaged') {
        if (this.#header.bootId !== undefined) continue
        const offsetBytes = this.#layout.durableOffsetBytes[parity]! + sector * sectorSizeBytes
        throw corruptMap(this.#options.mapFile, offsetBytes, 'it fails its checksum')
      }
      if (found !== undefined && found.sequence > (newest?.sequence ?? 0)) newest = found
    }
    return newest
  }

  async #writeHeader(changed: Omit<OverlayHeader, 'sequence'>): Promise<void> {
    const header = { ...changed, sequence: this.#header.sequence + 1 }
    await this.#mapFile.write(encodeOverlayHeader(header), headerOffsetBytes(header))
    await this.#mapFile.sync()
    this.#header = header
  }
}

function sectorOf(area: Buffer, index: number): Buffer {
  return area.subarray(index * sectorSizeBytes, (index + 1) * sectorSizeBytes)
}

function takeAll(set: Set<number>): number[] {
  const all = [...set]
  set.clear()
  return all
}

async function isMapOf({ openFile, mapFile, identity }: OverlayOptions): Promise<boolean> {
  const map = openFile(mapFile)
  try {
    const header = await readOverlayHeader(mapFile, (target, offsetBytes) => map.read(target, offsetBytes))
    return header.identity === identity
  } finally {
    await map.close()
  }
}

function checkHeader(header: OverlayHeader, { sizeBytes, identity, mapFile }: OverlayOptions): void {
  if (header.volumeSizeBytes === sizeBytes && header.identity === identity) return
  throw new Failure(
    'REQUEST_INVALID',
    `${mapFile} is the map of another disk, of another checkpoint, or of a scratch that another appliance has taken the place of since`,
    { file: mapFile },
  )
}

/** Both files durable; the map's name is last, so that where there is a map there is all of it. */
function create({ disk, dataFile, mapFile, sizeBytes, identity, bootId }: OverlayOptions): void {
  const blockSizeBytes = blockSizeFor(sizeBytes)
  const layout = mapLayout(sizeBytes, blockSizeBytes)
  const header = { volumeSizeBytes: sizeBytes, blockSizeBytes, isStale: false, bootId, identity, sequence: 0 }
  const directory = path.dirname(dataFile)
  assert(directory === path.dirname(mapFile), 'both files lie together')
  const staged = `${mapFile}.staged`
  if (disk.exists(mapFile)) {
    disk.remove(mapFile) // of a scratch that was never ready; first, for it counts
    disk.syncDirectory(directory)
  }
  disk.remove(dataFile)
  removeStaged(disk, staged)
  disk.makeDirectory(directory)
  const make = (file: string, sizeBytesOfFile: number, head: readonly Uint8Array[]): void => {
    const open = disk.open(file, 'create')
    try {
      open.truncate(sizeBytesOfFile)
      open.write(head, 0)
      open.sync()
    } finally {
      open.close()
    }
  }
  make(dataFile, sizeBytes, [])
  make(staged, layout.fileSizeBytes, [encodeOverlayHeader(header)])
  disk.rename(staged, mapFile)
  disk.syncDirectory(directory)
}
