import { once } from 'node:events'
import { MessageChannel, receiveMessageOnPort, Worker, type MessagePort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { exportBufferCount, exportBufferSizeBytes, exportSyncAheadSizeBytes } from '../base/limits.ts'
import { SyncAhead } from '../disk/disk.ts'
import { PieceBuffer, pieceBufferMemorySizeBytes } from './piece-buffer.ts'
import type { PieceWriter } from './piece-writer.ts'

// An export's second thread: it writes what the first one reads and decompresses. Two threads pass a ring of buffers round, and wait for
// each other on two counters, without an event loop on either side: a buffer filled is a buffer handed over, and at most
// exportBufferCount of them are anywhere.

/** Places in the shared Int32Array. */
export const filledCount = 0
export const writtenCount = 1
/** Both count from the moment on that filledCount is endTold, and no sooner: the end is told in one word. */
export const endWanted = 2
export const lastFilledCount = 3

/** A filled count that says: no further buffer will be, see the two above. */
export const endTold = -1

/** Values of endWanted. */
export const synced = 1
export const atOnce = 2

export interface WritingWorkerData {
  readonly file: string
  readonly state: SharedArrayBuffer
  readonly memory: readonly SharedArrayBuffer[]
  readonly port: MessagePort
}

/** What the thread says once, when it ends; an Error loses its code on the way. */
export interface WritingEnd {
  readonly failure: { readonly message: string; readonly code: string | undefined } | undefined
  readonly writtenCount: number
}

/** A written count that says: no further buffer will be. */
export const writingEnded = -1

/** Starts a thread that writes to the file, which exists. */
export function openWritingThread(file: string): PieceWriter {
  return new WritingThread(file)
}

class WritingThread implements PieceWriter {
  readonly #state = new Int32Array(new SharedArrayBuffer(16))
  readonly #memory = Array.from({ length: exportBufferCount }, () => new SharedArrayBuffer(pieceBufferMemorySizeBytes))
  readonly #buffers = this.#memory.map(memory => new PieceBuffer(memory))
  readonly #syncAhead: SyncAhead
  readonly #port: MessagePort
  readonly #ended: Promise<unknown>
  #filled = 0
  #aheadFilled = 0
  #ending: Promise<void> | undefined
  #end: WritingEnd | undefined

  constructor(file: string) {
    this.#syncAhead = SyncAhead.open(file)
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    const workerData: WritingWorkerData = {
      file,
      state: this.#state.buffer as SharedArrayBuffer,
      memory: this.#memory,
      port: port2,
    }
    const worker = new Worker(new URL('./writing-worker.js', import.meta.url), { workerData, transferList: [port2] })
    this.#ended = once(worker, 'exit')
    this.#ended.catch(() => undefined) // finish() and abandon() wait for it
  }

  add(offsetBytes: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const buffer = this.#buffers[this.#filled % exportBufferCount]!
      const taken = buffer.add(offsetBytes + done, bytes.subarray(done))
      if (taken === 0) {
        this.#handOver()
        this.#askTheDisk()
      }
      done += taken
    }
  }

  #askTheDisk(): void {
    const waitingSizeBytes = (this.#filled - this.#aheadFilled) * exportBufferSizeBytes
    if (this.#syncAhead.isUnderWay || waitingSizeBytes < exportSyncAheadSizeBytes) return
    this.#aheadFilled = this.#filled
    this.#syncAhead.begin()
  }

  async finish(): Promise<void> {
    this.#handOver()
    await this.#endBy(synced)
    this.#throwFailure()
    assert(this.#end?.writtenCount === this.#filled, 'every buffer was written before the sync')
  }

  async abandon(): Promise<void> {
    await this.#endBy(atOnce).catch(() => undefined)
  }

  /** Waits, with this thread, until the next buffer of the ring is free: as long as the disk takes for one. */
  #handOver(): void {
    assert(this.#ending === undefined, 'nothing is added behind the end')
    Atomics.store(this.#state, filledCount, ++this.#filled)
    Atomics.notify(this.#state, filledCount)
    for (;;) {
      const written = Atomics.load(this.#state, writtenCount)
      if (written === writingEnded) this.#throwFailure()
      if (this.#filled - written < exportBufferCount) return
      Atomics.wait(this.#state, writtenCount, written)
    }
  }

  #endBy(how: typeof synced | typeof atOnce): Promise<void> {
    return (this.#ending ??= this.#endOnce(how))
  }

  async #endOnce(how: typeof synced | typeof atOnce): Promise<void> {
    Atomics.store(this.#state, endWanted, how)
    Atomics.store(this.#state, lastFilledCount, this.#filled)
    Atomics.store(this.#state, filledCount, endTold)
    Atomics.notify(this.#state, filledCount)
    try {
      await this.#ended
    } finally {
      this.#takeEnd()
      this.#port.close()
      await this.#syncAhead.close()
    }
  }

  #takeEnd(): void {
    this.#end ??= receiveMessageOnPort(this.#port)?.message as WritingEnd | undefined
  }

  #throwFailure(): void {
    this.#takeEnd()
    const failure =
      this.#end === undefined ? { message: 'the writing thread died', code: undefined } : this.#end.failure
    if (failure !== undefined) throw Object.assign(new Error(failure.message), { code: failure.code })
  }
}
