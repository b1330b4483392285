import { parentPort, Worker, workerData } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { systemClock } from '../base/clock.ts'
import { Failure, failureToRecord } from '../base/failure.ts'
import { threadYoungSizeMiBMax } from '../base/limits.ts'
import { prepareCrc32c } from '../codec/crc32c.ts'
import { realDisk } from '../disk/disk.ts'
import { type CommitLog, openLog } from './commit-log.ts'
import type {
  CommitWorkerOptions,
  FromCommitWorker,
  FromPreparer,
  JournalEventCall,
  PreparerOptions,
  ToCommitWorker,
  ToPreparer,
} from './commit-messages.ts'

// The thread that owns the commit log. It takes a group, writes and syncs it, and says so; while the log is full or the
// disk fails it keeps the group and tries again, every second and whenever a file becomes ready.

const retryMillis = 1_000

const port = parentPort
assert(port !== null, 'this file is the entry of a worker thread')
const options = workerData as CommitWorkerOptions
const memory = new Uint8Array(options.memory)
const durableSaid = new Int32Array(options.durableSaid)
const closing = new AbortController()

const say = (message: FromCommitWorker): void => options.port.postMessage(message)
/** The first word, which whoever starts the thread waits for. */
const answer = (message: FromCommitWorker): void => port.postMessage(message)
const tell = (event: JournalEventCall): void => say({ type: 'event', event })

let preparer: Worker | undefined
let spareCount = 0
/** Requests from before the preparing thread runs: it starts after recovery, because it would touch the same names. */
const early: ToPreparer[] = []
const askPreparer = (message: ToPreparer): void => {
  if (preparer === undefined) early.push(message)
  else preparer.postMessage(message)
}

let log: CommitLog | undefined
let kept: { readonly records: readonly Uint8Array[]; readonly stalledSinceMillis: number | undefined } | undefined
let retrying = false

function open(): void {
  const opened = openLog(realDisk, {
    directory: options.directory,
    fileSizeBytes: options.fileSizeBytes,
    logSizeBytesMax: options.logSizeBytesMax,
    timestampMicros: systemClock.timestampMicros,
    files: {
      prepare: fileIdentity => askPreparer({ type: 'prepare', fileIdentity }),
      free: fileIdentity => askPreparer({ type: 'free', fileIdentity }),
    },
    events: {
      fileRotated: value => tell({ name: 'fileRotated', value }),
      diskFailed: value => tell({ name: 'diskFailed', value }),
    },
  })
  log = opened.log
  answer({ type: 'opened', recovered: opened.recovered })
  prepareCrc32c() // for all threads: the one that receives would hold everybody up
  startPreparer()
  sayFiles()
}

function startPreparer(): void {
  const { directory, fileSizeBytes, logSizeBytesMax } = options
  const preparerOptions: PreparerOptions = { directory, fileSizeBytes, logSizeBytesMax }
  const worker = new Worker(new URL('./preparer-worker.js', import.meta.url), {
    workerData: preparerOptions,
    resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
  })
  worker.on('message', (message: FromPreparer) => {
    spareCount = message.spareCount
    if (message.type === 'ready') {
      log?.addReady(message.fileIdentity)
      if (kept?.stalledSinceMillis !== undefined) tryGroup()
    }
    sayFiles()
  })
  worker.on('error', error => {
    throw error
  })
  preparer = worker
  for (const message of early.splice(0)) worker.postMessage(message)
}

function sayFiles(): void {
  if (log !== undefined) say({ type: 'files', counts: log.counts(), spareCount })
}

function tryGroup(): void {
  const group = kept
  if (group === undefined || log === undefined) return
  const startedMillis = systemClock.monotonicMillis()
  const fileIdentity = log.durable().fileIdentity
  try {
    const { mark, offsetsBytes } = log.appendGroup(group.records)
    const nowMillis = systemClock.monotonicMillis()
    if (group.stalledSinceMillis !== undefined) {
      say({ type: 'resumed', waitedMillis: nowMillis - group.stalledSinceMillis })
    }
    kept = undefined
    const places = Float64Array.from(offsetsBytes)
    Atomics.store(durableSaid, 0, 1) // before the message: a look too early finds nothing, one too late would stay for the next group
    say({ type: 'durable', mark, offsetsBytes: places, syncMillis: nowMillis - startedMillis })
    if (mark.fileIdentity !== fileIdentity) sayFiles()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    if (group.stalledSinceMillis === undefined) say({ type: 'stalled', sentence: error.message })
    kept = { records: group.records, stalledSinceMillis: group.stalledSinceMillis ?? startedMillis }
    void retryLater()
  }
}

async function retryLater(): Promise<void> {
  if (retrying || closing.signal.aborted) return
  retrying = true
  await systemClock.sleep(retryMillis, closing.signal).catch(() => undefined)
  retrying = false
  if (!closing.signal.aborted) tryGroup()
}

function close(): void {
  closing.abort()
  try {
    log?.close()
  } catch {
    // Nothing that was acknowledged depends on it; the next start finds the same records.
  }
  preparer?.postMessage({ type: 'close' } satisfies ToPreparer)
  port?.close()
  options.port.close()
}

port.on('message', (message: ToCommitWorker) => {
  switch (message.type) {
    case 'group': {
      assert(kept === undefined, 'one group is in flight at a time')
      const records: Uint8Array[] = []
      for (let index = 0; index < message.records.length; index += 2) {
        const offsetBytes = message.records[index] ?? 0
        records.push(memory.subarray(offsetBytes, offsetBytes + (message.records[index + 1] ?? 0)))
      }
      kept = { records, stalledSinceMillis: undefined }
      return tryGroup()
    }
    case 'free':
      log?.freeFile(message.fileIdentity)
      return sayFiles()
    case 'close':
      return close()
  }
})

try {
  open()
} catch (error) {
  const failure =
    error instanceof Failure
      ? error
      : new Failure('DISK_FAILED', `the log in ${options.directory} cannot be opened: ${String(error)}`)
  answer({ type: 'failed', failure: failureToRecord(failure) })
  close()
}
