import { once } from 'node:events'
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { assert, assertNever } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { failureFromRecord } from '../base/failure.ts'
import {
  frameSizeBytesMax,
  ingestPoolSizeBytes,
  logFileSizeBytes,
  logGroupSizeBytesMax,
  logRecordHeaderSizeBytes,
  threadYoungSizeMiBMax,
} from '../base/limits.ts'
import type { CommitWorkerOptions, FromCommitWorker, JournalEventCall, ToCommitWorker } from './commit-messages.ts'
import type { JournalEvents } from './events.ts'
import { GroupQueue } from './group-queue.ts'
import type { LogMark } from './log-file.ts'
import { encodeRecordHeader, type RecordHeader } from './record.ts'
import { placeOf, type LogRecordPlace, type RecoveredLog } from './recovered.ts'
import { type PoolSlot, SlotPool } from './slot-pool.ts'
import type { AppendFields, JournalWriter, Slot } from './writer.ts'

// The journal is the log of everything that was acknowledged: one per data directory, shared by all VPGs, so that the
// price of durability, one fdatasync, is paid once for all streams together.
//
//   ingest thread                                commit thread                       preparing thread
//   reserve ─> frame received into the slot
//   append ──> queue, a lane per stream
//              takeGroup, turns of 256 KiB ───> place headers, one writev,    <───  zeroed or recycled
//   onDurable <─────── one message a group ───  one fdatasync                       files, named and synced
//
// While sockets are being read the event loop takes no message, for tens of milliseconds where many are full. So after what
// one of them brought, ingest looks at a shared flag whether the group in flight is durable, and fetches the message itself.
//
// A group is whatever waited while the one before was being synced: no timer, so a lone write waits for one sync and a
// flood makes groups large. Frames are received into memory that the commit thread shares, behind room for the record's
// header, so nothing is copied between the socket and the disk.
//
// What can be relied upon: a record whose onDurable was called is found by every later open, whole, with all records of
// its stream before it, or its loss is reported as damage. A record whose onDurable was not called may be found as well,
// but never one after a missing one. The formats, and the rule that tells a torn tail from damage, are in README.md.

export { logFilePath, type LogMark, type RecordPlace } from './log-file.ts'
export type { LogDamage, LogRecordPlace, MissingRecords, RecoveredLog, RecoveredStream } from './recovered.ts'
export { dumpLog, verifyLog, type LogFact, type LogFault, type LogTotals } from './verify.ts'

export interface JournalOptions {
  /** The data directory; the log is in `log` below it. */
  readonly directory: string
  /** The log never grows past it: then records wait, until files are freed. At least four log files. */
  readonly logSizeBytesMax: number
  readonly clock: Clock
  readonly events: JournalEvents
  /** 64 MiB where not given; tests rotate sooner. */
  readonly fileSizeBytes?: number
}

/** A group of records that one sync has made durable. */
export interface DurableGroup {
  readonly mark: LogMark
  readonly records: readonly LogRecordPlace[]
}

export interface JournalStatus {
  readonly durable: LogMark
  /** Files that hold records which somebody may need. */
  readonly fileCount: number
  readonly liveSizeBytes: number
  /** Prepared files that the next rotation can open. */
  readonly readyCount: number
  /** Freed files kept for preparing. */
  readonly spareCount: number
  readonly logSizeBytesMax: number
  /** Records appended and not durable yet. */
  readonly waitingRecordCount: number
  readonly waitingSizeBytes: number
  /** Why nothing becomes durable now, or undefined. */
  readonly stalledBecause: string | undefined
}

interface WaitingRecord {
  readonly streamKey: string
  readonly sizeBytes: number
  readonly slot: PoolSlot
  readonly fields: AppendFields
  readonly onDurable: () => void
}

/** The commit log of a data directory, seen from the thread of ingest. */
export class Journal implements JournalWriter {
  #recovered: RecoveredLog
  readonly #worker: Worker
  readonly #port: MessagePort
  /** See CommitWorkerOptions. */
  readonly #durableSaid: Int32Array
  readonly #options: JournalOptions
  readonly #fileSizeBytes: number
  readonly #pool: SlotPool
  readonly #queue: GroupQueue<WaitingRecord>
  readonly #listeners = new Set<(group: DurableGroup) => void>()
  #inFlight: readonly WaitingRecord[] = []
  #pumpPlanned = false
  #durable: LogMark
  #stalledBecause: string | undefined
  #files = { fileCount: 0, readyCount: 0, spareCount: 0 }
  #closing = false
  #whenSettled: (() => void) | undefined

  /** Recovers the log, tells what was cut or damaged, and starts the threads. Fails where the log cannot be trusted. */
  static async open(options: JournalOptions): Promise<Journal> {
    const fileSizeBytes = options.fileSizeBytes ?? logFileSizeBytes
    const pool = new SlotPool(ingestPoolSizeBytes)
    const { port1: port, port2: workerPort } = new MessageChannel()
    const durableSaid = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
    const workerOptions: CommitWorkerOptions = {
      directory: options.directory,
      fileSizeBytes,
      logSizeBytesMax: options.logSizeBytesMax,
      memory: pool.memory,
      port: workerPort,
      durableSaid,
    }
    const worker = new Worker(new URL('./commit-worker.js', import.meta.url), {
      workerData: workerOptions,
      transferList: [workerPort],
      resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
    })
    const [answer] = (await once(worker, 'message')) as [FromCommitWorker]
    if (answer.type === 'failed') {
      await once(worker, 'exit')
      throw failureFromRecord(answer.failure)
    }
    assert(answer.type === 'opened', 'the commit thread begins with what it recovered')
    const { recovered } = answer
    if (recovered.tornTail !== undefined) options.events.tornTailCut(recovered.tornTail)
    for (const damage of recovered.damage) options.events.damageFound(damage)
    return new Journal(options, { fileSizeBytes, pool, worker, port, durableSaid, recovered })
  }

  private constructor(
    options: JournalOptions,
    parts: {
      fileSizeBytes: number
      pool: SlotPool
      worker: Worker
      port: MessagePort
      durableSaid: SharedArrayBuffer
      recovered: RecoveredLog
    },
  ) {
    this.#options = options
    this.#fileSizeBytes = parts.fileSizeBytes
    this.#pool = parts.pool
    this.#worker = parts.worker
    this.#port = parts.port
    this.#durableSaid = new Int32Array(parts.durableSaid)
    this.#recovered = parts.recovered
    this.#durable = parts.recovered.durable
    const groupSizeBytesMax = Math.min(logGroupSizeBytesMax, Math.floor(parts.fileSizeBytes / 4))
    assert(groupSizeBytesMax > frameSizeBytesMax + logRecordHeaderSizeBytes + 8, 'any record fits in a group')
    this.#queue = new GroupQueue(groupSizeBytesMax)
    parts.port.on('message', (message: FromCommitWorker) => this.#hear(message))
    parts.worker.on('error', error => {
      throw error // a bug in the thread that makes things durable: nothing here can be trusted to go on
    })
    parts.worker.on('exit', () => assert(this.#closing, 'the commit thread ends only when the journal is closed'))
  }

  reserve(frameSizeBytes: number): Slot | undefined {
    return this.#pool.reserve(frameSizeBytes)
  }

  whenRoom(frameSizeBytes: number, callback: () => void): void {
    this.#pool.whenRoom(frameSizeBytes, callback)
  }

  release(slot: Slot): void {
    this.#pool.release(slot as PoolSlot)
    this.#pool.serveWaiting()
  }

  append(slot: Slot, fields: AppendFields, onDurable: () => void): void {
    const poolSlot = slot as PoolSlot
    if (this.#closing) {
      this.release(slot) // too late to become durable: so nobody is told that it is
      return
    }
    encodeRecordHeader(poolSlot.record, unplacedHeader(fields, slot))
    this.#queue.add({
      streamKey: `${fields.vpg}/${fields.stream}`,
      sizeBytes: poolSlot.record.length,
      slot: poolSlot,
      fields,
      onDurable,
    })
    // Whatever else arrives in this turn of the event loop goes along.
    if (this.#pumpPlanned || (this.#inFlight.length > 0 && !this.#isMessageDue())) return
    this.#pumpPlanned = true
    queueMicrotask(() => {
      this.#pumpPlanned = false
      this.#hearDurable()
      this.#pump()
    })
  }

  #isMessageDue(): boolean {
    return Atomics.load(this.#durableSaid, 0) !== 0
  }

  /** Does not wait until the event loop brings the message that the group in flight is durable, where that was sent. */
  #hearDurable(): void {
    while (this.#isMessageDue()) {
      const received = receiveMessageOnPort(this.#port) as { readonly message: FromCommitWorker } | undefined
      if (received === undefined) return // it is being brought
      this.#hear(received.message)
    }
  }

  /** What the log held when it was opened. */
  get recovered(): RecoveredLog {
    return this.#recovered
  }

  /** Lets go of the list of records and markers, which is as long as the log was. For when they have been taken over. */
  forgetRecords(): void {
    this.#recovered = { ...this.#recovered, records: [], markers: [] }
  }

  durable(): LogMark {
    return this.#durable
  }

  /** Calls the listener after each group's sync, after the callbacks of its records. Returns what ends that. */
  onDurable(listener: (group: DurableGroup) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Nobody needs the records of this file any more: it is recycled. A file that is being written is never freed: ignored. */
  freeFile(fileIdentity: number): void {
    this.#say({ type: 'free', fileIdentity })
  }

  status(): JournalStatus {
    return {
      ...this.#files,
      durable: this.#durable,
      liveSizeBytes: this.#files.fileCount * this.#fileSizeBytes,
      logSizeBytesMax: this.#options.logSizeBytesMax,
      waitingRecordCount: this.#queue.count + this.#inFlight.length,
      waitingSizeBytes: this.#queue.sizeBytes + this.#inFlight.reduce((sum, record) => sum + record.sizeBytes, 0),
      stalledBecause: this.#stalledBecause,
    }
  }

  /** Makes durable what was appended, unless the journal is full or its disk fails; then ends the threads. */
  async close(): Promise<void> {
    if (this.#closing) return
    this.#closing = true
    if (!this.#isSettled()) await new Promise<void>(resolve => (this.#whenSettled = resolve))
    const exit = once(this.#worker, 'exit')
    this.#say({ type: 'close' })
    await exit
  }

  #isSettled(): boolean {
    return this.#stalledBecause !== undefined || (this.#inFlight.length === 0 && this.#queue.count === 0)
  }

  #pump(): void {
    if (this.#inFlight.length > 0) return
    const group = this.#queue.takeGroup()
    if (group.length === 0) return
    this.#inFlight = group
    const records = new Uint32Array(2 * group.length)
    for (const [index, { slot }] of group.entries()) {
      records[2 * index] = slot.offsetBytes
      records[2 * index + 1] = slot.record.length
    }
    this.#say({ type: 'group', records })
  }

  #say(message: ToCommitWorker): void {
    this.#worker.postMessage(message)
  }

  #hear(message: FromCommitWorker): void {
    switch (message.type) {
      case 'durable':
        this.#finishGroup(message.mark, message.offsetsBytes, message.syncMillis)
        break
      case 'stalled':
        this.#stalledBecause = message.sentence
        this.#options.events.journalFull({ sentence: message.sentence })
        break
      case 'resumed':
        this.#stalledBecause = undefined
        this.#options.events.journalResumed({ waitedMillis: message.waitedMillis })
        break
      case 'files':
        this.#files = { ...message.counts, spareCount: message.spareCount }
        break
      case 'event':
        this.#tell(message.event)
        break
      case 'opened':
      case 'failed':
        break // answered in open()
      default:
        assertNever(message)
    }
    if (this.#isSettled()) this.#whenSettled?.()
  }

  #tell(event: JournalEventCall): void {
    const { events } = this.#options
    const call = events[event.name] as (value: JournalEventCall['value']) => void
    call.call(events, event.value)
  }

  /** The disk is set to work on the next group before anybody is told of this one. */
  #finishGroup(mark: LogMark, offsetsBytes: Float64Array, syncMillis: number): void {
    const group = this.#inFlight
    this.#inFlight = []
    Atomics.store(this.#durableSaid, 0, 0)
    this.#durable = mark
    this.#pump()
    let sizeBytes = 0
    for (const { slot } of group) {
      sizeBytes += slot.record.length
      this.#pool.release(slot)
    }
    for (const { onDurable } of group) onDurable()
    if (this.#listeners.size > 0) {
      const records = group.map(({ slot, fields }, index) =>
        placeOf({
          ...unplacedHeader(fields, slot),
          fileIdentity: mark.fileIdentity,
          offsetBytes: offsetsBytes[index] ?? 0,
        }),
      )
      for (const listener of this.#listeners) listener({ mark, records })
    }
    this.#options.events.groupDurable({ recordCount: group.length, sizeBytes, syncMillis })
    this.#pool.serveWaiting()
  }
}

/** The header but for the record's place, which the commit thread fills in. */
function unplacedHeader(fields: AppendFields, slot: Slot): RecordHeader {
  return {
    kind: fields.kind,
    fileIdentity: 0,
    offsetBytes: 0,
    vpg: fields.vpg,
    stream: fields.stream,
    epoch: fields.epoch,
    generation: fields.generation,
    firstSequence: fields.firstSequence,
    lastSequence: fields.lastSequence,
    durableOffsetBytes: 0,
    frameSizeBytes: slot.frame.length,
    frameCrc32c: fields.frameCrc32c,
    timestampMicros: fields.timestampMicros,
    historyMillis: fields.historyMillis,
  }
}
