import type { Aging } from '../aging/aging.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import type { PositionVector, VpgId } from '../base/ids.ts'
import { hashImageIdleMillis, hashImagesOpenMax, hashImageTurnMillis } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import type { BlockHashes, OpenHashes } from '../ingest/ingest.ts'
import type { HashRequest } from '../wire/messages.ts'
import type { Exports, ImageThread } from './exports.ts'

export interface HashesParts {
  readonly clock: Clock
  readonly aging: Pick<Aging, 'openReading' | 'closeImage' | 'noteCompared'>
  /** Open a moment later than agents are served. */
  readonly images: () => Pick<Exports, 'openThread'> | undefined
}

/**
 * Answers agents that ask what the VRA has, from images in the thread that reads them. Few are open at a time, for each takes memory and keeps files of
 * the log: one that nobody asks is closed, and one that others wait for has its turn, no more. The next question opens another.
 */
export class Hashes implements BlockHashes {
  readonly #parts: HashesParts
  readonly #permits = new Permits(hashImagesOpenMax)

  constructor(parts: HashesParts) {
    this.#parts = parts
  }

  open(vpg: VpgId, positions: () => PositionVector): OpenHashes {
    return new Reading(this.#parts, this.#permits, { vpg, positions })
  }
}

class Reading implements OpenHashes {
  readonly #parts: HashesParts
  readonly #permits: Permits
  readonly #of: { readonly vpg: VpgId; readonly positions: () => PositionVector }
  /** Of these it was noted that they are compared. */
  readonly #noted = new Set<number>()
  #closed = false
  #image: OpenImage | undefined

  constructor(
    parts: HashesParts,
    permits: Permits,
    of: { readonly vpg: VpgId; readonly positions: () => PositionVector },
  ) {
    this.#parts = parts
    this.#permits = permits
    this.#of = of
  }

  async hashesOf(request: HashRequest): Promise<Uint8Array> {
    let image: OpenImage | undefined
    try {
      await this.#note(request.volume)
      if (this.#closed) throw new Failure('CLOSING', 'the session has ended')
      image = this.#image ??= this.#openImage()
      const hashes = await image.hashesOf(request)
      if (this.#permits.waitingCount > 0 && image.ageMillis >= hashImageTurnMillis) image.close()
      return hashes
    } catch (error) {
      if (failedWith(error, 'OBJECT_CORRUPT') || failedWith(error, 'RECORD_CORRUPT')) throw error
      image?.close() // Not these blocks but the image is lost, or was not opened: the next question opens another.
      if (error instanceof Failure) throw error
      throw new Failure('PEER_LOST', `the blocks could not be read: ${String(error)}`, {}, { cause: error })
    }
  }

  close(): void {
    this.#closed = true
    this.#image?.close()
  }

  /** An image that was opened before that may lack what was handed over since. */
  async #note(volume: number): Promise<void> {
    if (this.#noted.has(volume)) return
    await this.#parts.aging.noteCompared({ vpg: this.#of.vpg, volume })
    this.#image?.close() // Also where it was noted before: a commit that was given up waiting for may have counted.
    this.#noted.add(volume)
  }

  #openImage(): OpenImage {
    const image = new OpenImage(this.#parts, this.#permits, this.#of, () => {
      if (this.#image === image) this.#image = undefined
    })
    return image
  }
}

interface Opened {
  readonly id: string
  readonly thread: ImageThread
}

/** One image, from the wait for its permit until everything that it held is given back. */
class OpenImage {
  readonly #parts: HashesParts
  readonly #of: { readonly vpg: VpgId; readonly positions: () => PositionVector }
  readonly #over = new AbortController()
  readonly #opened: Promise<Opened>
  readonly #onClose: () => void
  #openedAtMillis = Infinity
  #takeBackIdle: (() => void) | undefined

  constructor(
    parts: HashesParts,
    permits: Permits,
    of: { readonly vpg: VpgId; readonly positions: () => PositionVector },
    onClose: () => void,
  ) {
    this.#parts = parts
    this.#of = of
    this.#onClose = onClose
    this.#opened = new Promise((resolve, reject) => {
      permits.with(() => this.#whileOpen(resolve)).catch(reject)
    })
    this.#opened.catch(() => undefined) // whoever asks hears of it
  }

  /** Since it was opened; negative before. */
  get ageMillis(): number {
    return this.#parts.clock.monotonicMillis() - this.#openedAtMillis
  }

  async hashesOf({ volume, offsetBytes, blockSizeBytes, blockCount }: HashRequest): Promise<Uint8Array> {
    const { id, thread } = await this.#opened
    this.#takeBackIdle?.()
    try {
      return await thread.client.call('hashBlocks', { id, volume, offsetBytes, blockSizeBytes, blockCount })
    } finally {
      if (!this.#over.signal.aborted)
        this.#takeBackIdle = this.#parts.clock.after(hashImageIdleMillis, () => this.close())
    }
  }

  /** Gives back all that it holds, soon. Questions under way may still be answered. */
  close(): void {
    this.#takeBackIdle?.()
    this.#over.abort()
    this.#onClose()
  }

  async #whileOpen(resolve: (image: Opened) => void): Promise<void> {
    const { aging, images, clock } = this.#parts
    const { vpg, positions } = this.#of
    if (this.#over.signal.aborted) throw new Failure('CLOSING', 'the session has ended')
    const thread = await images()?.openThread()
    if (thread === undefined) throw new Failure('BUSY', 'the daemon is starting')
    const plan = await aging.openReading({ vpg, positions: positions() })
    const id = plan.pinId
    try {
      await thread.client.call('openHashes', { id, plan })
      try {
        this.#openedAtMillis = clock.monotonicMillis()
        resolve({ id, thread })
        await aborted(this.#over.signal)
      } finally {
        await thread.client.call('closeHashes', { id }).catch(() => undefined) // the thread has ended: so has the image
      }
    } finally {
      await aging.closeImage({ vpg, pinId: id }).catch(() => undefined) // it was held in memory alone
    }
  }
}

/** Returns when nobody needs the image any more. */
function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
}
