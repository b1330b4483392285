import * as path from 'node:path'
import { isZero } from '../../../src/codec/zeros.ts'
import type { Disk, DiskFile, VolumeFile } from '../../../src/disk/disk.ts'
import { Killed, type Life, type World } from './world.ts'
import { applyChange, systemError, type NameChange } from '../name-changes.ts'

const sectorBytes = 512
const pageBytes = 4096
const sectorsPerPage = pageBytes / sectorBytes
const zeroPage = new Uint8Array(pageBytes)

/** Pages that were never written, or hold zeros, are not there. A page is never changed once it is in a map. */
type Pages = Map<number, Uint8Array>

interface Inode {
  pages: Pages
  sizeBytes: number
  syncedPages: Pages
  syncedSizeBytes: number
  /** Sectors that a power cut may leave as they are or as they were. */
  readonly unsynced: Set<number>
  /** A sync has failed: sectors that were not written since may differ from what is on the medium. */
  hasLost: boolean
}

/**
 * A disk of files that keeps its promises to the letter, and no more, as FaultyDisk does; sparse, so that log files of megabytes cost
 * what is in them. It outlives the processes that use it: each has a view of its own.
 */
export class SimulatedDisk {
  /** Every write and every create fails with ENOSPC; some of the bytes may be there. */
  isFull = false
  /** The next sync that is asked for fails with EIO, and what it should have written is lost. */
  failsNextSync = false
  /** A disk that lies: nothing is durable before the process has ended in order. */
  ignoresSync = false
  /** What does not block takes up to so long. */
  delayMillisMax = 2
  operationCount = 0
  /** Calls that were refused, for want of room or by an error of the medium. */
  refusalCount = 0
  /** Power cuts so far. */
  cutCount = 0
  /** Told before an operation changes anything: may kill the process that asks for it. */
  onOperation: () => void = () => undefined
  readonly #world: World
  #names = new Map<string, Inode>()
  #syncedNames = new Map<string, Inode>()
  #changes: NameChange<Inode>[] = []
  /** They are as the names in them, but for a power cut, which does not take them away. */
  readonly #directories = new Set<string>()

  constructor(world: World) {
    this.#world = world
  }

  /** What was not synced is there or not, sector by sector and name by name, as chance has it. */
  losePower(): void {
    const { random } = this.#world
    this.cutCount++
    const names = new Map(this.#syncedNames)
    for (const change of this.#changes) if (random.chance(0.5)) applyChange(names, change)
    this.#changes = []
    const seen = new Set<Inode>()
    for (const inode of names.values()) {
      if (seen.has(inode)) continue
      seen.add(inode)
      this.#loseUnsynced(inode)
    }
    this.#names = names
    this.#syncedNames = new Map(names)
  }

  #loseUnsynced(inode: Inode): void {
    const { random } = this.#world
    const kept = [...inode.unsynced].filter(() => random.chance(0.5))
    const keptEnd = kept.reduce((end, sector) => Math.max(end, (sector + 1) * sectorBytes), 0)
    const wholeSize = random.chance(0.5) ? inode.sizeBytes : Math.max(inode.syncedSizeBytes, keptEnd)
    const pages = new Map(inode.syncedPages)
    for (const sector of kept) copySector(inode.pages, pages, sector)
    inode.pages = pages
    inode.syncedPages = new Map(pages)
    inode.sizeBytes = inode.syncedSizeBytes = Math.min(wholeSize, inode.sizeBytes)
    inode.unsynced.clear()
  }

  files(): readonly string[] {
    return [...this.#names.keys()].sort()
  }

  /** Takes a file away, durably. */
  lose(file: string): void {
    this.#names.delete(file)
    this.#syncedNames.delete(file)
    this.#changes = this.#changes.filter(change => change.type === 'rename' || change.name !== file)
  }

  /** Other bytes than were written, in one sector that is not zeros. */
  damage(file: string): void {
    const inode = this.#inode(file)
    const pages = [...inode.pages.keys()]
    if (pages.length === 0) return
    const page = this.#world.pick(pages)
    const bytes = inode.pages.get(page)!.slice()
    const used = [...bytes].flatMap((byte, at) => (byte === 0 ? [] : [at]))
    const at = used[this.#world.random.integer(0, used.length - 1)] ?? 0
    bytes[at] = bytes[at]! ^ (1 << this.#world.random.integer(0, 7))
    inode.pages.set(page, bytes)
    inode.syncedPages.set(page, bytes)
  }

  /** Another bit than was written, on the medium as well. */
  flipBit(file: string, offsetBytes: number): void {
    const inode = this.#inode(file)
    const page = Math.floor(offsetBytes / pageBytes)
    const bit = 1 << this.#world.random.integer(0, 7)
    for (const pages of [inode.pages, inode.syncedPages]) {
      const bytes = (pages.get(page) ?? zeroPage).slice()
      bytes[offsetBytes % pageBytes]! ^= bit
      pages.set(page, bytes)
    }
  }

  /** The disk as this process sees it. */
  of(life: Life): Disk {
    const alive = (): void => {
      if (!life.isAlive) throw new Killed(`${life.name} was killed`)
    }
    const operate = (): void => {
      alive()
      this.operationCount++
      this.onOperation()
      alive()
    }
    return {
      open: (file, mode) => {
        alive()
        if (mode === 'create') {
          operate()
          if (this.#names.has(file)) throw systemError('EEXIST', file)
          if (this.isFull) throw this.#refused('ENOSPC', file)
          this.#change({ type: 'put', name: file, inode: emptyInode() })
        }
        return this.#file(life, this.#inode(file), alive, operate)
      },
      list: directory => {
        alive()
        return [...this.#names.keys()]
          .filter(name => path.dirname(name) === directory)
          .map(name => path.basename(name))
          .sort()
      },
      makeDirectory: directory => {
        alive()
        for (let at = directory; at !== '/'; at = path.dirname(at)) this.#directories.add(at)
      },
      rename: (from, to) => {
        operate()
        this.#inode(from)
        this.#change({ type: 'rename', from, to })
      },
      link: (from, to) => {
        operate()
        if (this.#names.has(to)) throw systemError('EEXIST', to)
        this.#change({ type: 'put', name: to, inode: this.#inode(from) })
      },
      remove: file => {
        alive()
        if (!this.#names.has(file)) return
        operate()
        this.#change({ type: 'remove', name: file })
      },
      exists: file => {
        alive()
        return this.#names.has(file) || this.#directories.has(file)
      },
      syncDirectory: directory => {
        operate()
        if (this.ignoresSync) return
        const isThere = (name: string): boolean => path.dirname(name) === directory
        this.#changes = this.#changes.filter(change => {
          const isSynced =
            change.type === 'remove' && change.withDirectory !== undefined
              ? isThere(change.withDirectory)
              : isThere(change.type === 'rename' ? change.to : change.name)
          if (isSynced) applyChange(this.#syncedNames, change)
          return !isSynced
        })
      },
      freeBytes: () => (this.isFull ? 0 : Number.MAX_SAFE_INTEGER),
    }
  }

  /** A file that is read and written without blocking, a moment after it is asked for. */
  openAsVolume(life: Life, file: string): VolumeFile {
    const open = this.of(life).open(file, 'write')
    const later = <T>(call: () => T): Promise<T> =>
      new Promise((resolve, reject) => {
        life.after(this.#world.delay(0.01, this.delayMillisMax), () => {
          try {
            resolve(call())
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)))
          }
        })
      })
    return {
      sizeBytes: open.sizeBytes(),
      isOneHole: false,
      claim: async () => undefined,
      currentSizeBytes: () => open.sizeBytes(),
      read: (target, offsetBytes) => later(() => void open.read(target, offsetBytes)),
      write: (data, offsetBytes) => later(() => open.write([data], offsetBytes)),
      sync: () => later(() => open.sync()),
      identity: () => ({ device: '', inode: '', sizeBytes: open.sizeBytes(), modifiedNanos: '', changedNanos: '' }),
      close: () => Promise.resolve(),
    }
  }

  /** All files below the directory; durable as Disk's calls are, when the directory above it is synced. */
  removeTree(life: Life, directory: string): void {
    for (const at of [...this.#directories])
      if (at === directory || at.startsWith(`${directory}/`)) this.#directories.delete(at)
    for (const name of [...this.#names.keys()]) {
      if (!name.startsWith(`${directory}/`)) continue
      if (!life.isAlive) throw new Killed(`${life.name} was killed`)
      this.operationCount++
      this.onOperation()
      if (!life.isAlive) throw new Killed(`${life.name} was killed`)
      this.#change({ type: 'remove', name, withDirectory: directory })
    }
  }

  #refused(code: string, what: string): Error {
    this.refusalCount++
    return systemError(code, what)
  }

  #file(life: Life, inode: Inode, alive: () => void, operate: () => void): DiskFile {
    return {
      read: (target, offsetBytes) => {
        alive()
        return readPages(inode, target, offsetBytes)
      },
      write: (pieces, offsetBytes) => {
        let at = offsetBytes
        try {
          operate()
        } catch (error) {
          // Killed on the way into the kernel: the first pieces may have got there.
          if (!life.host.isUp) throw error
          for (const piece of pieces.slice(0, this.#world.random.integer(0, pieces.length))) {
            this.#write(inode, piece, at)
            at += piece.length
          }
          throw error
        }
        for (const piece of pieces) {
          if (this.isFull && this.#world.random.chance(0.5)) throw this.#refused('ENOSPC', 'write')
          this.#write(inode, piece, at)
          at += piece.length
        }
        if (this.isFull) throw this.#refused('ENOSPC', 'write')
      },
      sync: () => {
        operate()
        if (this.failsNextSync) {
          this.failsNextSync = false
          inode.hasLost = true
          inode.unsynced.clear() // clean for the kernel, and nowhere on the medium
          throw this.#refused('EIO', 'fdatasync')
        }
        if (this.ignoresSync) return
        if (inode.hasLost) for (const sector of inode.unsynced) copySector(inode.pages, inode.syncedPages, sector)
        else
          for (const sector of inode.unsynced) {
            const page = Math.floor(sector / sectorsPerPage)
            inode.syncedPages.set(page, inode.pages.get(page)!)
          }
        inode.syncedSizeBytes = inode.sizeBytes
        inode.unsynced.clear()
      },
      sizeBytes: () => inode.sizeBytes,
      truncate: sizeBytes => {
        operate()
        const whole = new Uint8Array(sizeBytes)
        readPages(inode, whole, 0)
        inode.pages = new Map()
        inode.sizeBytes = 0
        this.#write(inode, whole, 0)
      },
      close: () => undefined,
    }
  }

  #write(inode: Inode, bytes: Uint8Array, offsetBytes: number): void {
    const endBytes = offsetBytes + bytes.length
    // A new file is filled with zeros, which need not be there.
    if (offsetBytes >= inode.sizeBytes && bytes.length > pageBytes && isZero(bytes)) {
      inode.sizeBytes = endBytes
      return
    }
    for (let at = offsetBytes; at < endBytes;) {
      const page = Math.floor(at / pageBytes)
      const within = at - page * pageBytes
      const length = Math.min(pageBytes - within, endBytes - at)
      const piece = bytes.subarray(at - offsetBytes, at - offsetBytes + length)
      const before = inode.pages.get(page)
      at += length
      if (before === undefined && isZeros(piece)) continue
      const after = before === undefined ? new Uint8Array(pageBytes) : before.slice()
      after.set(piece, within)
      inode.pages.set(page, after)
      const lastSector = Math.floor((page * pageBytes + within + length - 1) / sectorBytes)
      for (let sector = Math.floor((page * pageBytes + within) / sectorBytes); sector <= lastSector; sector++)
        inode.unsynced.add(sector)
    }
    inode.sizeBytes = Math.max(inode.sizeBytes, endBytes)
  }

  #inode(file: string): Inode {
    const inode = this.#names.get(file)
    if (inode === undefined) throw systemError('ENOENT', file)
    return inode
  }

  #change(change: NameChange<Inode>): void {
    applyChange(this.#names, change)
    this.#changes.push(change)
  }
}

function emptyInode(): Inode {
  return {
    pages: new Map(),
    sizeBytes: 0,
    syncedPages: new Map(),
    syncedSizeBytes: 0,
    unsynced: new Set(),
    hasLost: false,
  }
}

function readPages(inode: Inode, target: Uint8Array, offsetBytes: number): number {
  const endBytes = Math.min(inode.sizeBytes, offsetBytes + target.length)
  for (let at = offsetBytes; at < endBytes;) {
    const page = Math.floor(at / pageBytes)
    const within = at - page * pageBytes
    const length = Math.min(pageBytes - within, endBytes - at)
    const bytes = inode.pages.get(page)
    if (bytes === undefined) target.fill(0, at - offsetBytes, at - offsetBytes + length)
    else target.set(bytes.subarray(within, within + length), at - offsetBytes)
    at += length
  }
  return Math.max(0, endBytes - offsetBytes)
}

function copySector(from: Pages, to: Pages, sector: number): void {
  const page = Math.floor((sector * sectorBytes) / pageBytes)
  const within = (sector * sectorBytes) % pageBytes
  const after = (to.get(page) ?? zeroPage).slice()
  after.set((from.get(page) ?? zeroPage).subarray(within, within + sectorBytes), within)
  to.set(page, after)
}

function isZeros(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeroPage.subarray(0, bytes.length)) === 0
}
