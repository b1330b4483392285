import { assert } from '../base/assert.ts'
import { RangeLock } from '../base/range-lock.ts'
import { alignDown, alignUp, KiB } from '../base/units.ts'
import type { Image } from '../image/image.ts'
import type { NbdExport, NbdExtent, NbdWriteOptions, NbdZeroOptions } from '../nbd/nbd.ts'
import type { BlockRun } from './block-map.ts'
import type { KeptDisk } from './kept-disk.ts'
import type { Overlay } from './overlay.ts'
import type { ReadAhead } from './read-ahead.ts'

export interface LiveDiskOptions {
  readonly name: string
  readonly description: string
  readonly sizeBytes: number
  readonly volume: number
  readonly image: Image
  /** Undefined: the disk is read-only. */
  readonly overlay: Overlay | undefined
  readonly readAhead: ReadAhead
  /** Aborted when nobody may wait for the image any more. */
  readonly signal: AbortSignal
}

/** An answer to a question for extents ends after this many, or when it has looked at so many regions' worth: the client asks again. */
const extentCountMax = 1024
const imageLooksMax = 4096
/** What a commit brings of the image at once; of that nothing but zeros is a hole. */
const copyUpSizeBytes = 64 * KiB

/**
 * A volume as of a checkpoint as a disk: what was written to it lies in the overlay, over the image. Writes that touch the same block follow
 * one another; all others run at once. A read sees every write that was answered before it came.
 */
export class LiveDisk implements NbdExport {
  readonly name: string
  readonly description: string
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly #volume: number
  readonly #image: Image
  readonly #overlay: Overlay | undefined
  readonly #readAhead: ReadAhead
  readonly #signal: AbortSignal
  readonly #locks = new RangeLock()
  #isKeeping = false
  /** From when it is a file of its own. */
  #kept: KeptDisk | undefined

  constructor(options: LiveDiskOptions) {
    this.name = options.name
    this.description = options.description
    this.sizeBytes = options.sizeBytes
    this.readOnly = options.overlay === undefined
    this.#volume = options.volume
    this.#image = options.image
    this.#overlay = options.overlay
    this.#readAhead = options.readAhead
    this.#signal = options.signal
  }

  async read(offsetBytes: number, target: Uint8Array): Promise<void> {
    await this.#look(
      () => this.#readLive(offsetBytes, target),
      kept => kept.read(offsetBytes, target),
    )
  }

  /** By `live`; where that fails because the disk has become a file of its own meanwhile, and the image has gone, by `kept`. */
  async #look<T>(live: () => Promise<T>, kept: (disk: KeptDisk) => Promise<T>): Promise<T> {
    const before = this.#kept
    if (before !== undefined) return await kept(before)
    try {
      return await live()
    } catch (error) {
      const since = this.#keptNow()
      if (since === undefined) throw error
      return await kept(since)
    }
  }

  #keptNow(): KeptDisk | undefined {
    return this.#kept
  }

  async #readLive(offsetBytes: number, target: Uint8Array): Promise<void> {
    const overlay = this.#overlay
    if (overlay === undefined) return this.#readImage(offsetBytes, target)
    const endBytes = offsetBytes + target.length
    const runs = [...this.#runsOf(overlay, offsetBytes, endBytes)]
    const [only] = runs
    if (runs.length === 1 && only!.kind === 'image') return this.#readImage(offsetBytes, target)
    await this.#readData(overlay, runs, offsetBytes, target)
    for (const run of runs) {
      if (run.kind === 'data') continue
      const from = Math.max(offsetBytes, run.firstBlock * overlay.blockSizeBytes)
      const to = Math.min(endBytes, run.endBlock * overlay.blockSizeBytes)
      const part = target.subarray(from - offsetBytes, to - offsetBytes)
      if (run.kind === 'zero') part.fill(0)
      else await this.#readImage(from, part)
    }
  }

  /** In one read, from the first block that is data to the last: what lies between is put right afterwards. */
  async #readData(overlay: Overlay, runs: readonly BlockRun[], offsetBytes: number, target: Uint8Array): Promise<void> {
    const first = runs.find(({ kind }) => kind === 'data')
    const last = runs.findLast(({ kind }) => kind === 'data')
    if (first === undefined || last === undefined) return
    const from = Math.max(offsetBytes, first.firstBlock * overlay.blockSizeBytes)
    const to = Math.min(offsetBytes + target.length, last.endBlock * overlay.blockSizeBytes)
    await overlay.readData(target.subarray(from - offsetBytes, to - offsetBytes), from)
  }

  async #readImage(offsetBytes: number, target: Uint8Array): Promise<void> {
    this.#readAhead.noteRead(offsetBytes, target.length)
    await this.#image.read(this.#volume, offsetBytes, target, this.#signal)
  }

  #runsOf(overlay: Overlay, offsetBytes: number, endBytes: number): Iterable<BlockRun> {
    const { blockSizeBytes } = overlay
    return overlay.map.runs(Math.floor(offsetBytes / blockSizeBytes), Math.ceil(endBytes / blockSizeBytes))
  }

  async write(offsetBytes: number, data: Uint8Array, options: NbdWriteOptions): Promise<void> {
    await this.#change(
      { offsetBytes, lengthBytes: data.length },
      overlay => this.#put(overlay, offsetBytes, data),
      kept => kept.write(offsetBytes, data, { fua: false }),
    )
    if (options.fua) await this.flush()
  }

  async zero(offsetBytes: number, lengthBytes: number, options: NbdZeroOptions): Promise<void> {
    const room = options.mayTrim ? 'as-it-is' : 'kept'
    await this.#change(
      { offsetBytes, lengthBytes },
      overlay => this.#putZeros(overlay, offsetBytes, lengthBytes, room),
      kept => kept.zero(offsetBytes, lengthBytes, { fua: false }),
    )
    if (options.fua) await this.flush()
  }

  /** A range that is needed no more reads as zeros: what the image has there need not be brought again. */
  async trim(offsetBytes: number, lengthBytes: number, options: NbdWriteOptions): Promise<void> {
    await this.zero(offsetBytes, lengthBytes, { ...options, mayTrim: true })
  }

  async flush(): Promise<void> {
    await (this.#kept ?? this.#overlay)?.flush()
  }

  /**
   * The overlay's blocks are data or zeros; what is the image's is asked of its index. Cheap where the regions asked about were read before, and
   * bounded where not.
   */
  async blockStatus(offsetBytes: number, lengthBytes: number): Promise<readonly NbdExtent[]> {
    return await this.#look(
      () => this.#liveStatus(offsetBytes, lengthBytes),
      kept => kept.blockStatus(offsetBytes, lengthBytes),
    )
  }

  async #liveStatus(offsetBytes: number, lengthBytes: number): Promise<readonly NbdExtent[]> {
    const extents: NbdExtent[] = []
    const endBytes = offsetBytes + lengthBytes
    const looks = { left: imageLooksMax }
    for (let at = offsetBytes; at < endBytes && extents.length < extentCountMax && looks.left > 0;) {
      const overlay = this.#overlay
      const run = overlay?.map.runAt(
        Math.floor(at / overlay.blockSizeBytes),
        Math.ceil(endBytes / overlay.blockSizeBytes),
      )
      const runEnd =
        overlay === undefined || run === undefined
          ? endBytes
          : Math.min(endBytes, run.endBlock * overlay.blockSizeBytes)
      if (run === undefined || run.kind === 'image') {
        at = await this.#tellImage(at, runEnd, extents, looks)
      } else {
        const kind = run.kind === 'data' ? 'data' : run.takesRoom ? 'zero' : 'hole'
        extents.push({ lengthBytes: runEnd - at, kind })
        at = runEnd
      }
    }
    return extents
  }

  /** Returns how far it has told. */
  async #tellImage(at: number, endBytes: number, extents: NbdExtent[], looks: { left: number }): Promise<number> {
    while (at < endBytes && looks.left-- > 0 && extents.length < extentCountMax) {
      const found = await this.#image.runAt(this.#volume, { startBytes: at, endBytes }, this.#signal)
      extents.push({ lengthBytes: found.endBytes - at, kind: found.isData ? 'data' : 'hole' })
      at = found.endBytes
    }
    return at
  }

  /** From here on what is zeroed is so in the data file, too: what was materialised stays it. */
  beginKeeping(): void {
    this.#isKeeping = true
  }

  /**
   * All of it was materialised: from here on the data file alone is the disk, which `publish` returns. It runs while no change of the disk does:
   * one of a part of a block writes all of the block, and would undo another one that knows of no blocks. Where it returns undefined nothing
   * becomes of it.
   */
  async becomeKept(publish: () => Promise<KeptDisk | undefined>): Promise<'kept' | 'not-yet'> {
    assert(this.#isKeeping, 'it was materialised')
    const overlay = this.#writable()
    await this.#locked(overlay, 0, this.sizeBytes, async () => {
      this.#kept = await publish()
    })
    return this.#kept === undefined ? 'not-yet' : 'kept'
  }

  /**
   * On return the data file has the bytes of the disk in the range, as if all of it had been written; what reads as zeros stays a hole there. The
   * range is locked meanwhile. Returns how many bytes were brought from the image.
   */
  async materialise(offsetBytes: number, lengthBytes: number): Promise<number> {
    const overlay = this.#writable()
    let copiedSizeBytes = 0
    await this.#locked(overlay, offsetBytes, lengthBytes, async () => {
      const endBytes = Math.min(this.sizeBytes, offsetBytes + lengthBytes)
      for (const run of [...this.#runsOf(overlay, offsetBytes, endBytes)]) {
        if (run.kind === 'data') continue
        const from = Math.max(offsetBytes, run.firstBlock * overlay.blockSizeBytes)
        const to = Math.min(endBytes, run.endBlock * overlay.blockSizeBytes)
        if (run.kind === 'image') copiedSizeBytes += await this.#copyUp(overlay, from, to)
        else if (run.takesRoom || overlay.isStale) await overlay.clear(from, to - from)
      }
    })
    return copiedSizeBytes
  }

  /** In pieces of whole blocks: those in which the image has nothing stay holes. */
  async #copyUp(overlay: Overlay, startBytes: number, endBytes: number): Promise<number> {
    const pieceSizeBytes = Math.max(copyUpSizeBytes, overlay.blockSizeBytes)
    let copiedSizeBytes = 0
    for (let at = startBytes; at < endBytes;) {
      const dataBytes = await this.#image.nextData(this.#volume, { startBytes: at, endBytes }, this.#signal)
      const from = dataBytes === endBytes ? endBytes : alignDown(dataBytes, overlay.blockSizeBytes)
      if (overlay.isStale && from > at) await overlay.clear(at, from - at)
      if (from === endBytes) break
      const to = Math.min(endBytes, from + pieceSizeBytes)
      const bytes = new Uint8Array(to - from)
      await this.#image.read(this.#volume, from, bytes, this.#signal)
      await overlay.copyUp(from, bytes)
      copiedSizeBytes += bytes.length
      at = to
    }
    return copiedSizeBytes
  }

  #writable(): Overlay {
    assert(this.#overlay !== undefined, 'the server writes to no read-only export')
    return this.#overlay
  }

  /** By `live`, or by `kept` where the disk is a file of its own by the time that it is its turn. */
  async #change(
    { offsetBytes, lengthBytes }: { readonly offsetBytes: number; readonly lengthBytes: number },
    live: (overlay: Overlay) => Promise<void>,
    kept: (disk: KeptDisk) => Promise<void>,
  ): Promise<void> {
    if (this.#kept !== undefined) return kept(this.#kept)
    const overlay = this.#writable()
    await this.#locked(overlay, offsetBytes, lengthBytes, () =>
      this.#kept === undefined ? live(overlay) : kept(this.#kept),
    )
  }

  /** Runs while no other change of the blocks that the range touches does. */
  async #locked(overlay: Overlay, offsetBytes: number, lengthBytes: number, work: () => Promise<void>): Promise<void> {
    const startBytes = alignDown(offsetBytes, overlay.blockSizeBytes)
    const endBytes = alignUp(offsetBytes + lengthBytes, overlay.blockSizeBytes)
    const hold = this.#locks.acquire(startBytes, endBytes)
    try {
      if (hold.granted !== undefined) await hold.granted
      await work()
    } finally {
      hold.release()
    }
  }

  /** Blocks of which only a part is written, and that are not the overlay's, are completed with what the disk has there. */
  async #put(overlay: Overlay, offsetBytes: number, data: Uint8Array): Promise<void> {
    const { blockSizeBytes } = overlay
    const endBytes = offsetBytes + data.length
    const blockStart = alignDown(offsetBytes, blockSizeBytes)
    const blockEnd = Math.min(this.sizeBytes, alignUp(endBytes, blockSizeBytes))
    const lacksHead = blockStart < offsetBytes && overlay.map.kindOf(blockStart / blockSizeBytes) !== 'data'
    const lacksTail = endBytes < blockEnd && overlay.map.kindOf(Math.floor(endBytes / blockSizeBytes)) !== 'data'
    if (!lacksHead && !lacksTail) return overlay.write(offsetBytes, data)
    const from = lacksHead ? blockStart : offsetBytes
    const to = lacksTail ? blockEnd : endBytes
    const whole = new Uint8Array(to - from)
    whole.set(data, offsetBytes - from)
    if (lacksHead) await this.#complete(overlay, from, whole.subarray(0, offsetBytes - from))
    if (lacksTail) await this.#complete(overlay, endBytes, whole.subarray(endBytes - from))
    await overlay.write(from, whole)
  }

  /** A part of one block that is not data: the image's bytes, or zeros. */
  async #complete(overlay: Overlay, offsetBytes: number, target: Uint8Array): Promise<void> {
    if (overlay.map.kindOf(Math.floor(offsetBytes / overlay.blockSizeBytes)) === 'image')
      await this.#image.read(this.#volume, offsetBytes, target, this.#signal)
  }

  async #putZeros(
    overlay: Overlay,
    offsetBytes: number,
    lengthBytes: number,
    room: 'as-it-is' | 'kept',
  ): Promise<void> {
    const { blockSizeBytes } = overlay
    const endBytes = offsetBytes + lengthBytes
    const wholeStart = alignUp(offsetBytes, blockSizeBytes)
    const wholeEnd =
      endBytes === this.sizeBytes ? alignUp(endBytes, blockSizeBytes) : alignDown(endBytes, blockSizeBytes)
    if (wholeStart > wholeEnd) return this.#putZeroBytes(overlay, offsetBytes, endBytes) // inside of one block
    await this.#putZeroBytes(overlay, offsetBytes, Math.min(wholeStart, endBytes))
    if (wholeStart < wholeEnd) {
      await overlay.zero(wholeStart / blockSizeBytes, wholeEnd / blockSizeBytes, room)
      if (this.#isKeeping) await overlay.clear(wholeStart, Math.min(wholeEnd, this.sizeBytes) - wholeStart)
    }
    await this.#putZeroBytes(overlay, Math.max(wholeStart, wholeEnd), endBytes)
  }

  async #putZeroBytes(overlay: Overlay, startBytes: number, endBytes: number): Promise<void> {
    if (startBytes >= endBytes || overlay.map.kindOf(Math.floor(startBytes / overlay.blockSizeBytes)) === 'zero') return
    await this.#put(overlay, startBytes, new Uint8Array(endBytes - startBytes))
  }
}
