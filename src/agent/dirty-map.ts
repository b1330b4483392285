import { assert } from '../base/assert.ts'
import { alignDown, alignUp, sectorSizeBytes } from '../base/units.ts'
import { readWholeFile, replaceFile, type Disk, type OpenVolumeFile, type VolumeFile } from '../disk/disk.ts'
import { Bitmap, mergeBytes, unionCount } from './bitmap.ts'
import {
  decodeHeader,
  decodePage,
  encodeHeader,
  encodePage,
  fileSizeBytesOf,
  pageBitmapSizeBytes,
  pageCountOf,
  regionSizeBytesFor,
  regionsPerPage,
  type MapHeader,
} from './dirty-map-format.ts'

// Which regions of a volume the VRA may lack, whatever happens to the agent, its host, the link and the appliance.
//
//   a write ──> NEW ── rotate ──> OLD ── all of it offloaded, and then the local disk synced ──> no mark
//                ^        │ │
//   sync block  ─┘        └─┴── the queue is lost ──> PENDING ── its blocks have their numbers ──> NEW
//
// On disk there is the union of the three sets, and of AHEAD: regions that are likely to be written soon. A region's mark is durable
// before a write to it is submitted; writes that need new marks at the same time share one fdatasync, and a write into a marked region
// costs nothing. So a write that needs a mark has its neighbours marked, and one that continues others what it will come to next; a
// kill costs these regions, too, an outage does not. A mark is taken back only when nothing
// numbered before the rotation can be lost any more: not by the appliance, and not by the local disk, of which a sync block may
// have been read from the page cache.

/** A write under way. */
export interface WriteMark {
  /** Undefined where the marks are durable already. Rejects where the map cannot be written. */
  readonly durable: Promise<void> | undefined
  readonly firstRegion: number
  readonly lastRegion: number
  /** The map's own, where this one was made of it. */
  readonly of?: WriteMark
}

/** What a file holds, and what of it is damaged. */
interface FoundMap {
  readonly header: MapHeader
  readonly marked: Bitmap
  readonly pending: Bitmap
  readonly damagedPageCount: number
}

/** Neighbours that are marked with a region, itself included, and how far ahead of writes that go from region to region. */
const groupRegionCountMax = 4
const aheadRegionCountMax = 16

export class DirtyMap {
  readonly regionCount: number
  readonly damagedPageCount: number
  readonly #file: VolumeFile
  #header: MapHeader
  readonly #old: Bitmap
  readonly #new: Bitmap
  readonly #pending: Bitmap
  /** Regions whose mark stays until the next start, sent again or not. */
  readonly #kept: Bitmap
  readonly #ahead: Bitmap
  readonly #groupRegionCount: number
  readonly #aheadRegionCount: number
  /** How many regions have been written one after the other, up to the last. */
  #runCount = 0
  #runRegion = -1
  /** Regions whose mark is on the medium. */
  readonly #durable: Bitmap
  readonly #underWay = new Set<WriteMark>()
  readonly #stalePages = new Set<number>()
  /** Regions that are being sent, and whether they have become pending once more meanwhile. */
  readonly #claims = new Map<number, { again: boolean }>()
  /** While true the stream takes every write; else they wait for a synchronisation. */
  #isExact = false
  #queuedFlush: Promise<void> | undefined
  #lastFlush: Promise<void> = Promise.resolve()
  #isGivenUp = false
  /** Counts what gives OLD another meaning, so that a clearing that waits for the medium notices. */
  #oldVersion = 0

  private constructor(file: VolumeFile, found: FoundMap) {
    const { header } = found
    this.regionCount = found.marked.bitCount
    this.damagedPageCount = found.damagedPageCount
    this.#file = file
    this.#header = header
    this.#pending = found.pending
    this.#new = found.marked
    this.#old = new Bitmap(this.regionCount)
    this.#kept = new Bitmap(this.regionCount)
    this.#ahead = new Bitmap(this.regionCount)
    // Of a small volume less, so that a kill does not cost all of it.
    this.#groupRegionCount = Math.max(1, Math.min(groupRegionCountMax, Math.floor(this.regionCount / 256)))
    this.#aheadRegionCount = Math.min(aheadRegionCountMax, Math.floor(this.regionCount / 128))
    this.#durable = new Bitmap(this.regionCount)
    if (found.damagedPageCount === 0) this.#durable.addBytes(found.marked.bytes, 0)
  }

  /**
   * A map of which nothing is pending, or everything, durable on return, in the place of any that was there. One that takes the place of another that
   * could not be read has everything from its first moment: a start may be killed right after it, and the next one believes what it finds.
   */
  static create(
    disk: Disk,
    openFile: OpenVolumeFile,
    path: string,
    volume: { readonly sizeBytes: number; readonly identity: number; readonly pending: 'nothing' | 'everything' },
  ): DirtyMap {
    const header: MapHeader = {
      identity: volume.identity,
      volumeSizeBytes: volume.sizeBytes,
      regionSizeBytes: regionSizeBytesFor(volume.sizeBytes),
      cleared: { generation: 0, sequence: 0 },
    }
    const contents = Buffer.alloc(fileSizeBytesOf(header))
    contents.set(encodeHeader(header), 0)
    const all = new Bitmap(regionCountOf(header))
    if (volume.pending === 'everything') for (let region = 0; region < all.bitCount; region++) all.add(region)
    for (let page = 0; page < pageCountOf(header); page++) {
      const bits = new Uint8Array(pageBitmapSizeBytes)
      mergeBytes(bits, partOf(all, page))
      contents.set(encodePage(header.identity, page, { marked: bits, pending: bits }), (1 + page) * sectorSizeBytes)
    }
    replaceFile(disk, path, contents)
    const [marked, pending] = [new Bitmap(all.bitCount), new Bitmap(all.bitCount)]
    for (const set of [marked, pending]) set.addBytes(all.bytes, 0)
    return new DirtyMap(openFile(path), { header, marked, pending, damagedPageCount: 0 })
  }

  /** Undefined where there is none for a volume of this size, or its header is damaged. A damaged page marks all its regions as pending. */
  static open(disk: Disk, openFile: OpenVolumeFile, path: string, volumeSizeBytes: number): DirtyMap | undefined {
    const contents = readWholeFile(disk, path)
    const found = contents === undefined ? undefined : readMap(Buffer.from(contents), volumeSizeBytes)
    return found === undefined ? undefined : new DirtyMap(openFile(path), found)
  }

  get regionSizeBytes(): number {
    return this.#header.regionSizeBytes
  }
  get pendingCount(): number {
    return this.#pending.count
  }
  /** Of all regions with a mark. */
  get dirtyBytes(): number {
    return unionCount(this.#marked) * this.regionSizeBytes
  }
  /** Up to where a VRA must have offloaded for this map to say what it lacks. */
  get cleared(): MapHeader['cleared'] {
    return this.#header.cleared
  }
  /** True while the stream takes every write of this volume. */
  get isExact(): boolean {
    return this.#isExact
  }
  get hasOld(): boolean {
    return this.#old.count > 0
  }

  // Writes.

  /** Marks what a write is about to change. Submit it when `durable` has resolved, and give it to end() whatever became of it. */
  begin(offsetBytes: number, lengthBytes: number): WriteMark {
    const [firstRegion, lastRegion] = this.#regionsOf(offsetBytes, lengthBytes)
    const set = this.#isExact ? this.#new : this.#pending
    let isDurable = true
    for (let region = firstRegion; region <= lastRegion; region++) {
      set.add(region)
      this.#ahead.delete(region)
      if (this.#durable.has(region)) continue
      isDurable = false
      this.#stalePages.add(Math.floor(region / regionsPerPage))
    }
    if (!isDurable) this.#markNeighbours(firstRegion, lastRegion)
    this.#followRun(firstRegion, lastRegion)
    const durable = isDurable || this.#isGivenUp ? undefined : this.flush()
    const mark = { durable, firstRegion, lastRegion }
    this.#underWay.add(mark)
    return mark
  }

  end(mark: WriteMark): void {
    this.#underWay.delete(mark)
  }

  /** The map cannot be written any more, and that is written down elsewhere: marks are kept in memory, and writes go on. */
  giveUp(): void {
    this.#isGivenUp = true
  }

  // What is to be sent.

  /** The stream takes every write from now on. */
  attach(): void {
    this.#isExact = true
  }

  /** What was numbered and not offloaded is to be sent again, and so is what is written from now on. */
  detach(): void {
    this.#isExact = false
    this.repeat()
  }

  /** Everything that has a mark is to be sent again. */
  repeat(): void {
    this.#oldVersion++
    for (const claim of this.#claims.values()) claim.again = true
    this.#pending.takeAll(this.#old)
    this.#pending.takeAll(this.#new)
  }

  /**
   * Whatever has a mark keeps it until the next start: a sync of the local disk has failed, and nobody can say which of it the disk will hold then. What
   * is written from now on is another matter.
   */
  keepMarks(): void {
    for (const set of [this.#old, this.#new, this.#pending]) this.#kept.addBytes(set.bytes, 0)
  }

  /** This range is to be sent; durable on return. */
  async addPending(offsetBytes: number, lengthBytes: number): Promise<void> {
    const [first, last] = this.#regionsOf(offsetBytes, lengthBytes)
    for (let region = first; region <= last; region++) this.#addPending(region)
    await this.flush()
  }

  /**
   * The whole volume is to be sent to a VRA that has offloaded up to `cleared`; durable on return, and pending also where it had a mark already: a
   * start that is killed leaves the clean stop before it as it was, and what that left pending is believed.
   */
  addAllPending(cleared: MapHeader['cleared'] = this.cleared): Promise<void> {
    this.#header = { ...this.#header, cleared: { generation: cleared.generation, sequence: cleared.sequence } }
    this.#stalePages.add(headerPage)
    for (let page = 0; page < pageCountOf(this.#header); page++) this.#stalePages.add(page)
    return this.addPending(0, this.#header.volumeSizeBytes)
  }

  isPending(region: number): boolean {
    return this.#pending.has(region)
  }

  /** The lowest region from this one on that is to be sent. */
  nextPending(fromRegion: number): number | undefined {
    return this.#pending.next(fromRegion)
  }

  rangeOf(region: number): { readonly offsetBytes: number; readonly lengthBytes: number } {
    const offsetBytes = region * this.regionSizeBytes
    return { offsetBytes, lengthBytes: Math.min(this.regionSizeBytes, this.#header.volumeSizeBytes - offsetBytes) }
  }

  /** The region is about to be sent. */
  claim(region: number): void {
    this.#claims.set(region, { again: false })
  }

  unclaim(region: number): void {
    this.#claims.delete(region)
  }

  /** Every block of the claimed region has its number, or is known to be alike; nothing where it is to be sent once more. */
  settle(region: number): void {
    if (this.#claims.get(region)?.again !== false) return
    if (this.#pending.delete(region)) this.#new.add(region)
  }

  // What needs no mark any more.

  /** Everything numbered so far belongs to OLD now. False where there is nothing. */
  rotate(): boolean {
    assert(this.#old.count === 0, 'the former rotation has ended')
    if (this.#new.count === 0) return false
    this.#oldVersion++
    this.#old.takeAll(this.#new)
    for (const { firstRegion, lastRegion } of this.#underWay)
      for (let region = firstRegion; region <= lastRegion; region++) this.#new.add(region)
    return true
  }

  /**
   * Takes OLD's marks back: all that was numbered before the rotation is offloaded, up to `offloaded`, and the local disk was
   * synced after the rotation. On the medium the word of the VRA comes before what is believed on it.
   */
  async clearOld(offloaded: MapHeader['cleared']): Promise<void> {
    this.#header = { ...this.#header, cleared: { generation: offloaded.generation, sequence: offloaded.sequence } }
    this.#stalePages.add(headerPage)
    const version = this.#oldVersion
    await this.flush()
    if (version !== this.#oldVersion) return
    for (const region of this.#old) {
      if (this.#new.has(region) || this.#pending.has(region) || this.#kept.has(region)) continue
      this.#takeBack(region)
    }
    this.#old.clear()
    for (const region of this.#ahead) if (!this.#kept.has(region)) this.#takeBack(region)
    this.#ahead.clear()
    await this.flush()
  }

  // The file.

  /** On return every mark that was set before is durable. Callers that come while one flush runs share the next. */
  flush(): Promise<void> {
    if (this.#isGivenUp) return Promise.resolve()
    if (this.#queuedFlush !== undefined) return this.#queuedFlush
    const flush = this.#lastFlush.then(() => {
      this.#queuedFlush = undefined
      return this.#writeStale()
    })
    this.#queuedFlush = flush
    this.#lastFlush = flush.catch(() => undefined)
    return flush
  }

  /** On return the medium says which regions are pending, too: before a stop in order is written down, for the next start believes both. */
  async writeDown(): Promise<void> {
    this.#ahead.clear()
    for (let page = 0; page < pageCountOf(this.#header); page++) this.#stalePages.add(page)
    await this.flush()
  }

  /** Writes down which regions are pending, and closes. */
  async close(): Promise<void> {
    try {
      await this.writeDown()
    } finally {
      await this.#lastFlush
      await this.#file.close()
    }
  }

  /** Closes as it is: for a start that failed. */
  abandon(): Promise<void> {
    return this.#file.close()
  }

  async #writeStale(): Promise<void> {
    const pages = [...this.#stalePages].sort((a, b) => a - b)
    this.#stalePages.clear()
    if (pages.length === 0) return
    const written = pages.map(page => ({ page, marked: this.#markedOf(page) }))
    try {
      for (const run of runsOf(written.map(({ page, marked }) => ({ page, sector: this.#sectorOf(page, marked) }))))
        await this.#file.write(Buffer.concat(run.sectors), (1 + run.firstPage) * sectorSizeBytes)
      await this.#file.sync()
    } catch (error) {
      for (const page of pages) this.#stalePages.add(page)
      throw error
    }
    for (const { page, marked } of written) if (page !== headerPage) this.#noteDurable(page, marked)
  }

  /** What was written and is still marked: a mark that was taken back meanwhile is on the medium only until the next flush. */
  #noteDurable(page: number, written: Uint8Array): void {
    const now = this.#markedOf(page)
    this.#durable.addBytes(
      written.map((byte, at) => byte & now[at]!),
      page * pageBitmapSizeBytes,
    )
  }

  #sectorOf(page: number, marked: Uint8Array): Buffer {
    if (page === headerPage) return encodeHeader(this.#header)
    const pending = new Uint8Array(pageBitmapSizeBytes)
    mergeBytes(pending, partOf(this.#pending, page))
    return encodePage(this.#header.identity, page, { marked, pending })
  }

  #markedOf(page: number): Uint8Array {
    const marked = new Uint8Array(pageBitmapSizeBytes)
    if (page === headerPage) return marked
    for (const set of this.#marked) mergeBytes(marked, partOf(set, page))
    return marked
  }

  #markNeighbours(firstRegion: number, lastRegion: number): void {
    const groupRegionCount = this.#groupRegionCount
    const endRegion = alignUp(lastRegion + 1, groupRegionCount)
    for (let region = alignDown(firstRegion, groupRegionCount); region < endRegion; region++) this.#addAhead(region)
  }

  /** Writes that go from region to region find the next ones marked. Several connections may be a region out of order. */
  #followRun(firstRegion: number, lastRegion: number): void {
    if (lastRegion === this.#runRegion || (firstRegion < this.#runRegion && firstRegion >= this.#runRegion - 1)) return
    this.#runCount = firstRegion - this.#runRegion <= 1 && firstRegion >= this.#runRegion ? this.#runCount + 1 : 0
    this.#runRegion = lastRegion
    const aheadRegionCount = this.#aheadRegionCount
    const half = Math.min(this.regionCount - 1, lastRegion + Math.floor(aheadRegionCount / 2))
    if (this.#runCount < 2 || this.#durable.has(half) || this.#ahead.has(half)) return
    for (let ahead = 1; ahead <= aheadRegionCount; ahead++) this.#addAhead(lastRegion + ahead)
    this.flush().catch(() => undefined) // a write that comes to one of them finds that its mark is not durable
  }

  #addAhead(region: number): void {
    if (region >= this.regionCount || this.#durable.has(region)) return
    if (this.#new.has(region) || this.#pending.has(region)) return
    this.#ahead.add(region)
    this.#stalePages.add(Math.floor(region / regionsPerPage))
  }

  #takeBack(region: number): void {
    this.#durable.delete(region)
    this.#stalePages.add(Math.floor(region / regionsPerPage))
  }

  get #marked(): readonly Bitmap[] {
    return [this.#old, this.#new, this.#pending, this.#ahead, this.#kept]
  }

  #addPending(region: number): void {
    const claim = this.#claims.get(region)
    if (claim !== undefined) claim.again = true
    this.#pending.add(region)
    if (!this.#durable.has(region)) this.#stalePages.add(Math.floor(region / regionsPerPage))
  }

  #regionsOf(offsetBytes: number, lengthBytes: number): [first: number, last: number] {
    const size = this.regionSizeBytes
    return [Math.floor(offsetBytes / size), Math.floor((offsetBytes + Math.max(1, lengthBytes) - 1) / size)]
  }
}

const headerPage = -1

function regionCountOf({ volumeSizeBytes, regionSizeBytes }: MapHeader): number {
  return Math.ceil(volumeSizeBytes / regionSizeBytes)
}

function partOf(set: Bitmap, page: number): Uint8Array {
  return set.bytes.subarray(page * pageBitmapSizeBytes, (page + 1) * pageBitmapSizeBytes)
}

/** Neighbouring sectors are written by one call. */
function runsOf(
  written: readonly { readonly page: number; readonly sector: Buffer }[],
): { readonly firstPage: number; readonly sectors: Buffer[] }[] {
  const runs: { firstPage: number; sectors: Buffer[] }[] = []
  for (const { page, sector } of written) {
    const run = runs.at(-1)
    if (run !== undefined && page === run.firstPage + run.sectors.length) run.sectors.push(sector)
    else runs.push({ firstPage: page, sectors: [sector] })
  }
  return runs
}

function readMap(contents: Buffer, volumeSizeBytes: number): FoundMap | undefined {
  const header = decodeHeader(contents.subarray(0, sectorSizeBytes))
  if (header === undefined || header.volumeSizeBytes !== volumeSizeBytes) return undefined
  if (header.regionSizeBytes !== regionSizeBytesFor(volumeSizeBytes)) return undefined
  const [marked, pending] = [new Bitmap(regionCountOf(header)), new Bitmap(regionCountOf(header))]
  const everything = new Uint8Array(pageBitmapSizeBytes).fill(255)
  let damagedPageCount = 0
  for (let page = 0; page < pageCountOf(header); page++) {
    const at = (1 + page) * sectorSizeBytes
    const found = decodePage(contents.subarray(at, at + sectorSizeBytes), header.identity, page)
    if (found === undefined) damagedPageCount++
    marked.addBytes(found?.marked ?? everything, page * pageBitmapSizeBytes)
    pending.addBytes(found?.pending ?? everything, page * pageBitmapSizeBytes)
  }
  return { header, marked, pending, damagedPageCount }
}
