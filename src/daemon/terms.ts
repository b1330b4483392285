import * as path from 'node:path'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'

/**
 * So many terms are left out where the file says nothing of a VPG that has markers: it was lost with its disk, and agents
 * may have seen terms, and made markers under them, that are in no segment. Issued again, or a lower one, they would refuse it for ever.
 */
const unknownTermCountMax = 1_000

/**
 * The terms of coordinators that this appliance has issued, per VPG. Markers alone do not tell: a term under which no checkpoint was
 * made is still the highest that an agent has seen, and another coordinator must not get it after a restart.
 */
export class Terms {
  readonly #disk: Disk
  readonly #file: string
  readonly #issued: Map<string, number>
  /** Written ahead, and told to nobody yet. */
  readonly #prepared = new Set<string>()

  private constructor(disk: Disk, file: string, issued: Map<string, number>) {
    this.#disk = disk
    this.#file = file
    this.#issued = issued
  }

  /** Fails CONFIG_INVALID where the file is not ours. */
  static open(disk: Disk, directory: string): Terms {
    const file = path.join(directory, 'terms.json')
    const held = readWholeFile(disk, file)
    return new Terms(disk, file, held === undefined ? new Map() : parse(file, held))
  }

  /** One write for the first term of each; VPGs that are not named are forgotten. */
  prepare(vpgs: readonly { readonly id: string; readonly above: number }[]): void {
    const next = vpgs.map(({ id, above }) => [id, this.#next(id, above)] as const)
    this.#issued.clear()
    for (const [id, term] of next) {
      this.#issued.set(id, term)
      this.#prepared.add(id)
    }
    this.#write()
  }

  /** A term above `above` and every one that was issued before; durable on return. */
  issue(vpg: string, above: number): number {
    const last = this.#issued.get(vpg) ?? 0
    if (this.#prepared.delete(vpg)) {
      assert(last > above, 'what was prepared is above the markers')
      return last
    }
    const term = this.#next(vpg, above)
    this.#issued.set(vpg, term)
    this.#write()
    return term
  }

  #next(vpg: string, above: number): number {
    const last = this.#issued.get(vpg)
    if (last === undefined && above > 0) return above + unknownTermCountMax
    return Math.max(above, last ?? 0) + 1
  }

  #write(): void {
    replaceFile(this.#disk, this.#file, Buffer.from(`${JSON.stringify(Object.fromEntries(this.#issued))}\n`))
  }
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
