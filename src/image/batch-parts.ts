import { batchRawSizeBytesTarget } from '../base/limits.ts'
import { KiB } from '../base/units.ts'
import { Permits } from '../base/permits.ts'
import type { BatchPlaces } from '../mirror/mirror.ts'
import type { RawPart, RecordSource } from '../segment/record-source.ts'
import type { ByteRange } from '../store/object-store.ts'
import type { SizedCache } from './sized-cache.ts'

// What reads want of batches: a few KiB here and there, where writes were random. The first read of a batch reads all of it, as its checks
// need it, and later ones only the blocks that are wanted; kept of either is what lies in these.

/** Of one image: a store far away takes its time for each. */
const readsAtOnce = 8
/** Holds the record of most batches: each needs new memory otherwise, which costs more than to read it. */
const spareSizeBytes = batchRawSizeBytesTarget + 64 * KiB

export interface WantedPart {
  /** Of RegionWrites. */
  readonly batch: number
  /** In the batch's raw payload. */
  readonly range: ByteRange
}

/** Parts that do not overlap, of one unit. */
export type Parts = readonly RawPart[]

export class BatchParts {
  readonly #batches: BatchPlaces
  readonly #sources: readonly RecordSource[]
  readonly #cache: SizedCache<Parts>
  readonly #permits = new Permits(readsAtOnce)
  readonly #spares: Uint8Array[] = []
  /** Being read, by batch: one at a time, as the first brings what the next want. */
  readonly #underWay = new Map<number, Promise<unknown>>()
  /** Raw. */
  broughtSizeBytes = 0

  constructor(batches: BatchPlaces, sources: readonly RecordSource[], cache: SizedCache<Parts>) {
    this.#batches = batches
    this.#sources = sources
    this.#cache = cache
  }

  known({ batch, range }: WantedPart): RawPart | undefined {
    return this.#cache.get(`${batch}`)?.find(part => holds(part, range))
  }

  /** A part that holds what is wanted. */
  async read(wanted: WantedPart, signal: AbortSignal): Promise<RawPart> {
    const { batch } = wanted
    for (;;) {
      const known = this.known(wanted)
      if (known !== undefined) return known
      const underWay = this.#underWay.get(batch)
      if (underWay === undefined) break
      await underWay.catch(() => undefined) // its reader is told
    }
    const reading = this.#permits.with(() => this.#read(wanted, signal))
    this.#underWay.set(batch, reading)
    try {
      return await reading
    } finally {
      this.#underWay.delete(batch)
    }
  }

  async #read({ batch, range }: WantedPart, signal: AbortSignal): Promise<RawPart> {
    const source = this.#sources[this.#batches.batchSource[batch]!]!
    const spare = this.#spares.pop() ?? new Uint8Array(spareSizeBytes)
    const part = await source.readPart(this.#batches.batchNumber[batch]!, range, signal, spare)
    this.#spares.push(spare) // after a failure somebody may still write to it
    this.broughtSizeBytes += part.raw.length
    const others = (this.#cache.get(`${batch}`) ?? []).filter(other => !overlap(part, other))
    const parts = [...others, part]
    const sizeBytes = parts.reduce((sum, { raw }) => sum + raw.length, 0)
    this.#cache.set(`${batch}`, parts, sizeBytes)
    return part
  }
}

function holds({ rawOffsetBytes, raw }: RawPart, range: ByteRange): boolean {
  return rawOffsetBytes <= range.startBytes && range.endBytes <= rawOffsetBytes + raw.length
}

function overlap(one: RawPart, other: RawPart): boolean {
  return (
    one.rawOffsetBytes < other.rawOffsetBytes + other.raw.length &&
    other.rawOffsetBytes < one.rawOffsetBytes + one.raw.length
  )
}
