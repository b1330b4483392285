import type { VpgId } from '../base/ids.ts'

interface FileUse {
  /** Unsealed records in it, and open images that read it. */
  holds: number
  readonly vpgs: Set<VpgId>
}

/** Who needs which file of the commit log. A file is told free once, when everything in it was read and nobody holds it. */
export class LogFiles {
  readonly #files = new Map<number, FileUse>()
  readonly #onFree: (fileIdentity: number) => void
  #readThrough = 0

  constructor(onFree: (fileIdentity: number) => void) {
    this.#onFree = onFree
  }

  /** The file has a record of this VPG, held or not. */
  note(fileIdentity: number, vpg: VpgId): void {
    this.#use(fileIdentity).vpgs.add(vpg)
  }

  hold(fileIdentity: number): void {
    this.#use(fileIdentity).holds++
  }

  release(fileIdentity: number): void {
    const use = this.#use(fileIdentity)
    use.holds--
    this.#freeIfUnused(fileIdentity, use)
  }

  /** Every record of files below this identity has been read, and these files exist. */
  readPast(fileIdentity: number, existing: readonly number[]): void {
    for (const identity of existing) if (identity > this.#readThrough && identity < fileIdentity) this.#use(identity)
    this.#readThrough = Math.max(this.#readThrough, fileIdentity - 1)
    for (const [identity, use] of [...this.#files]) this.#freeIfUnused(identity, use)
  }

  /** How many files there are from the oldest that is held to the newest. */
  fileCount(newest: number): number {
    const held = [...this.#files].filter(([, use]) => use.holds > 0).map(([identity]) => identity)
    const oldest = Math.min(newest, ...held)
    return Math.max(1, [...this.#files.keys()].filter(identity => identity >= oldest).length)
  }

  /** True when a file that is not free has a record of the VPG. */
  has(vpg: VpgId): boolean {
    return [...this.#files.values()].some(use => use.vpgs.has(vpg))
  }

  #use(fileIdentity: number): FileUse {
    const use = this.#files.get(fileIdentity) ?? { holds: 0, vpgs: new Set<VpgId>() }
    this.#files.set(fileIdentity, use)
    return use
  }

  #freeIfUnused(fileIdentity: number, use: FileUse): void {
    if (use.holds > 0 || fileIdentity > this.#readThrough) return
    if (this.#files.delete(fileIdentity)) this.#onFree(fileIdentity)
  }
}
