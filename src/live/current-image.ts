import type { ImagePlan } from '../aging/service.ts'
import { Failure } from '../base/failure.ts'
import { MiB } from '../base/units.ts'
import type { Checkpoint, CheckpointVolume } from '../timeline/checkpoint.ts'
import type { Image, PieceSink, SpoolableImage, Spooled, VolumeRange, VolumeRun } from '../image/image.ts'

interface Held {
  readonly image: SpoolableImage
  readonly plan: ImagePlan
  /** Ends the spooling. */
  readonly abort: AbortController
  userCount: number
  onIdle: (() => void) | undefined
  /** From when a spool is being made; undefined again where there was no room for it. */
  spooling: Promise<Spooled | undefined> | undefined
  /** So much must reads have wasted before one is tried. */
  wastedSizeBytesMin: number
}

/** Makes a spool of what the image's plan has not folded; see image/spool.ts. */
export type MakeSpool = (image: SpoolableImage, plan: ImagePlan, signal: AbortSignal) => Promise<Spooled | undefined>

/**
 * When reads have decompressed for nothing this share of all that is not folded, a spool is made: it costs about as much as decompressing all of it once and
 * writing it, so that who reads little pays for little, and who reads on pays hardly more than once.
 */
const wastedShareMax = 1 / 16
const wastedSizeBytesMin = 32 * MiB

/**
 * An image that can be replaced by another one of the same bytes while it is read: the log gets its files back, the store its garbage. Where reads find
 * what is not folded spread over batches, they have a spool of it made, and go on meanwhile.
 */
export class CurrentImage implements Image {
  readonly #makeSpool: MakeSpool
  #held: Held | undefined

  constructor(image: SpoolableImage, plan: ImagePlan, makeSpool: MakeSpool) {
    this.#makeSpool = makeSpool
    this.#held = hold(image, plan)
  }

  /** Resolves when nobody reads the one before any more. */
  async replace(image: SpoolableImage, plan: ImagePlan): Promise<void> {
    const before = this.#held
    if (before === undefined) return
    this.#held = hold(image, plan)
    await letGo(before)
  }

  /** Nothing is read by it any more, and what it keeps in memory and on the disk goes: further calls fail CLOSING. */
  async drop(): Promise<void> {
    const before = this.#held
    this.#held = undefined
    if (before !== undefined) await letGo(before)
  }

  get checkpoint(): Checkpoint {
    return this.#current().image.checkpoint
  }

  get volumes(): readonly CheckpointVolume[] {
    return this.#current().image.volumes
  }

  read(volume: number, offsetBytes: number, target: Uint8Array, signal: AbortSignal): Promise<void> {
    return this.#using(image => image.read(volume, offsetBytes, target, signal))
  }

  scatter(volume: number, range: VolumeRange, sink: PieceSink, signal: AbortSignal): Promise<void> {
    return this.#using(image => image.scatter(volume, range, sink, signal))
  }

  nextData(volume: number, range: VolumeRange, signal: AbortSignal): Promise<number> {
    return this.#using(image => image.nextData(volume, range, signal))
  }

  runAt(volume: number, range: VolumeRange, signal: AbortSignal): Promise<VolumeRun> {
    return this.#using(image => image.runAt(volume, range, signal))
  }

  prefetch(volume: number, range: VolumeRange, signal: AbortSignal): Promise<void> {
    return this.#using(image => image.prefetch(volume, range, signal))
  }

  async *extents(volume: number, signal: AbortSignal): AsyncGenerator<VolumeRange> {
    const held = this.#take()
    try {
      yield* held.image.extents(volume, signal)
    } finally {
      giveBack(held)
    }
  }

  async #using<T>(work: (image: Image) => Promise<T>): Promise<T> {
    const held = this.#take()
    try {
      return await work(held.image)
    } finally {
      this.#spoolWhereWorthwhile(held)
      giveBack(held)
    }
  }

  #spoolWhereWorthwhile(held: Held): void {
    const { image, plan, abort } = held
    const { wastedSizeBytes } = image
    if (held.spooling !== undefined || abort.signal.aborted || wastedSizeBytes < held.wastedSizeBytesMin) return
    if (wastedSizeBytes < wastedShareMax * image.unfoldedSizeBytes) return
    const made = this.#makeSpool(image, plan, abort.signal).then(spooled => {
      // Others are being made, or have the room: who reads on has another look when it is worth twice as much.
      if (spooled === undefined) Object.assign(held, { spooling: undefined, wastedSizeBytesMin: 2 * wastedSizeBytes })
      return spooled
    })
    held.spooling = made.catch(() => undefined) // what is damaged, a read of it says
  }

  #take(): Held {
    const held = this.#current()
    held.userCount++
    return held
  }

  #current(): Held {
    if (this.#held === undefined) throw new Failure('CLOSING', 'the image is needed no more')
    return this.#held
  }
}

function hold(image: SpoolableImage, plan: ImagePlan): Held {
  const nothingYet = { userCount: 0, onIdle: undefined, spooling: undefined, wastedSizeBytesMin }
  return { image, plan, abort: new AbortController(), ...nothingYet }
}

async function letGo(held: Held): Promise<void> {
  held.abort.abort(new Failure('CLOSING', 'the image is needed no more'))
  if (held.userCount > 0) await new Promise<void>(resolve => (held.onIdle = resolve))
  const spooled = await held.spooling
  await spooled?.close()
}

function giveBack(held: Held): void {
  held.userCount--
  if (held.userCount === 0) held.onIdle?.()
}
