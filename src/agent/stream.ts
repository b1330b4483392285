import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { sequence, type Position } from '../base/ids.ts'
import { hurriedSizeBytesMin } from '../base/limits.ts'
import { encodeFrame } from '../wire/wire.ts'
import type { AgentEvents } from './events.ts'
import { FrameQueue, type QueuedFrame, type SealedBatch } from './frame-queue.ts'
import { PendingRecords, type Loan, type TakenMarker, type UnplacedMarker } from './pending-records.ts'
import type { Pieces } from './sealing/pieces.ts'
import type { Sealer } from './sealing/sealer.ts'
import type { SectorChange } from './volume.ts'

// The numbered records of all volumes and connections, from their number to their acknowledgement.
//
//   append ─> [ pending: numbered, raw ] ── seal ──> [ frames: sent ... | not sent | being sealed ] ── acknowledge ──> gone
//
// Numbering is synchronous, so a marker stands between two writes and never inside one: everything numbered before it is in
// the checkpoint, nothing after it. Batches are sealed later, in order, but the numbers are already given. A frame is sent again
// byte for byte after a reconnect, so that the VRA, which stores frames whole, is never found inside one.
//
// A stream is exact inside a generation, or detached: then it numbers nothing and holds nothing, and the dirty maps keep account.

export type { QueuedFrame } from './frame-queue.ts'

export interface StreamOptions {
  readonly clock: Clock
  readonly events: AgentEvents
  readonly sealer: Sealer
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
  readonly #pending: PendingRecords
  readonly #frames: FrameQueue
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
    this.#pending = new PendingRecords(options.sealer.pieces)
    this.#frames = new FrameQueue(options.sealer, batch => this.#sealed(batch))
  }

  /** Memory for data that is lent: frames of it can be made elsewhere. */
  get pieces(): Pieces {
    return this.#options.sealer.pieces
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
  /** Of the newest number; undefined where the stream is detached. */
  get position(): Position | undefined {
    return this.#isExact ? { generation: this.#generation, sequence: sequence(this.#lastNumbered) } : undefined
  }
  get queuedBytes(): number {
    return this.#pending.bytes + this.#frames.bytes
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
    this.#frames.load(frames)
    this.#markerSequences = []
  }

  /** No more numbers, and the queue is gone. */
  detach(): void {
    this.#isExact = false
    this.#pending.clear()
    this.#frames.clear()
    this.#takeTimerBack()
    this.#options.onSmaller()
  }

  /**
   * Numbers one write: its pieces are consecutive, with no marker between them. Returns how many records it became. Its data is copied, or
   * on loan; then it may be given back within this call.
   */
  append(volume: number, changes: readonly SectorChange[], loan?: Loan): number {
    assert(this.#isExact, 'a stream that is exact')
    const before = this.#lastNumbered
    const timestampMicros = this.#options.clock.timestampMicros()
    this.#lastNumbered += this.#pending.addChanges(before + 1, volume, changes, timestampMicros, loan)
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
      const next = this.#frames.firstSequencePast(durable) ?? this.#pending.firstSequence
      const continues = (next ?? this.#lastNumbered + 1) === durable + 1
      if (durable > this.#lastNumbered || durable < this.#durable || !continues) return false
      this.acknowledge(durable)
    }
    this.#frames.rewind()
    this.#onFrame = onFrame
    this.#planSeal()
    return true
  }

  /** The session has ended. */
  suspend(): void {
    this.#onFrame = undefined
    this.#frames.rewind()
    this.#takeTimerBack()
  }

  /** The next frame that this session has not sent; undefined where there is none, or it is not sealed yet. */
  nextFrame(): Buffer | undefined {
    return this.#frames.next()
  }

  /** The frame that nextFrame() gave is on its way. Call what it returns when its bytes are not read any more, or never. */
  frameSent(): () => void {
    return this.#frames.sent()
  }

  /** Everything up to `durable` is durable at the VRA. An acknowledgement inside a frame waits for the rest of the frame. */
  acknowledge(durable: number): void {
    if (!this.#isExact || durable <= this.#durable) return
    assert(durable <= this.#lastNumbered, 'only what has a number is acknowledged')
    this.#durable = durable
    while ((this.#markerSequences[0] ?? Infinity) <= durable) this.#markerSequences.shift()
    this.#frames.dropThrough(durable)
    this.#options.events.acknowledged({ sequence: durable, queuedBytes: this.queuedBytes })
    this.#options.onSmaller()
    this.#planSeal()
  }

  /** Seals all that is pending, and returns every frame that is not acknowledged. */
  sealAll(): readonly QueuedFrame[] {
    this.#takeTimerBack()
    while (!this.#pending.isEmpty) this.#sealFirst('in line')
    return this.#frames.sealAll()
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
    const { rawSizeBytes: sizeBytes, bytes: waitingBytes } = this.#pending
    const where = this.#options.sealer.placeFor({ sizeBytes, waitingBytes })
    if (where === 'later') return // #sealed() goes on
    this.#sealFirst(where)
    this.#planSeal()
  }

  #sealFirst(where: 'in line' | 'elsewhere'): void {
    const isHurried = this.#isHurried
    const taken = this.#pending.takeFirst()
    if (taken.kind === 'marker') {
      this.#addMarker(taken)
      return
    }
    const how = { generation: this.#generation, isHurried }
    const isOut = where === 'elsewhere' && this.#frames.addToSeal(taken, how)
    if (!isOut) this.#frames.addSealed(taken, how)
  }

  /** Much waits to be sealed, and little that is sealed to be sent and acknowledged. */
  get #isHurried(): boolean {
    const waitingBytes = this.#pending.rawSizeBytes + this.#frames.sealingBytes
    const sealedBytes = this.#frames.bytes - this.#frames.sealingBytes
    return waitingBytes >= hurriedSizeBytesMin && waitingBytes >= 2 * sealedBytes
  }

  #addMarker({ sequence, marker }: TakenMarker): void {
    const bytes = encodeFrame({ type: 'marker', generation: this.#generation, sequence, ...marker })
    this.#frames.addFrame({ firstSequence: sequence, lastSequence: sequence, bytes })
    this.#onFrame?.()
  }

  #sealed(batch: SealedBatch): void {
    this.#options.events.batchSealed(batch)
    this.#onFrame?.()
    this.#options.onSmaller()
    this.#planSeal()
  }

  #takeTimerBack(): void {
    this.#takeBackTimer?.()
    this.#takeBackTimer = undefined
  }
}
