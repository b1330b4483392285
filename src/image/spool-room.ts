import { assert } from '../base/assert.ts'
import {
  liveImagesMax,
  snapshotsWrittenAtOnceMax,
  spoolFreeShareMax,
  spoolReserveShare,
  spoolReserveSizeBytesMin,
  spoolSizeBytesMax,
  spoolsMadeAtOnceMax,
} from '../base/limits.ts'
import { MiB } from '../base/units.ts'
import { fileSystemSizeBytes, realDisk } from '../disk/disk.ts'

// What all spools of a process take of the data directory's disk. The commit log is there, too: without room it stops, and with it all protection. Each thread that
// makes spools has places of its own in memory that all share; a thread that has ended gives nothing back, so the next one of its kind does.
//
//   place: | state | reserved, MiB | of it written, MiB |     32-bit; live's places, then those of AWS
//
// Whoever wants room says so in its place first, and then looks at all: two at the same moment may both go without, and never both have it.

export type SpoolOwner = 'live' | 'aws'

const owners: readonly SpoolOwner[] = ['live', 'aws']
const placesOfOwner = 64
assert(placesOfOwner >= 2 * liveImagesMax, 'an image that replaces another one has its place beside it')
assert(placesOfOwner >= 2 * snapshotsWrittenAtOnceMax, 'recoveries and standby snapshots have places')
const placeWords = 3
const [stateWord, reservedWord, writtenWord] = [0, 1, 2]
const [isFree, isMade, isInUse] = [0, 1, 2]

/** The memory for the threads of one process. */
export function newSpoolRoom(): SharedArrayBuffer {
  return new SharedArrayBuffer(owners.length * placesOfOwner * placeWords * Int32Array.BYTES_PER_ELEMENT)
}

export interface RoomOfDisk {
  freeBytes(directory: string): number
  sizeBytes(directory: string): number
}

const realRoom: RoomOfDisk = { freeBytes: realDisk.freeBytes, sizeBytes: fileSystemSizeBytes }

export class SpoolRoom {
  readonly #memory: SharedArrayBuffer
  readonly #owner: SpoolOwner
  readonly #disk: RoomOfDisk

  private constructor(memory: SharedArrayBuffer, owner: SpoolOwner, disk: RoomOfDisk) {
    this.#memory = memory
    this.#owner = owner
    this.#disk = disk
  }

  /** Of the one thread that is this owner now; what one before it had is free. */
  static open(memory: SharedArrayBuffer, owner: SpoolOwner, disk = realRoom): SpoolRoom {
    const first = owners.indexOf(owner) * placesOfOwner
    for (let place = first; place < first + placesOfOwner; place++) SpoolShare.of({ memory, place }).release()
    return new SpoolRoom(memory, owner, disk)
  }

  /** As many spools are being made as may be. */
  get isBusy(): boolean {
    return madeCountOf(new Int32Array(this.#memory)) >= spoolsMadeAtOnceMax
  }

  /** A share for a spool that is to be made; undefined where others are being made already, as many as may be: each has an index of its image in memory. */
  begin(): SpoolShare | undefined {
    const words = new Int32Array(this.#memory)
    const first = owners.indexOf(this.#owner) * placesOfOwner
    for (let place = first; place < first + placesOfOwner; place++) {
      if (Atomics.compareExchange(words, place * placeWords + stateWord, isFree, isMade) !== isFree) continue
      const share = SpoolShare.of({ memory: this.#memory, place }, this.#disk)
      if (madeCountOf(words) <= spoolsMadeAtOnceMax) return share
      share.release()
      return undefined
    }
    return undefined
  }
}

/** For another thread. */
export interface SharePlace {
  readonly memory: SharedArrayBuffer
  readonly place: number
}

/** Of the room, what one spool has; until it is released. */
export class SpoolShare {
  readonly place: SharePlace
  readonly #words: Int32Array
  readonly #at: number
  readonly #disk: RoomOfDisk
  #writtenBytes = 0

  private constructor(place: SharePlace, disk: RoomOfDisk) {
    this.place = place
    this.#words = new Int32Array(place.memory)
    this.#at = place.place * placeWords
    this.#disk = disk
  }

  static of(place: SharePlace, disk = realRoom): SpoolShare {
    return new SpoolShare(place, disk)
  }

  /** False, and nothing is reserved, where there is no room for so much on the directory's disk. */
  reserve(sizeBytes: number, directory: string): boolean {
    if (sizeBytes > spoolSizeBytesMax) return false
    Atomics.store(this.#words, this.#at + reservedWord, Math.ceil(sizeBytes / MiB))
    const { reservedBytes, withoutSpoolsBytes } = this.#look(directory)
    if (reservedBytes <= spoolFreeShareMax * withoutSpoolsBytes && this.hasRoom(directory)) return true
    Atomics.store(this.#words, this.#at + reservedWord, 0)
    return false
  }

  wrote(sizeBytes: number): void {
    this.#writtenBytes += sizeBytes
    Atomics.store(this.#words, this.#at + writtenWord, Math.floor(this.#writtenBytes / MiB))
  }

  /** Whether others still have theirs when all that is reserved is written. */
  hasRoom(directory: string): boolean {
    const { reservedBytes, withoutSpoolsBytes } = this.#look(directory)
    const reserveBytes = Math.max(spoolReserveSizeBytesMin, spoolReserveShare * this.#disk.sizeBytes(directory))
    return withoutSpoolsBytes - reservedBytes >= reserveBytes
  }

  /** It is no longer being made. */
  made(): void {
    Atomics.store(this.#words, this.#at + stateWord, isInUse)
  }

  release(): void {
    Atomics.store(this.#words, this.#at + reservedWord, 0)
    Atomics.store(this.#words, this.#at + writtenWord, 0)
    Atomics.store(this.#words, this.#at + stateWord, isFree)
  }

  /** `withoutSpoolsBytes` is what would be free without them. */
  #look(directory: string): { readonly reservedBytes: number; readonly withoutSpoolsBytes: number } {
    const writtenBytes = sumOf(this.#words, writtenWord) * MiB
    return {
      reservedBytes: sumOf(this.#words, reservedWord) * MiB,
      withoutSpoolsBytes: this.#disk.freeBytes(directory) + writtenBytes,
    }
  }
}

function sumOf(words: Int32Array, word: number): number {
  let sum = 0
  for (let at = word; at < words.length; at += placeWords) sum += Atomics.load(words, at)
  return sum
}

function madeCountOf(words: Int32Array): number {
  let count = 0
  for (let at = stateWord; at < words.length; at += placeWords) if (Atomics.load(words, at) === isMade) count++
  return count
}
