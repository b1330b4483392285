import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import type { AgentEvents } from './events.ts'
import { PendingRecords, type QueuedFrame, type UnplacedMarker } from './pending-records.ts'
import type { SectorChange } from './volume.ts'

// The numbered records of all volumes and connections, from their number to their acknowledgement.
//
//   append ─> [ pending: numbered, raw ] ── seal ──> [ frames: sent ... | not sent ] ── acknowledge ──> gone
//
// Numbering is synchronous, so a marker stands between two writes and never inside one: everything numbered before it is in
// the checkpoint, nothing after it. Batches are sealed later, in order, but the numbers are already given. A frame is sent again
// byte for byte after a reconnect, so that the VRA, which stores frames whole, is never found inside one.
//
// A stream is exact inside a generation, or detached: then it numbers nothing and holds nothing, and the dirty maps keep account.

export type { QueuedFrame } from './pending-records.ts'

/** Its memory is used again when nobody holds it: the queue does until it is acknowledged, a connection until it has sent it. */
interface HeldFrame extends QueuedFrame {
  /** Infinite where its memory is not of the kind that is used again. */
  holderCount: number
}

export interface StreamOptions {
  readonly clock: Clock
  readonly events: AgentEvents
  readonly queueSizeBytesMax: number
  readonly batchDelayMillisMax: number
  /** Told, in the step that numbers, when the queue is past its bound. */
  readonly onOverflow: () => void
  /** Told when something has left the queue. */
  readonly onSmaller: () => void
}

/** Where an exact stream goes on. */
export interface StreamStart {
  readonly generation: number
  readonly lastNumbered: number
  readonly durable: number
  /** All that lies between the two. */
  readonly frames: readonly QueuedFrame[]
}

export class Stream {
  readonly #options: StreamOptions
  readonly #pending = new PendingRecords()
  #frames: HeldFrame[] = []
  #framesBytes = 0
  #sentCount = 0
  #generation = 0
  #lastNumbered = 0
  #lastWrite = 0
  #durable = 0
  #isExact = false
  /** Of markers that are not acknowledged, ascending. */
  #markerSequences: number[] = []
  #sealScheduled = false
  #takeBackTimer: (() => void) | undefined
  #onFrame: (() => void) | undefined

  constructor(options: StreamOptions) {
    this.#options = options
  }

  get generation(): number {
    return this.#generation
  }
  get lastNumbered(): number {
    return this.#lastNumbered
  }
  /** Of what changes a disk: a marker behind it may wait for the next write before it is offloaded. */
  get lastWrite(): number {
    return this.#lastWrite
  }
  get durable(): number {
    return this.#durable
  }
  get queuedBytes(): number {
    return this.#pending.bytes + this.#framesBytes
  }
  get queuedRecords(): number {
    return this.#isExact ? this.#lastNumbered - this.#durable : 0
  }
  /** True while every change of the attached disks gets a number. */
  get isExact(): boolean {
    return this.#isExact
  }

  /** Exact from here on. */
  begin({ generation, lastNumbered, durable, frames }: StreamStart): void {
    assert(!this.#isExact, 'a stream that is detached')
    this.#isExact = true
    this.#generation = generation
    this.#lastNumbered = this.#lastWrite = lastNumbered
    this.#durable = durable
    this.#frames = frames.map(frame => ({ ...frame, holderCount: Infinity }))
    this.#framesBytes = sizeOf(frames)
    this.#sentCount = 0
    this.#markerSequences = []
  }

  /** No more numbers, and the queue is gone. */
  detach(): void {
    this.#isExact = false
    this.#pending.clear()
    for (const frame of this.#frames) this.#release(frame)
    this.#frames = []
    this.#framesBytes = this.#sentCount = 0
    this.#takeTimerBack()
    this.#options.onSmaller()
  }

  /**
   * Numbers one write: its pieces are consecutive, with no marker between them. Returns how many records it became. Its data is copied; or
   * with `giveBack` it is lent until that is called, once, maybe within this call.
   */
  append(volume: number, changes: readonly SectorChange[], giveBack?: () => void): number {
    assert(this.#isExact, 'a stream that is exact')
    const before = this.#lastNumbered
    const timestampMicros = this.#options.clock.timestampMicros()
    this.#lastNumbered += this.#pending.addChanges(before + 1, volume, changes, timestampMicros, giveBack)
    this.#lastWrite = this.#lastNumbered
    const recordCount = this.#lastNumbered - before
    this.#afterNumbering()
    return recordCount
  }

  /** Numbers a marker: everything before it is in the checkpoint. */
  appendMarker(marker: UnplacedMarker): void {
    assert(this.#isExact, 'a stream that is exact')
    this.#pending.addMarker(++this.#lastNumbered, marker)
    this.#markerSequences.push(this.#lastNumbered)
    this.#afterNumbering()
  }

  /** Whether a marker up to this sequence may still be on its way. */
  hasMarkerThrough(sequence: number): boolean {
    return (this.#markerSequences[0] ?? Infinity) <= sequence
  }

  // The session's side.

  /**
   * A session begins: the VRA has everything up to `durable`. False where the queue cannot continue exactly there. `onFrame` is
   * called whenever there is something to send.
   */
  resume(durable: number, onFrame: () => void): boolean {
    if (this.#isExact) {
      const next =
        this.#frames.find(frame => frame.lastSequence > durable)?.firstSequence ?? this.#pending.firstSequence
      const continues = (next ?? this.#lastNumbered + 1) === durable + 1
      if (durable > this.#lastNumbered || durable < this.#durable || !continues) return false
      this.acknowledge(durable)
    }
    this.#sentCount = 0
    this.#onFrame = onFrame
    this.#planSeal()
    return true
  }

  /** The session has ended. */
  suspend(): void {
    this.#onFrame = undefined
    this.#sentCount = 0
    this.#takeTimerBack()
  }

  /** The next frame that this session has not sent. */
  nextFrame(): QueuedFrame | undefined {
    return this.#frames[this.#sentCount]
  }

  /** The frame that nextFrame() gave is on its way. Call what it returns when its bytes are not read any more, or never. */
  frameSent(): () => void {
    const frame = this.#frames[this.#sentCount]
    assert(frame !== undefined, 'a frame that nextFrame() gave')
    this.#sentCount++
    frame.holderCount++
    return () => this.#release(frame)
  }

  /** Everything up to `durable` is durable at the VRA. An acknowledgement inside a frame waits for the rest of the frame. */
  acknowledge(durable: number): void {
    if (!this.#isExact || durable <= this.#durable) return
    assert(durable <= this.#lastNumbered, 'only what has a number is acknowledged')
    this.#durable = durable
    while ((this.#markerSequences[0] ?? Infinity) <= durable) this.#markerSequences.shift()
    const kept = this.#frames.findIndex(frame => frame.lastSequence > durable)
    const gone = this.#frames.splice(0, kept === -1 ? this.#frames.length : kept)
    this.#framesBytes -= sizeOf(gone)
    for (const frame of gone) this.#release(frame)
    this.#sentCount = Math.max(0, this.#sentCount - gone.length)
    this.#options.events.acknowledged({ sequence: durable, queuedBytes: this.queuedBytes })
    this.#options.onSmaller()
    this.#planSeal()
  }

  /** Seals all that is pending, and returns every frame that is not acknowledged. */
  sealAll(): readonly QueuedFrame[] {
    this.#takeTimerBack()
    while (!this.#pending.isEmpty) this.#sealOne()
    return this.#frames
  }

  // Sealing.

  #afterNumbering(): void {
    if (this.queuedBytes > this.#options.queueSizeBytesMax) this.#options.onOverflow()
    else this.#planSeal()
  }

  /**
   * When the next batch is closed: as soon as this turn of the event loop is over when it is full or a marker waits; else after the
   * delay: a batch for each write would cost both sides, and the guests, more than the delay does. While there is no session only
   * full batches are closed.
   */
  #planSeal(): void {
    if (this.#pending.isEmpty || this.#sealScheduled) return
    const { clock, batchDelayMillisMax } = this.#options
    if (this.#pending.isWorthAFrame) {
      this.#takeTimerBack()
      this.#sealScheduled = true
      clock.after(0, () => this.#sealNow())
    } else if (this.#onFrame !== undefined) {
      this.#takeBackTimer ??= clock.after(batchDelayMillisMax, () => this.#sealNow())
    }
  }

  /** One batch a turn: compressing many at once would keep the guests waiting. */
  #sealNow(): void {
    this.#sealScheduled = false
    this.#takeTimerBack()
    if (this.#pending.isEmpty) return
    this.#sealOne()
    this.#planSeal()
  }

  #sealOne(): void {
    const { batch, ...frame } = this.#pending.sealFirst(this.#generation)
    if (batch !== undefined) this.#options.events.batchSealed({ ...batch, frameSizeBytes: frame.bytes.length })
    this.#frames.push({ ...frame, holderCount: batch === undefined ? Infinity : 1 })
    this.#framesBytes += frame.bytes.length
    this.#onFrame?.()
  }

  #release(frame: HeldFrame): void {
    frame.holderCount--
    if (frame.holderCount === 0) this.#pending.recycle(frame)
  }

  #takeTimerBack(): void {
    this.#takeBackTimer?.()
    this.#takeBackTimer = undefined
  }
}

function sizeOf(frames: readonly QueuedFrame[]): number {
  return frames.reduce((sum, frame) => sum + frame.bytes.length, 0)
}
