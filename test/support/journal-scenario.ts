import * as path from 'node:path'
import { failedWith } from '../../src/base/failure.ts'
import { logRecordHeaderSizeBytes } from '../../src/base/limits.ts'
import { KiB } from '../../src/base/units.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import { type CommitLog, openLog } from '../../src/journal/commit-log.ts'
import { LogFilePool } from '../../src/journal/file-pool.ts'
import { LogReader } from '../../src/journal/log-reader.ts'
import { encodeRecordHeader, recordSizeBytes } from '../../src/journal/record.ts'
import type { LogRecordPlace, RecoveredLog } from '../../src/journal/recovered.ts'
import { vpgId } from '../../src/base/ids.ts'
import type { FaultyDisk } from './faulty-disk.ts'
import { Random } from './journal-random.ts'

// A random life of a commit log over a faulty disk, and a model of what it promised.
//
// Invariants, held by open() after every crash:
//   - every record that was acknowledged, in a file that nobody freed, is there, whole, and as it was written
//   - a stream ends at or after its last acknowledged record, and holds nothing that was not appended
//   - nothing is reported as damaged
//   - the reader hands out exactly the records that recovery counted

export const directory = '/data'
export const fileSizeBytes = 64 * KiB
const vpgs = [vpgId('a'.repeat(32)), vpgId('b'.repeat(32))] as const

export interface ModelRecord {
  readonly streamKey: string
  readonly firstSequence: number
  readonly lastSequence: number
  readonly kind: 'batch' | 'marker'
  readonly frame: Uint8Array
}

interface ModelStream {
  readonly vpg: (typeof vpgs)[number]
  readonly stream: number
  /** By first sequence; what was appended, acknowledged or not. */
  readonly records: Map<number, ModelRecord>
  lastAppended: number
  lastAcknowledged: number
}

export function encodeRecord(
  record: ModelRecord,
  of: { readonly vpg: ReturnType<typeof vpgId>; readonly stream: number; readonly generation?: number },
): Uint8Array {
  const bytes = new Uint8Array(recordSizeBytes(record.frame.length))
  bytes.set(record.frame, logRecordHeaderSizeBytes)
  encodeRecordHeader(bytes, {
    kind: record.kind,
    fileIdentity: 0,
    offsetBytes: 0,
    vpg: of.vpg,
    stream: of.stream,
    epoch: 1,
    generation: of.generation ?? 1,
    firstSequence: record.firstSequence,
    lastSequence: record.lastSequence,
    durableOffsetBytes: 0,
    frameSizeBytes: record.frame.length,
    frameCrc32c: crc32c(record.frame),
    timestampMicros: 1_000_000 + record.firstSequence,
    historyMillis: 0,
  })
  return bytes
}

export class Scenario {
  readonly random: Random
  readonly streams = new Map<string, ModelStream>()
  /** Acknowledged records and the file that they are in. */
  readonly kept = new Map<ModelRecord, number>()
  readonly events: string[] = []
  log: CommitLog | undefined
  #requests: (() => void)[] = []
  #salt = 0

  constructor(seed: number) {
    this.random = new Random(seed)
    for (const [index, vpg] of [vpgs[0], vpgs[0], vpgs[1]].entries()) {
      const stream = index + 1
      this.streams.set(`${vpg}/${stream}`, { vpg, stream, records: new Map(), lastAppended: 0, lastAcknowledged: 0 })
    }
  }

  /** Opens the log, holds it against the model, and goes on from what it recovered. */
  open(disk: FaultyDisk): RecoveredLog {
    this.#requests = []
    let pool: LogFilePool | undefined
    const { recovered, log } = openLog(disk, {
      directory,
      fileSizeBytes,
      logSizeBytesMax: 40 * fileSizeBytes,
      timestampMicros: () => 1,
      files: {
        prepare: fileIdentity =>
          this.#requests.push(() => {
            pool?.prepare(fileIdentity)
            this.log?.addReady(fileIdentity)
          }),
        free: fileIdentity => this.#requests.push(() => pool?.free(fileIdentity)),
      },
      events: {
        fileRotated: ({ prepared }) => this.events.push(prepared ? 'rotated' : 'rotated to a growing file'),
        diskFailed: () => this.events.push('disk failed'),
      },
    })
    pool = new LogFilePool(disk, { directory, fileSizeBytes, spareCountMax: 3, timestampMicros: () => 1 })
    this.log = log
    this.#check(disk, recovered)
    return recovered
  }

  #check(disk: FaultyDisk, recovered: RecoveredLog): void {
    expect(recovered.damage.length === 0, `no damage: ${recovered.damage[0]?.sentence}`)
    const reader = new LogReader({ disk, directory })
    const places: LogRecordPlace[] = []
    for (;;) {
      const batch = reader.next(recovered.durable, 20_000)
      expect(batch.damage.length === 0, `the reader finds no damage: ${batch.damage[0]?.sentence}`)
      if (batch.records.length === 0) break
      places.push(...batch.records.map(({ place }) => place as LogRecordPlace))
    }
    expect(
      JSON.stringify(places.map(placeText)) === JSON.stringify(recovered.records.map(placeText)),
      'the reader and recovery agree',
    )
    const found = new Set<ModelRecord>()
    for (const place of recovered.records) {
      const stream = this.streams.get(`${place.vpg}/${place.stream}`)
      const record = stream?.records.get(place.firstSequence)
      expect(record !== undefined, `sequence ${place.firstSequence} was appended`)
      expect(record.lastSequence === place.lastSequence, `sequence ${place.firstSequence} is as long as it was`)
      expect(Buffer.compare(reader.readRecord(place), record.frame) === 0, `sequence ${place.firstSequence} is intact`)
      found.add(record)
      this.kept.set(record, place.fileIdentity)
    }
    reader.close()
    for (const [record, fileIdentity] of this.kept) {
      expect(found.has(record), `${record.streamKey} sequence ${record.firstSequence} of file ${fileIdentity} is there`)
    }
    expect(
      recovered.markers.length === recovered.records.filter(place => place.kind === 'marker').length,
      'every marker comes with its frame',
    )
    for (const at of recovered.streams) {
      const stream = this.streams.get(`${at.vpg}/${at.stream}`)
      expect(stream !== undefined, 'the stream is known')
      const isBehind = at.lastSequence < stream.lastAcknowledged
      const isAllFreed = ![...this.kept.keys()].some(
        record => record.streamKey === keyOf(stream) && record.lastSequence > at.lastSequence,
      )
      expect(!isBehind || isAllFreed, `stream ${at.stream} reaches ${stream.lastAcknowledged}: ${at.lastSequence}`)
      stream.lastAcknowledged = Math.max(stream.lastAcknowledged, at.lastSequence)
    }
    for (const stream of this.streams.values()) {
      // What was never acknowledged and is gone is sent again, cut into other batches.
      for (const record of stream.records.values()) {
        if (record.lastSequence > stream.lastAcknowledged) stream.records.delete(record.firstSequence)
      }
      stream.lastAppended = stream.lastAcknowledged
    }
  }

  /** Appends one random group; true when it was acknowledged. */
  append(): boolean {
    const records = Array.from({ length: this.random.integer(1, 5) }, () => this.#nextRecord())
    return this.retry(records)
  }

  /** Appends these records (again). */
  retry(records: readonly ModelRecord[]): boolean {
    expect(this.log !== undefined, 'the log is open')
    const bytes = records.map(record => {
      const stream = this.streams.get(record.streamKey)
      expect(stream !== undefined, 'the stream is known')
      return encodeRecord(record, stream)
    })
    for (let attempt = 0; attempt < 5; attempt++) {
      try {
        const { mark } = this.log.appendGroup(bytes)
        for (const record of records) {
          this.kept.set(record, mark.fileIdentity)
          const stream = this.streams.get(record.streamKey)
          if (stream !== undefined) stream.lastAcknowledged = record.lastSequence
        }
        return true
      } catch (error) {
        if (!failedWith(error, 'JOURNAL_FULL') && !failedWith(error, 'DISK_FAILED')) throw error
        this.events.push(error.code)
        this.work()
      }
    }
    return false
  }

  #nextRecord(): ModelRecord {
    const keys = [...this.streams.keys()]
    const streamKey = keys[this.random.integer(0, keys.length - 1)] ?? ''
    const stream = this.streams.get(streamKey)
    expect(stream !== undefined, 'the stream is known')
    const firstSequence = stream.lastAppended + 1
    const lastSequence = firstSequence + this.random.integer(0, 4)
    stream.lastAppended = lastSequence
    const text = `${streamKey} ${firstSequence} to ${lastSequence}, written as number ${++this.#salt}. `
    const frame = Buffer.alloc(this.random.integer(40, 5000), text)
    const kind = this.random.chance(0.2) ? 'marker' : 'batch'
    const record = { streamKey, firstSequence, lastSequence, kind, frame } as const
    stream.records.set(firstSequence, record)
    return record
  }

  /** Does everything that the preparing thread was asked for. A disk that refuses is asked again later. */
  work(): void {
    const requests = this.#requests
    this.#requests = []
    for (const [index, request] of requests.entries()) {
      try {
        request()
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === undefined) throw error
        this.#requests.unshift(...requests.slice(index))
        return
      }
    }
  }

  /** Nobody needs the oldest file (or any but the open one) any more. */
  freeOne(): void {
    const open = this.log?.durable().fileIdentity
    const files = [...new Set(this.kept.values())].filter(identity => identity !== open).sort((a, b) => a - b)
    const fileIdentity = this.random.chance(0.7) ? files[0] : files[this.random.integer(0, files.length - 1)]
    if (fileIdentity === undefined) return
    for (const [record, identity] of this.kept) if (identity === fileIdentity) this.kept.delete(record)
    this.log?.freeFile(fileIdentity)
  }

  /** Groups, rotations, files prepared in time and too late, files freed and recycled. */
  live(groupCount: number): void {
    for (let group = 0; group < groupCount; group++) {
      this.append()
      if (this.random.chance(0.6)) this.work()
      if (group > 4 && this.random.chance(0.3)) this.freeOne()
    }
  }
}

function keyOf(stream: ModelStream): string {
  return `${stream.vpg}/${stream.stream}`
}

function placeText(place: { fileIdentity: number; offsetBytes: number; sizeBytes: number }): string {
  return `${place.fileIdentity}:${place.offsetBytes}+${place.sizeBytes}`
}

/** Thrown when the log broke a promise: tests let it pass on, or expect it. */
export class BrokenPromise extends Error {}

export function expect(condition: boolean, promise: string): asserts condition {
  if (!condition) throw new BrokenPromise(promise)
}

export const logPath = (name: string): string => path.join(directory, 'log', name)
