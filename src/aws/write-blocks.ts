import { createHash } from 'node:crypto'
import { onAbort } from '../base/abort.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { ebsBlockSizeBytes, spoolSizeBytesMin } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { isZero } from '../codec/zeros.ts'
import { spoolImage, type SpoolableImage, type Spooled, type SpoolOptions, type VolumeRange } from '../image/image.ts'
import { mayPass, type Attempts } from './attempts.ts'
import { blocksByWindow, type BlockSet, type WindowBlocks } from './block-set.ts'
import { isThrottle } from './failures.ts'
import type { Pace } from './pace.ts'
import type { Putters } from './putters.ts'
import type { Window, Windows } from './windows.ts'

// From an image into a snapshot that is open: blocks of the image, window by window, ascending.
//
//   ranges ─> blocks of a window ─> read into its memory ─> zeros that need not be? left out ─> put, many at once
//                                                                                            └─> digest, in order ─> LINEAR checksum
//
// Much that no delta holds is put by place first (a spool), in one pass: it lies by time, and every window would read all of it.
//
// A window is filled while others are put; its memory is free when all of its blocks are. What fails ends all of it: whoever comes next puts every block
// once more, which EBS takes as overwriting, so that count and checksum are always those of one run.

export interface WriteTools {
  readonly clock: Clock
  readonly attempts: Attempts
  readonly putters: Putters
  readonly windows: Windows
  readonly spool: SpoolOptions
  /** One is made after the other: each is a pass over all that is unfolded, and whoever went without would make such a pass for every window. */
  readonly spoolPermit: Permits
  /** Of the account; every snapshot has its own beside it. */
  readonly accountPace: Pace
  readonly newPace: () => Pace
}

export interface BlocksToWrite {
  readonly snapshot: string
  readonly image: SpoolableImage
  readonly volume: number
  readonly sizeBytes: number
  /** Ascending: what may differ from the parent; without a parent, what may be no zeros. */
  readonly ranges: AsyncIterable<VolumeRange>
  /** Blocks of zeros are put only here. */
  readonly parentBlocks: BlockSet | undefined
  /** Of the range's end, in bytes of the volume. */
  readonly onProgress: (doneBytes: number) => void
}

export interface Written {
  readonly blockCount: number
  /** LINEAR: the SHA-256 of the blocks' digests, ascending by index; base64. */
  readonly checksum: string
}

/** A new snapshot is unknown to some of EBS's partitions for up to two minutes. */
export const unseenMillisMax = 150_000
/** So long a put is tried while AWS does not answer: what hundreds of others have put is worth it. */
const unansweredMillisMax = 300_000
/** Above this share of a window it is read in one go, not block by block. */
const denseShare = 1 / 8
const readsAtOnce = 8
const spoolTurnMillis = 200
const spoolWaitMillisMax = 120_000
/** A block whose checksum did not fit was damaged on the way, once; twice is no accident. */
const damagedAttemptsMax = 3

export async function writeBlocks(blocks: BlocksToWrite, tools: WriteTools, signal: AbortSignal): Promise<Written> {
  return await new BlockWriter(blocks, tools).run(signal)
}

class BlockWriter {
  readonly #blocks: BlocksToWrite
  readonly #tools: WriteTools
  readonly #pace: Pace
  readonly #startedMillis: number
  readonly #failing = new AbortController()
  readonly #hash = createHash('sha256')
  #blockCount = 0
  /** Ends when the digests of all blocks so far are in the hash. */
  #hashed: Promise<void> = Promise.resolve()

  constructor(blocks: BlocksToWrite, tools: WriteTools) {
    this.#blocks = blocks
    this.#tools = tools
    this.#pace = tools.newPace()
    this.#startedMillis = tools.clock.monotonicMillis()
  }

  async run(signal: AbortSignal): Promise<Written> {
    signal.throwIfAborted()
    const forget = onAbort(signal, () => this.#failing.abort(signal.reason))
    let abandoned: Promise<void> = Promise.resolve()
    onAbort(this.#failing.signal, () => (abandoned = this.#tools.putters.abandon(this.#blocks.snapshot)))
    const windows: Promise<void>[] = []
    let spooled: Spooled | undefined
    try {
      spooled = await this.#spool()
      for await (const window of blocksByWindow(this.#blocks.ranges)) {
        const memory = await this.#tools.windows.take()
        if (this.#failing.signal.aborted) {
          memory.release()
          break
        }
        const put = await this.#fill(window, memory)
        const { firstBlock, blocks } = window
        const settled = Promise.all(put).then(
          () => this.#blocks.onProgress(((blocks.at(-1) ?? firstBlock) + 1) * ebsBlockSizeBytes),
          (error: unknown) => this.#failing.abort(error),
        )
        windows.push(Promise.allSettled([settled, ...put]).then(() => memory.release()))
      }
    } catch (error) {
      this.#failing.abort(error)
    } finally {
      await Promise.all([abandoned, ...windows])
      await this.#hashed
      await spooled?.close()
      forget()
    }
    if (this.#failing.signal.aborted) throw this.#failing.signal.reason
    return { blockCount: this.#blockCount, checksum: this.#hash.digest('base64') }
  }

  async #spool(): Promise<Spooled | undefined> {
    const { image, volume } = this.#blocks
    if (image.unfoldedSizeBytes < spoolSizeBytesMin) return undefined
    const { clock, spool, spoolPermit } = this.#tools
    const { signal } = this.#failing
    return await spoolPermit.with(async () => {
      // With those of disks that are served. Who waits in vain goes on without one.
      const endMillis = clock.monotonicMillis() + spoolWaitMillisMax
      while (spool.room.isBusy && clock.monotonicMillis() < endMillis) await clock.sleep(spoolTurnMillis, signal)
      return await spoolImage(image, new Set([volume]), spool, signal)
    })
  }

  /** Reads the window's blocks and begins to put them. */
  async #fill({ firstBlock, blocks }: WindowBlocks, memory: Window): Promise<Promise<void>[]> {
    const begun: Promise<void>[] = []
    try {
      await this.#read(firstBlock, blocks, memory.bytes)
    } catch (error) {
      memory.release()
      throw error
    }
    for (const index of blocks) {
      const bytes = memory.bytes.subarray(
        (index - firstBlock) * ebsBlockSizeBytes,
        (index - firstBlock + 1) * ebsBlockSizeBytes,
      )
      if (isZero(bytes) && this.#blocks.parentBlocks?.has(index) !== true) continue
      const digest = this.#put(index, memory.firstSlot + index - firstBlock)
      this.#blockCount++
      const before = this.#hashed
      this.#hashed = (async () => {
        await before
        const known = await digest.catch(() => undefined) // the failure is told by the window
        if (known !== undefined) this.#hash.update(known)
      })()
      begun.push(digest.then(() => undefined))
    }
    return begun
  }

  async #read(firstBlock: number, blocks: readonly number[], into: Uint8Array): Promise<void> {
    const { image, volume, sizeBytes } = this.#blocks
    const { signal } = this.#failing
    const [first, last] = [blocks[0]!, blocks.at(-1)!]
    const windowStartBytes = firstBlock * ebsBlockSizeBytes
    const startBytes = first * ebsBlockSizeBytes
    const endBytes = Math.min((last + 1) * ebsBlockSizeBytes, sizeBytes)
    const whole = into.subarray(startBytes - windowStartBytes, (last + 1) * ebsBlockSizeBytes - windowStartBytes)
    clear(whole) // a volume's tail is zeros up to the block's end
    if (blocks.length > denseShare * (into.length / ebsBlockSizeBytes)) {
      const piece = (offsetBytes: number, bytes: Uint8Array): void => whole.set(bytes, offsetBytes - startBytes)
      await image.scatter(volume, { startBytes, endBytes }, { piece, progress: () => undefined }, signal)
      return
    }
    const permits = new Permits(readsAtOnce)
    const reading = blocks.map(index =>
      permits.with(async () => {
        const offsetBytes = index * ebsBlockSizeBytes
        const length = Math.min(ebsBlockSizeBytes, sizeBytes - offsetBytes)
        const at = offsetBytes - windowStartBytes
        await image.read(volume, offsetBytes, into.subarray(at, at + length), signal)
      }),
    )
    const results = await Promise.allSettled(reading)
    const failed = results.find(result => result.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  async #put(index: number, slot: number): Promise<Uint8Array> {
    const { attempts, accountPace, putters, clock } = this.#tools
    const { signal } = this.#failing
    const { snapshot } = this.#blocks
    const attempt = async (): Promise<Uint8Array> => {
      await this.#pace.take(signal)
      await accountPace.take(signal)
      return await putters.put({ snapshot, index, slot })
    }
    let firstFailureMillis: number | undefined
    const mayRepeat = (failure: Failure, count: number): boolean => {
      firstFailureMillis ??= clock.monotonicMillis()
      if (isThrottle(failure))
        (failure.details['reason'] === 'RESOURCE_LEVEL_THROTTLE' ? this.#pace : accountPace).slower()
      if (mayPass(failure, count)) return true
      if (failure.code === 'CLOUD_UNAVAILABLE' && !isThrottle(failure))
        return clock.monotonicMillis() - firstFailureMillis < unansweredMillisMax
      if (failure.code === 'NOT_FOUND') return clock.monotonicMillis() - this.#startedMillis < unseenMillisMax
      return failure.details['reason'] === 'INVALID_BLOCK' && count < damagedAttemptsMax
    }
    try {
      return await attempts.repeat(attempt, mayRepeat, 'wait', signal)
    } catch (error) {
      if (!this.#failing.signal.aborted) this.#failing.abort(error)
      throw error
    }
  }
}

const zeroBlock = new Uint8Array(ebsBlockSizeBytes)

/** As fill(0) does, which on memory that threads share takes ten times as long. */
function clear(blocks: Uint8Array): void {
  for (let at = 0; at < blocks.length; at += ebsBlockSizeBytes) blocks.set(zeroBlock, at)
}
