import type { Clock } from '../../src/base/clock.ts'
import { Failure } from '../../src/base/failure.ts'
import type { LogBatch } from '../../src/journal/log-reader.ts'
import { logRecordHeaderSizeBytes } from '../../src/base/limits.ts'
import { recordSizeBytes, type RecordHeader } from '../../src/journal/record.ts'
import type { LogMark } from '../../src/aging/service.ts'
import type { TailedLog } from '../../src/aging/tools.ts'
import type { ByteRange, ListedObject, ObjectStore } from '../../src/store/object-store.ts'
import { MemoryStore } from './segment-store.ts'

/** A clock that only goes on when told, or when somebody sleeps for less than a quarter of a minute. */
export class SteppedClock implements Clock {
  #millis = 1_000_000
  #wallAheadMillis = 0

  advance(millis: number): void {
    this.#millis += millis
  }

  /** The wall clock alone. */
  jump(millis: number): void {
    this.#wallAheadMillis += millis
  }

  timestampMicros(): number {
    return (this.#millis + this.#wallAheadMillis) * 1000
  }

  monotonicMillis(): number {
    return this.#millis
  }

  /** Longer sleeps are bounds, which no test here lets expire: they end by their signal. */
  async sleep(delayMillis: number, signal: AbortSignal): Promise<void> {
    if (delayMillis > 15_000) {
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('woken'))))
    }
    this.advance(delayMillis)
    await new Promise(resolve => setImmediate(resolve))
    signal.throwIfAborted()
  }

  after(_delayMillis: number, call: () => void): () => void {
    const immediate = setImmediate(call)
    return () => clearImmediate(immediate)
  }
}

/** What happens to a call of the store: it works, fails without effect, fails with its effect, is refused, or the process dies there. */
export type Fate = 'works' | 'refused' | 'fails-before' | 'fails-after' | 'dies-before' | 'dies-after'

/** A store whose calls meet a fate each. The dead one never answers again; what it holds is still there for the next process. */
export class FatefulStore implements ObjectStore {
  readonly memory: MemoryStore
  operationCount = 0
  isDead = false
  /** Of keys that were created, in order. */
  readonly created: string[] = []
  readonly #fateOf: (operation: number, key: string) => Fate

  constructor(memory: MemoryStore, fateOf: (operation: number, key: string) => Fate = () => 'works') {
    this.memory = memory
    this.#fateOf = fateOf
  }

  async create(key: string, body: Uint8Array): Promise<void> {
    await this.#meet(key, async () => {
      await this.memory.create(key, body)
      this.created.push(key)
    })
  }

  async readRange(key: string, range: ByteRange, signal: AbortSignal): Promise<Uint8Array> {
    return await this.#meet(key, () => this.memory.readRange(key, range, signal))
  }

  async *list(prefix: string, after: string | undefined): AsyncIterable<ListedObject> {
    const listed: ListedObject[] = []
    await this.#meet(prefix, async () => {
      for await (const object of this.memory.list(prefix, after)) listed.push(object)
    })
    yield* listed
  }

  async remove(key: string): Promise<void> {
    await this.#meet(key, () => this.memory.remove(key))
  }

  async close(): Promise<void> {}

  async #meet<T>(key: string, act: () => Promise<T>): Promise<T> {
    const fate = this.isDead ? 'dies-before' : this.#fateOf(this.operationCount++, key)
    if (fate === 'dies-before' || fate === 'dies-after') this.isDead = true
    const result = fate === 'works' || fate.endsWith('after') ? await act() : undefined
    if (fate === 'works') return result as T
    if (fate.startsWith('dies')) throw new Failure('CLOSING', 'the process dies here')
    if (fate === 'refused') throw new Failure('CONFIG_INVALID', `the bucket refuses us "${key}"`)
    throw new Failure('STORE_UNAVAILABLE', `the store does not answer (${fate})`)
  }
}

interface MemoryRecord {
  readonly header: RecordHeader
  readonly frame: Uint8Array
}

/** A commit log in memory, in small files, that outlives the processes that read it. */
export class MemoryLog {
  readonly files = new Map<number, Map<number, MemoryRecord>>()
  /** Places of records whose frames cannot be read any more. */
  readonly rotten = new Set<string>()
  readonly #fileSizeBytes: number
  #identity = 1
  #offsetBytes = 0

  constructor(fileSizeBytes: number) {
    this.#fileSizeBytes = fileSizeBytes
    this.files.set(1, new Map())
  }

  append(record: MemoryRecord): void {
    if (this.#offsetBytes >= this.#fileSizeBytes) this.nextFile()
    const header = { ...record.header, fileIdentity: this.#identity, offsetBytes: this.#offsetBytes }
    this.files.get(this.#identity)?.set(this.#offsetBytes, { header, frame: record.frame })
    this.#offsetBytes += recordSizeBytes(record.frame.length)
  }

  /** Everything that it holds, oldest first. */
  records(): MemoryRecord[] {
    return [...this.files.values()].flatMap(file => [...file.values()])
  }

  nextFile(): void {
    this.#identity++
    this.#offsetBytes = 0
    this.files.set(this.#identity, new Map())
  }

  get mark(): LogMark {
    return { fileIdentity: this.#identity, offsetBytes: this.#offsetBytes }
  }

  /** Recycles a file: its records are gone. */
  free(fileIdentity: number): void {
    this.files.delete(fileIdentity)
  }

  reader(): MemoryLogReader {
    return new MemoryLogReader(this)
  }
}

class MemoryLogReader implements TailedLog {
  readonly #log: MemoryLog
  #at: LogMark

  constructor(log: MemoryLog) {
    this.#log = log
    this.#at = { fileIdentity: Math.min(...log.files.keys()), offsetBytes: 0 }
  }

  next(limit: LogMark, sizeBytesMax: number): LogBatch {
    const records: { header: RecordHeader; place: { fileIdentity: number; offsetBytes: number; sizeBytes: number } }[] =
      []
    let taken = 0
    while (taken < sizeBytesMax) {
      const { fileIdentity, offsetBytes } = this.#at
      const record = this.#log.files.get(fileIdentity)?.get(offsetBytes)
      if (fileIdentity > limit.fileIdentity) break
      if (fileIdentity === limit.fileIdentity && offsetBytes >= limit.offsetBytes) break
      if (record === undefined) {
        this.#at = { fileIdentity: fileIdentity + 1, offsetBytes: 0 }
        continue
      }
      const sizeBytes = recordSizeBytes(record.frame.length)
      records.push({ header: record.header, place: { fileIdentity, offsetBytes, sizeBytes } })
      this.#at = { fileIdentity, offsetBytes: offsetBytes + sizeBytes }
      taken += sizeBytes
    }
    return { records, damage: [] }
  }

  position(): LogMark {
    return this.#at
  }

  files(limit: LogMark): number[] {
    return [...this.#log.files.keys()].filter(identity => identity <= limit.fileIdentity)
  }

  readRecord(place: { readonly fileIdentity: number; readonly offsetBytes: number }): Uint8Array {
    const record = this.#log.files.get(place.fileIdentity)?.get(place.offsetBytes)
    if (record === undefined) throw new Failure('NOT_FOUND', `log file ${place.fileIdentity} was recycled`)
    if (this.#log.rotten.has(`${place.fileIdentity}/${place.offsetBytes}`)) {
      throw new Failure('RECORD_CORRUPT', `log file ${place.fileIdentity}, byte ${place.offsetBytes}: rotten`)
    }
    return record.frame
  }

  readUnchecked(place: { readonly fileIdentity: number; readonly offsetBytes: number }, target: Uint8Array): void {
    target.set(this.readRecord(place), logRecordHeaderSizeBytes)
  }

  readUncheckedPart(
    place: { readonly fileIdentity: number; readonly offsetBytes: number },
    range: { readonly startBytes: number; readonly endBytes: number },
  ): Uint8Array {
    return this.readRecord(place).subarray(range.startBytes, range.endBytes)
  }

  close(): void {}
}
