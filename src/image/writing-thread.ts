import { once } from 'node:events'
import { MessageChannel, receiveMessageOnPort, Worker, type MessagePort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { exportBufferCount, exportBufferSizeBytes, exportSyncAheadSizeBytes } from '../base/limits.ts'
import { SyncAhead } from '../disk/disk.ts'
import { PieceBuffer, pieceBufferMemorySizeBytes } from './piece-buffer.ts'
import { atOnce, handOver, sharedWordCount, synced, take, tellEnd, type EndWanted, type Steps } from './hand-over.ts'
import type { OpenPieceWriter, PieceWriter } from './piece-writer.ts'

// An export's second thread: it writes what the first one reads and decompresses, see hand-over.ts. At most exportBufferCount buffers are anywhere.

export interface WritingWorkerData {
  readonly file: string
  readonly state: SharedArrayBuffer
  readonly memory: readonly SharedArrayBuffer[]
  /** Of its WritingEnd. */
  readonly port: MessagePort
}

/** What the thread says once, when it ends; an Error loses its code on the way. */
export interface WritingEnd {
  readonly failure: { readonly message: string; readonly code: string | undefined } | undefined
  readonly writtenCount: number
}

/** Starts a thread that writes to the file, which exists. */
export const openWritingThread: OpenPieceWriter = writingThreadOf(new URL('./writing-worker.js', import.meta.url))

/** The same with another program for the thread. */
export function writingThreadOf(program: URL): OpenPieceWriter {
  return async file => {
    const thread = new WritingThread(file, program)
    await thread.born()
    return thread
  }
}

class WritingThread implements PieceWriter {
  readonly #state = new Int32Array(new SharedArrayBuffer(4 * sharedWordCount))
  readonly #memory = Array.from({ length: exportBufferCount }, () => new SharedArrayBuffer(pieceBufferMemorySizeBytes))
  readonly #buffers = this.#memory.map(memory => new PieceBuffer(memory))
  readonly #syncAhead: SyncAhead
  readonly #port: MessagePort
  readonly #born: Promise<boolean>
  readonly #ended: Promise<unknown>
  #filled = 0
  #aheadFilled = 0
  #ending: Promise<void> | undefined
  #end: WritingEnd | undefined

  constructor(file: string, program: URL) {
    this.#syncAhead = SyncAhead.open(file)
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    const workerData: WritingWorkerData = {
      file,
      state: this.#state.buffer as SharedArrayBuffer,
      memory: this.#memory,
      port: port2,
    }
    const worker = new Worker(program, { workerData, transferList: [port2] })
    this.#ended = once(worker, 'exit')
    this.#born = Promise.race([once(worker, 'message').then(() => true), this.#ended.then(() => false)])
    this.#ended.catch(() => undefined) // born(), finish() and abandon() wait for it
  }

  /** The thread runs on return: one that cannot begin (no memory) has nobody wait for it, with a thread that then hears nothing. */
  async born(): Promise<void> {
    let cause: unknown
    const isBorn = await this.#born.catch((error: unknown) => {
      cause = error
      return false
    })
    if (isBorn) return
    this.#port.close()
    await this.#syncAhead.close()
    throw new Error('the writing thread could not begin', { cause })
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
    if (this.#take(handOver(++this.#filled, exportBufferCount)) === 'ended') this.#throwFailure()
  }

  #take<T>(steps: Steps<T>): T {
    return take(steps, this.#state, () => assert(false, 'this thread writes nothing'))
  }

  #endBy(how: EndWanted): Promise<void> {
    return (this.#ending ??= this.#endOnce(how))
  }

  async #endOnce(how: EndWanted): Promise<void> {
    this.#take(tellEnd(how, this.#filled))
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
