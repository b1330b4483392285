import * as fs from 'node:fs'
import * as path from 'node:path'
import type { Clock } from '../base/clock.ts'
import { readWholeFile, replaceFile, syncDirectory, type Disk, type FileCalls } from '../disk/disk.ts'

// A recovery that is removed while the file system of its scratch is not mounted leaves the scratch behind. It is remembered in a file, looked for now and
// then, and removed when it is there again. Its directory bears the recovery's id, which nothing else ever has.

const lookMillis = 60_000
/** Of more the oldest are forgotten: they have been told in the log. */
const orphansMax = 100
/** A mount that hangs is no reason not to stop. */
const closeMillisMax = 1_000

interface Orphan {
  readonly id: string
  readonly directory: string
}

export interface ScratchOrphansParts {
  readonly file: string
  /** Of the file that remembers. */
  readonly disk: Disk
  /** Of the scratches. */
  readonly calls: FileCalls
  readonly clock: Clock
  readonly told: (event: 'scratchRemoved' | 'scratchNotRemoved', facts: object) => void
}

export class ScratchOrphans {
  readonly #parts: ScratchOrphansParts
  #orphans: readonly Orphan[]
  /** Gone, but not for certain after a power cut. */
  readonly #removed = new Set<Orphan>()
  #looking: Promise<void> = Promise.resolve()
  #takeBack: (() => void) | undefined
  #isClosed = false

  constructor(parts: ScratchOrphansParts) {
    this.#parts = parts
    this.#orphans = orphansIn(readWholeFile(parts.disk, parts.file))
    this.#lookLater(0)
  }

  /** Remembered on return, unless the disk fails, which is told. */
  note({ id, directory }: Orphan): void {
    const others = this.#orphans.filter(each => each.directory !== directory)
    this.#remember([...others, { id, directory }].slice(-orphansMax))
    this.#lookLater(lookMillis)
  }

  /** Of a recovery that has ended, perhaps on another appliance: noted where it is there now. */
  noteWhereLeft(orphan: Orphan): void {
    const noted = async (): Promise<void> => {
      if ((await fs.promises.stat(orphan.directory).catch(() => undefined)) === undefined || this.#isClosed) return
      this.note(orphan)
      this.#lookLater(0)
    }
    this.#looking = this.#looking.then(noted) // one call at a time: one that hangs holds a thread that all file calls share
  }

  /** A look that is under way has ended. */
  async settled(): Promise<void> {
    await this.#looking
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#takeBack?.()
    const ended = new AbortController()
    const waited = this.#parts.clock.sleep(closeMillisMax, ended.signal).catch(() => undefined)
    await Promise.race([this.settled(), waited])
    ended.abort()
  }

  #lookLater(delayMillis: number): void {
    this.#takeBack?.()
    if (this.#isClosed || this.#orphans.length === 0) return
    this.#takeBack = this.#parts.clock.after(delayMillis, () => {
      this.#looking = this.#looking.then(async () => {
        await this.#look()
        this.#lookLater(lookMillis)
      })
    })
  }

  async #look(): Promise<void> {
    for (const orphan of this.#orphans) {
      if (this.#isClosed) return
      const { id, directory } = orphan
      if (path.basename(directory) !== id) continue
      try {
        if (!this.#removed.has(orphan)) {
          if ((await fs.promises.stat(directory).catch(() => undefined)) === undefined) continue
          await fs.promises.rm(directory, { recursive: true })
          this.#removed.add(orphan)
        }
        await syncDirectory(this.#parts.calls, path.dirname(directory))
        if (this.#isClosed) return
        this.#removed.delete(orphan)
        this.#remember(this.#orphans.filter(each => each !== orphan))
        this.#parts.told('scratchRemoved', { id, directory })
      } catch (error) {
        this.#parts.told('scratchNotRemoved', { id, directory, error: String(error) })
      }
    }
  }

  #remember(orphans: readonly Orphan[]): void {
    const { disk, file, told } = this.#parts
    this.#orphans = orphans
    try {
      replaceFile(disk, file, Buffer.from(JSON.stringify({ formatVersion: 1, orphans })))
    } catch (error) {
      told('scratchNotRemoved', { file, error: String(error) })
    }
  }
}

/** A file that is not ours, or damaged, costs no more than what it remembered. */
function orphansIn(contents: Uint8Array | undefined): readonly Orphan[] {
  try {
    const { orphans } = JSON.parse(Buffer.from(contents ?? []).toString()) as { readonly orphans: readonly Orphan[] }
    return orphans.filter(({ id, directory }) => /^r-[0-9a-f]{12}$/.test(id) && path.isAbsolute(directory))
  } catch {
    return []
  }
}
