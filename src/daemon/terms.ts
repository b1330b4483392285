import * as path from 'node:path'
import { Failure, isSystemError } from '../base/failure.ts'
import { readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'

/**
 * So many terms are left out where the file says nothing of a VPG that has markers: it was lost with its disk, and agents
 * may have seen terms, and made markers under them, that are in no segment. Issued again, or a lower one, they would refuse it for ever.
 */
const unknownTermCountMax = 1_000
/** Written ahead for each VPG, so that a change of coordinators, which comes to all groups of a host at once, waits for no disk. */
const aheadCount = 1

/** Durable on return; may take its time. Readers find the old contents or the new. */
export type ReplaceLater = (file: string, contents: Uint8Array) => Promise<void>

/**
 * The terms of coordinators that this appliance has issued, per VPG. Markers alone do not tell: a term under which no checkpoint was
 * made is still the highest that an agent has seen, and another coordinator must not get it after a restart.
 *
 * Two files, of which the higher counts: what had to be written before a term could be told, and what was written ahead, beside the event loop.
 */
export class Terms {
  readonly #disk: Disk
  readonly #directory: string
  readonly #replaceLater: ReplaceLater
  /** No term up to these is issued after a restart. */
  readonly #durable: Map<string, number>
  /** The highest that were issued by this process. */
  readonly #issued = new Map<string, number>()
  #writingAhead: Promise<void> | undefined
  #isAheadStale = false

  private constructor(disk: Disk, directory: string, replaceLater: ReplaceLater, durable: Map<string, number>) {
    this.#disk = disk
    this.#directory = directory
    this.#replaceLater = replaceLater
    this.#durable = durable
  }

  /** Fails CONFIG_INVALID where a file is not ours. */
  static open(
    disk: Disk,
    directory: string,
    replaceLater: ReplaceLater = async (file, contents) => replaceFile(disk, file, contents),
  ): Terms {
    const durable = new Map<string, number>()
    for (const name of [ownFile, aheadFile]) {
      const file = path.join(directory, name)
      const held = readWholeFile(disk, file)
      if (held === undefined) continue
      for (const [vpg, term] of parse(file, held)) durable.set(vpg, Math.max(term, durable.get(vpg) ?? 0))
    }
    return new Terms(disk, directory, replaceLater, durable)
  }

  /**
   * One write for the first terms of each; VPGs that are not named are forgotten. Returns the disk's error (ENOSPC, EIO) where it does not take that: then each
   * is written when it is issued.
   */
  prepare(vpgs: readonly { readonly id: string; readonly above: number }[]): NodeJS.ErrnoException | undefined {
    const next = vpgs.map(({ id, above }) => [id, this.#next(id, above)] as const)
    try {
      this.#write(new Map(next.map(([id, term]) => [id, term + aheadCount])))
    } catch (error) {
      if (!isSystemError(error)) throw error
      return error
    }
    this.#durable.clear()
    for (const [id, term] of next) {
      this.#issued.set(id, term - 1)
      this.#durable.set(id, term + aheadCount)
    }
    return undefined
  }

  /** A term above `above` and every one that was issued before; not issued again, whatever happens. Throws the disk's error: nothing was issued. */
  issue(vpg: string, above: number): number {
    const term = this.#next(vpg, above)
    if (term > (this.#durable.get(vpg) ?? 0)) {
      this.#write(new Map([...this.#durable, [vpg, term + aheadCount]]))
      this.#durable.set(vpg, term + aheadCount)
      this.#issued.set(vpg, term)
    } else {
      this.#issued.set(vpg, term)
      this.#writeAhead()
    }
    return term
  }

  /** Resolves when nothing is being written ahead. */
  async close(): Promise<void> {
    await this.#writingAhead
  }

  #next(vpg: string, above: number): number {
    const last = this.#issued.get(vpg) ?? this.#durable.get(vpg)
    if (last === undefined && above > 0) return above + unknownTermCountMax
    return Math.max(above, last ?? 0) + 1
  }

  #write(durable: ReadonlyMap<string, number>): void {
    replaceFile(this.#disk, path.join(this.#directory, ownFile), encode(durable))
  }

  /** One write for all that were issued meanwhile. Where it fails, the next term is written before it is told. */
  #writeAhead(): void {
    this.#isAheadStale = true
    this.#writingAhead ??= this.#whileStale()
      .catch(() => undefined)
      .finally(() => (this.#writingAhead = undefined))
  }

  async #whileStale(): Promise<void> {
    while (this.#isAheadStale) {
      this.#isAheadStale = false
      const ahead = new Map([...this.#issued].map(([vpg, term]) => [vpg, term + aheadCount]))
      await this.#replaceLater(path.join(this.#directory, aheadFile), encode(ahead))
      for (const [vpg, term] of ahead) this.#durable.set(vpg, Math.max(term, this.#durable.get(vpg) ?? 0))
    }
  }
}

const ownFile = 'terms.json'
const aheadFile = 'terms-ahead.json'

function encode(terms: ReadonlyMap<string, number>): Buffer {
  return Buffer.from(`${JSON.stringify(Object.fromEntries(terms))}\n`)
}

function parse(file: string, bytes: Uint8Array): Map<string, number> {
  const unreadable = (): Failure =>
    new Failure('CONFIG_INVALID', `${file} cannot be read; without it terms go on from the markers in the journal`)
  let parsed: unknown
  try {
    parsed = JSON.parse(Buffer.from(bytes).toString())
  } catch {
    throw unreadable()
  }
  if (typeof parsed !== 'object' || parsed === null) throw unreadable()
  const terms = new Map(Object.entries(parsed))
  if (![...terms.values()].every(term => Number.isSafeInteger(term))) throw unreadable()
  return terms
}
