import { Failure } from '../base/failure.ts'
import type { Checkpoint, CheckpointVolume } from '../timeline/checkpoint.ts'
import type { Image, PieceSink, VolumeRange, VolumeRun } from '../image/image.ts'

interface Held {
  readonly image: Image
  userCount: number
  onIdle: (() => void) | undefined
}

/** An image that can be replaced by another one of the same bytes while it is read: the log gets its files back, the store its garbage. */
export class CurrentImage implements Image {
  #held: Held | undefined

  constructor(image: Image) {
    this.#held = { image, userCount: 0, onIdle: undefined }
  }

  /** Resolves when nobody reads the one before any more. */
  async replace(image: Image): Promise<void> {
    const before = this.#held
    if (before === undefined) return
    this.#held = { image, userCount: 0, onIdle: undefined }
    if (before.userCount > 0) await new Promise<void>(resolve => (before.onIdle = resolve))
  }

  /** Nothing is read by it any more, and what it keeps in memory goes: further calls fail CLOSING. */
  drop(): void {
    this.#held = undefined
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
      giveBack(held)
    }
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

function giveBack(held: Held): void {
  held.userCount--
  if (held.userCount === 0) held.onIdle?.()
}
