import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { batchRawSizeBytesTarget, batchWriteCountMax, writeSizeBytesMax, zeroSizeBytesMax } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { BatchBuilder, encodeFrame, type Marker } from '../wire/wire.ts'
import type { AgentEvents } from './events.ts'
import type { SectorChange } from './volume.ts'

// The numbered records of all volumes and connections, from their number to their acknowledgement.
//
//   append ─> [ pending: numbered, raw ] ── seal ──> [ frames: sent ... | not sent ] ── acknowledge ──> gone
//
// Numbering is synchronous, so a marker stands between two writes and never inside one: everything numbered before it is in
// the checkpoint, nothing after it. Batches are sealed later, in order, but the numbers are already given. A frame is sent again
// byte for byte after a reconnect, so that the VRA, which stores frames whole, is never found inside one.

/** A batch or a marker as it goes over the wire. */
export interface QueuedFrame {
  readonly firstSequence: number
  readonly lastSequence: number
  readonly bytes: Buffer
}

interface PendingWrite {
  sequence: number
  readonly volume: number
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly data: Uint8Array | undefined
  readonly timestampMicros: number
}
interface PendingMarker {
  sequence: number
  readonly marker: Omit<Marker, 'sequence'>
}
type Pending = PendingWrite | PendingMarker

/** A zero record's length: whole pages, at most what the columns can say. */
const zeroLengthBytesMax = Math.min(zeroSizeBytesMax, (2 ** 15 - 1) * sectorSizeBytes)
/** What a pending record costs in memory beside its data. */
const recordOverheadBytes = 128

export interface StreamOptions {
  readonly clock: Clock
  readonly events: AgentEvents
  readonly queueSizeBytesMax: number
  readonly batchDelayMillisMax: number
  readonly generation: number
  /** What was numbered and durable when the agent stopped last; what lies between is in `frames`. */
  readonly lastNumbered: number
  readonly durable: number
  readonly frames: readonly QueuedFrame[]
  /**
   * Set after a kill before which only markers were numbered: the VRA has between lastNumbered and this. Until it says what, numbers
   * are provisional and nothing is sealed.
   */
  readonly floatingThrough?: number
  /** The VRA's number of the volume with this index, once it has said it. */
  readonly numberOf: (volumeIndex: number) => number | undefined
}

export class Stream {
  readonly #options: StreamOptions
  readonly #builder = new BatchBuilder()
  readonly #lastSequenceOf = new Map<number, number>()
  #pending: Pending[] = []
  #pendingBytes = 0
  #pendingRawBytes = 0
  #pendingMarkerCount = 0
  #frames: QueuedFrame[]
  #framesBytes: number
  #sentCount = 0
  #lastNumbered: number
  #durable: number
  #stopped = false
  #floatingThrough: number | undefined
  #sealScheduled = false
  #takeBackTimer: (() => void) | undefined
  #onFrame: (() => void) | undefined
  /** Told when the queue was past its bound and has been dropped. */
  onOverflow: (volumesWithUnsentWrites: readonly number[]) => void = () => undefined

  constructor(options: StreamOptions) {
    this.#options = options
    this.#lastNumbered = options.lastNumbered
    this.#durable = options.durable
    this.#frames = [...options.frames]
    this.#framesBytes = sizeOf(options.frames)
    this.#floatingThrough = options.floatingThrough
  }

  get lastNumbered(): number {
    return this.#lastNumbered
  }
  get durable(): number {
    return this.#durable
  }
  get queuedBytes(): number {
    return this.#pendingBytes + this.#framesBytes
  }
  get queuedRecords(): number {
    return this.#stopped && this.queuedBytes === 0 ? 0 : this.#lastNumbered - this.#durable
  }
  /** True while the stream is exact: every change of the disks gets a number. */
  get isExact(): boolean {
    return !this.#stopped
  }

  /** True while numbers are provisional, see StreamOptions.floatingThrough. */
  get isFloating(): boolean {
    return this.#floatingThrough !== undefined
  }
  /** The newest record that the VRA can have, for Hello. */
  get helloLastNumbered(): number {
    return Math.max(this.#lastNumbered, this.#floatingThrough ?? 0)
  }

  /** Numbers one guest write: its pieces are consecutive, with no marker between them. Returns how many records it became. */
  append(volume: number, changes: readonly SectorChange[]): number {
    assert(!this.#stopped, 'a stream that is exact')
    const before = this.#lastNumbered
    const timestampMicros = this.#options.clock.timestampMicros()
    for (const change of changes) {
      const pieceMax = change.data === undefined ? zeroLengthBytesMax : writeSizeBytesMax
      for (let at = 0; at < change.lengthBytes; at += pieceMax) {
        const lengthBytes = Math.min(pieceMax, change.lengthBytes - at)
        const data = change.data?.subarray(at, at + lengthBytes)
        const sequence = ++this.#lastNumbered
        this.#pending.push({
          sequence,
          volume,
          offsetBytes: change.offsetBytes + at,
          lengthBytes,
          data,
          timestampMicros,
        })
        this.#pendingBytes += recordOverheadBytes + (data?.length ?? 0)
        this.#pendingRawBytes += data?.length ?? 0
      }
    }
    this.#lastSequenceOf.set(volume, this.#lastNumbered)
    this.#afterNumbering()
    return this.#lastNumbered - before
  }

  /** Numbers a marker: everything before it is in the checkpoint. */
  appendMarker(marker: Omit<Marker, 'type' | 'generation' | 'sequence'>): void {
    assert(!this.#stopped, 'a stream that is exact')
    const sequence = ++this.#lastNumbered
    const generation = this.#options.generation
    this.#pending.push({ sequence, marker: { type: 'marker', generation, ...marker } })
    this.#pendingBytes += recordOverheadBytes
    this.#pendingMarkerCount++
    this.#afterNumbering()
  }

  /** No more numbers. 'drop' forgets the queue; 'deliver' lets what is numbered go to the VRA. */
  stop(queue: 'drop' | 'deliver'): void {
    this.#stopped = true
    if (queue === 'deliver') return
    this.#pending = []
    this.#pendingBytes = this.#pendingRawBytes = this.#pendingMarkerCount = 0
    this.#frames = []
    this.#framesBytes = this.#sentCount = 0
    this.#clearTimer()
  }

  /** Volumes of which a write has a number that the VRA has not acknowledged. */
  volumesWithUnsentWrites(): readonly number[] {
    return [...this.#lastSequenceOf].filter(([, sequence]) => sequence > this.#durable).map(([volume]) => volume)
  }

  /** After a restart: the newest write of each volume in the frames that were kept. */
  noteWrite(volume: number, sequence: number): void {
    this.#lastSequenceOf.set(volume, sequence)
  }

  // The session's side.

  /**
   * A session begins: the VRA has everything up to `durable`. False where the queue cannot continue exactly there. `onFrame` is
   * called whenever there is something to send.
   */
  resume(durable: number, onFrame: () => void): boolean {
    if (this.#floatingThrough !== undefined && !this.#settle(durable)) return false
    const nextKept =
      this.#frames.find(frame => frame.lastSequence > durable)?.firstSequence ?? this.#pending[0]?.sequence
    const next = nextKept ?? this.#lastNumbered + 1
    const nothingToSend = this.#stopped && nextKept === undefined
    if (durable > this.#lastNumbered || durable < this.#durable || (next !== durable + 1 && !nothingToSend))
      return false
    this.acknowledge(durable)
    this.#sentCount = 0
    this.#onFrame = onFrame
    this.#planSeal()
    return true
  }

  /** Gives what is pending its final numbers, behind what the VRA has. */
  #settle(durable: number): boolean {
    if (durable < this.#durable || durable > this.helloLastNumbered) return false
    const shift = durable - this.#durable
    for (const record of this.#pending) record.sequence += shift
    for (const [volume, sequence] of this.#lastSequenceOf) this.#lastSequenceOf.set(volume, sequence + shift)
    this.#lastNumbered += shift
    this.#durable = durable
    this.#floatingThrough = undefined
    return true
  }

  /** The session has ended. */
  suspend(): void {
    this.#onFrame = undefined
    this.#sentCount = 0
    this.#clearTimer()
  }

  /** The next frame that this session has not sent. */
  nextFrame(): QueuedFrame | undefined {
    return this.#frames[this.#sentCount]
  }

  /** The frame that nextFrame() gave is on its way. */
  frameSent(): void {
    this.#sentCount++
  }

  /** Everything up to `durable` is durable at the VRA. An acknowledgement inside a frame waits for the rest of the frame. */
  acknowledge(durable: number): void {
    if (durable <= this.#durable) return
    assert(durable <= this.#lastNumbered, 'only what has a number is acknowledged')
    this.#durable = durable
    const kept = this.#frames.findIndex(frame => frame.lastSequence > durable)
    const gone = this.#frames.splice(0, kept === -1 ? this.#frames.length : kept)
    this.#framesBytes -= sizeOf(gone)
    this.#sentCount = Math.max(0, this.#sentCount - gone.length)
    this.#options.events.acknowledged({ sequence: durable, queuedBytes: this.queuedBytes })
    this.#planSeal()
  }

  /** Seals all that is pending, and returns every frame that is not acknowledged; undefined where no number of a volume is known. */
  sealAll(): readonly QueuedFrame[] | undefined {
    this.#clearTimer()
    while (this.#pending.length > 0) if (!this.#sealOne()) return undefined
    return this.#frames
  }

  // Sealing.

  #afterNumbering(): void {
    if (this.queuedBytes > this.#options.queueSizeBytesMax) {
      const volumes = this.volumesWithUnsentWrites()
      this.stop('drop')
      this.onOverflow(volumes)
    } else this.#planSeal()
  }

  /**
   * When the next batch is closed: at once when it is full or a marker waits; as soon as this turn of the event loop is over when
   * nothing is in flight; else at the latest after the delay. While there is no session only full batches are closed.
   */
  #planSeal(): void {
    if (this.#pending.length === 0 || this.#sealScheduled) return
    const full = this.#pendingRawBytes >= batchRawSizeBytesTarget || this.#pending.length >= batchWriteCountMax
    if (full || this.#pendingMarkerCount > 0 || (this.#onFrame !== undefined && this.#frames.length === 0)) {
      this.#clearTimer()
      this.#sealScheduled = true
      this.#options.clock.after(0, () => this.#sealNow())
    } else if (this.#onFrame !== undefined) {
      const { clock, batchDelayMillisMax } = this.#options
      this.#takeBackTimer ??= clock.after(batchDelayMillisMax, () => this.#sealNow())
    }
  }

  /** One batch a turn: compressing many at once would keep the guests waiting. */
  #sealNow(): void {
    this.#sealScheduled = false
    this.#clearTimer()
    if (this.#sealOne()) this.#planSeal()
  }

  #sealOne(): boolean {
    const head = this.#pending[0]
    if (head === undefined || this.isFloating) return false
    if ('marker' in head) {
      this.#pending.shift()
      this.#pendingBytes -= recordOverheadBytes
      this.#pendingMarkerCount--
      this.#enqueue({
        firstSequence: head.sequence,
        lastSequence: head.sequence,
        bytes: encodeFrame({ ...head.marker, sequence: head.sequence }),
      })
      return true
    }
    return this.#sealBatch(head)
  }

  #sealBatch(head: PendingWrite): boolean {
    const builder = this.#builder
    let last = head
    let count = 0
    for (const write of this.#pending) {
      if ('marker' in write || builder.isFull || !builder.hasRoom(write.data?.length ?? 0)) break
      const volume = this.#options.numberOf(write.volume)
      if (volume === undefined) return false // the VRA has not named the volumes yet; they are named all at once
      const { offsetBytes, lengthBytes, data } = write
      if (data === undefined) builder.addZero({ volume, offsetBytes, lengthBytes })
      else builder.add({ volume, offsetBytes, data })
      last = write
      count++
      this.#pendingBytes -= recordOverheadBytes + (data?.length ?? 0)
      this.#pendingRawBytes -= data?.length ?? 0
    }
    this.#pending.splice(0, count)
    const rawSizeBytes = builder.rawSizeBytes
    const { generation } = this.#options
    const bytes = builder.finish({
      generation,
      firstSequence: head.sequence,
      timestampMicros: last.timestampMicros,
    })
    this.#options.events.batchSealed({ recordCount: count, rawSizeBytes, frameSizeBytes: bytes.length })
    this.#enqueue({ firstSequence: head.sequence, lastSequence: last.sequence, bytes })
    return true
  }

  #enqueue(frame: QueuedFrame): void {
    this.#frames.push(frame)
    this.#framesBytes += frame.bytes.length
    this.#onFrame?.()
  }

  #clearTimer(): void {
    this.#takeBackTimer?.()
    this.#takeBackTimer = undefined
  }
}

function sizeOf(frames: readonly QueuedFrame[]): number {
  return frames.reduce((sum, frame) => sum + frame.bytes.length, 0)
}
