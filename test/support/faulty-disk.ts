import * as path from 'node:path'
import { sectorSizeBytes } from '../../src/base/units.ts'
import type { Disk, DiskFile } from '../../src/disk/disk.ts'
import type { Random } from './journal-random.ts'
import { applyChange, systemError, type NameChange } from './name-changes.ts'

/** The power is off: this disk does nothing any more. */
export class PowerCut extends Error {
  override readonly name = 'PowerCut'
}

export type Fault = 'power' | 'EIO' | 'ENOSPC' | 'short'

interface Inode {
  /** What every process reads. */
  current: Uint8Array
  /** What a power cut leaves for certain. */
  synced: Uint8Array
  /** Sectors whose current bytes are not certain. */
  readonly unsynced: Set<number>
}

/**
 * A disk in memory that keeps its promises to the letter, and no more. What was written and not synced survives a power
 * cut sector by sector, as chance has it; so do names that were not synced, change by change (a rename is one change). A
 * sync that fails drops what it should have written, as Linux does: it can be read, and is never written.
 */
export class FaultyDisk implements Disk {
  /** Calls that change something, so far. */
  operationCount = 0
  readonly #names = new Map<string, Inode>()
  readonly #syncedNames = new Map<string, Inode>()
  readonly #nameChanges: NameChange<Inode>[] = []
  readonly #faults = new Map<number, Fault>()
  readonly #ignoresSync: boolean
  #powerIsOff = false
  #openCount = 0

  constructor(options: { readonly ignoresSync?: boolean } = {}) {
    this.#ignoresSync = options.ignoresSync ?? false
  }

  /** The operation of this number (the next is operationCount + 1) fails so. */
  failAt(operation: number, fault: Fault): void {
    this.#faults.set(operation, fault)
  }

  /** A disk as it may be after the power went now. */
  crash(random: Random): FaultyDisk {
    const survivor = new FaultyDisk({ ignoresSync: this.#ignoresSync })
    const copies = new Map<Inode, Inode>()
    const copyOf = (inode: Inode): Inode => {
      const known = copies.get(inode)
      if (known !== undefined) return known
      const synced = survivorOf(inode, random)
      const copy = { current: synced.slice(), synced, unsynced: new Set<number>() }
      copies.set(inode, copy)
      return copy
    }
    const names = new Map(this.#syncedNames)
    for (const change of this.#nameChanges) if (random.chance(0.5)) applyChange(names, change)
    for (const [name, inode] of names) {
      survivor.#names.set(name, copyOf(inode))
      survivor.#syncedNames.set(name, copyOf(inode))
    }
    return survivor
  }

  /** The process was killed, the kernel goes on: nothing is lost, and nothing more is durable than before. */
  restartProcess(): void {
    this.#powerIsOff = false
    this.#faults.clear()
    this.#openCount = 0
  }

  /** Files that are open: what is left open at the end was leaked. */
  openCount(): number {
    return this.#openCount
  }

  /** Changes one byte, durably, as a rotten medium would. */
  flip(file: string, offsetBytes: number, mask = 0x40): void {
    const inode = this.#inode(file)
    for (const image of [inode.current, inode.synced]) image[offsetBytes] = (image[offsetBytes] ?? 0) ^ mask
  }

  contents(file: string): Uint8Array {
    return this.#inode(file).current
  }

  open(file: string, mode: 'read' | 'write' | 'create'): DiskFile {
    if (this.#powerIsOff) throw new PowerCut()
    if (mode === 'create') {
      this.#operate()
      if (this.#names.has(file)) throw systemError('EEXIST', file)
      const inode = { current: new Uint8Array(0), synced: new Uint8Array(0), unsynced: new Set<number>() }
      this.#change({ type: 'put', name: file, inode })
    }
    const inode = this.#inode(file)
    this.#openCount++
    let isOpen = true
    return {
      read: (target, offsetBytes) => {
        if (this.#powerIsOff) throw new PowerCut()
        const bytes = inode.current.subarray(offsetBytes, offsetBytes + target.length)
        target.set(bytes)
        return bytes.length
      },
      write: (pieces, offsetBytes) => this.#write(inode, Buffer.concat(pieces), offsetBytes),
      sync: () => this.#sync(inode),
      sizeBytes: () => inode.current.length,
      truncate: sizeBytes => {
        this.#operate()
        const before = inode.current
        inode.current = new Uint8Array(sizeBytes)
        inode.current.set(before.subarray(0, sizeBytes))
      },
      close: () => {
        if (isOpen) this.#openCount--
        isOpen = false
      },
    }
  }

  list(directory: string): string[] {
    if (this.#powerIsOff) throw new PowerCut()
    return [...this.#names.keys()]
      .filter(name => path.dirname(name) === directory)
      .map(name => path.basename(name))
      .sort()
  }

  makeDirectory(): void {
    if (this.#powerIsOff) throw new PowerCut()
  }

  rename(from: string, to: string): void {
    this.#operate()
    this.#inode(from)
    this.#change({ type: 'rename', from, to })
  }

  link(from: string, to: string): void {
    this.#operate()
    if (this.#names.has(to)) throw systemError('EEXIST', to)
    this.#change({ type: 'put', name: to, inode: this.#inode(from) })
  }

  remove(file: string): void {
    if (this.#powerIsOff) throw new PowerCut()
    if (!this.#names.has(file)) return
    this.#operate()
    this.#change({ type: 'remove', name: file })
  }

  exists(file: string): boolean {
    if (this.#powerIsOff) throw new PowerCut()
    return this.#names.has(file)
  }

  syncDirectory(directory: string): void {
    this.#operate()
    if (this.#ignoresSync) return
    const isThere = (name: string): boolean => path.dirname(name) === directory
    const rest: NameChange<Inode>[] = []
    for (const change of this.#nameChanges) {
      const isSynced = change.type === 'rename' ? isThere(change.to) : isThere(change.name)
      if (isSynced) applyChange(this.#syncedNames, change)
      else rest.push(change)
    }
    this.#nameChanges.splice(0, this.#nameChanges.length, ...rest)
  }

  freeBytes(): number {
    return Number.MAX_SAFE_INTEGER
  }

  #inode(file: string): Inode {
    const inode = this.#names.get(file)
    if (inode === undefined) throw systemError('ENOENT', file)
    return inode
  }

  #change(change: NameChange<Inode>): void {
    applyChange(this.#names, change)
    this.#nameChanges.push(change)
  }

  #write(inode: Inode, bytes: Uint8Array, offsetBytes: number): void {
    const fault = this.#operate('short')
    const kept = fault === undefined ? bytes : bytes.subarray(0, Math.floor(bytes.length / 2))
    const endBytes = offsetBytes + kept.length
    if (endBytes > inode.current.length) {
      const grown = new Uint8Array(endBytes)
      grown.set(inode.current)
      inode.current = grown
    }
    inode.current.set(kept, offsetBytes)
    for (let at = offsetBytes; at < endBytes; at += sectorSizeBytes) {
      inode.unsynced.add(Math.floor(at / sectorSizeBytes))
    }
    if (endBytes > offsetBytes) inode.unsynced.add(Math.floor((endBytes - 1) / sectorSizeBytes))
    if (fault === 'power') throw new PowerCut()
    if (fault !== undefined) throw systemError(fault === 'short' ? 'EIO' : fault, 'write')
  }

  #sync(inode: Inode): void {
    const fault = this.#operate('EIO')
    if (fault === 'power') throw new PowerCut()
    if (fault !== undefined) {
      inode.unsynced.clear() // "clean" for the kernel, and nowhere on the medium
      throw systemError('EIO', 'fdatasync')
    }
    if (this.#ignoresSync) return
    inode.synced =
      inode.synced.length === inode.current.length ? inode.synced : resized(inode.synced, inode.current.length)
    for (const sector of inode.unsynced) copySector(inode.current, inode.synced, sector)
    inode.unsynced.clear()
  }

  /** Counts one operation; its fault is thrown here, unless the caller takes it on itself (`carries`). */
  #operate(carries?: 'short' | 'EIO'): Fault | undefined {
    if (this.#powerIsOff) throw new PowerCut()
    this.operationCount++
    const fault = this.#faults.get(this.operationCount)
    if (fault === 'power') this.#powerIsOff = true
    if (fault === undefined || carries !== undefined) return fault
    throw fault === 'power' ? new PowerCut() : systemError(fault === 'short' ? 'EIO' : fault, 'operation')
  }
}

function survivorOf(inode: Inode, random: Random): Uint8Array {
  const keep = [...inode.unsynced].filter(() => random.chance(0.5))
  const keptEnd = Math.max(0, ...keep.map(sector => (sector + 1) * sectorSizeBytes))
  const sizeBytes = random.chance(0.5) ? inode.current.length : Math.max(inode.synced.length, keptEnd)
  const image = resized(inode.synced, Math.min(sizeBytes, inode.current.length))
  for (const sector of keep) copySector(inode.current, image, sector)
  return image
}

function resized(image: Uint8Array, sizeBytes: number): Uint8Array {
  const copy = new Uint8Array(sizeBytes)
  copy.set(image.subarray(0, sizeBytes))
  return copy
}

function copySector(from: Uint8Array, to: Uint8Array, sector: number): void {
  const start = sector * sectorSizeBytes
  if (start < to.length) to.set(from.subarray(start, Math.min(start + sectorSizeBytes, to.length)), start)
}
