import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { systemClock } from '../base/clock.ts'
import { logPoolFileCount } from '../base/limits.ts'
import { realDisk } from '../disk/disk.ts'
import type { FromPreparer, PreparerOptions, ToPreparer } from './commit-messages.ts'
import { LogFilePool } from './file-pool.ts'

// The thread that makes log files ready, so that zeroing 64 MiB delays nobody. One request at a time, in order; freed
// files first, because the requests may wait for them.

const retryMillis = 1_000
/** Zeroing ahead takes this share of the disk's time, and of the free space no more than this. */
const zeroAheadShare = 0.2
const zeroAheadFreeShareMax = 0.25
/** A start has better things to do. */
const zeroAheadDelayMillis = 10_000

/** What a burst has used is kept for the next, up to a quarter of the log. */
function sparesOf({ logSizeBytesMax, fileSizeBytes }: PreparerOptions): number {
  return Math.floor(logSizeBytesMax / 4 / fileSizeBytes)
}

const port = parentPort
assert(port !== null, 'this file is the entry of a worker thread')
const options = workerData as PreparerOptions
const pool = new LogFilePool(realDisk, {
  directory: options.directory,
  fileSizeBytes: options.fileSizeBytes,
  spareCountMax: Math.max(logPoolFileCount, sparesOf(options)),
  timestampMicros: systemClock.timestampMicros,
})
const wanted: number[] = []
const freed: number[] = []
const closing = new AbortController()
let running = false

const say = (message: FromPreparer): void => port.postMessage(message)

/** True when there is nothing left to do; false when the disk refused, and it is to be tried again. */
function work(): boolean {
  try {
    for (let fileIdentity = freed[0]; fileIdentity !== undefined; fileIdentity = freed[0]) {
      pool.free(fileIdentity)
      freed.shift()
      say({ type: 'spares', spareCount: pool.spareCount() })
      void zeroAhead()
    }
    const fileIdentity = wanted[0]
    if (fileIdentity === undefined) return true
    pool.prepare(fileIdentity)
    wanted.shift()
    say({ type: 'ready', fileIdentity, spareCount: pool.spareCount() })
    return wanted.length === 0
  } catch {
    // The commit thread meets the same disk, and tells of it; here it is enough to go on trying.
    return false
  }
}

async function run(): Promise<void> {
  if (running) return
  running = true
  const { signal } = closing
  while (!signal.aborted) {
    const before = wanted.length + freed.length
    if (work()) break
    const progressed = wanted.length + freed.length < before
    await systemClock.sleep(progressed ? 0 : retryMillis, signal).catch(() => undefined)
  }
  running = false
}

/** Makes files of zeros while nobody asks for anything: at a start, and after a burst has used them up. */
async function zeroAhead(): Promise<void> {
  const { signal } = closing
  const fileCount = Math.min(logPoolFileCount, sparesOf(options))
  await systemClock.sleep(zeroAheadDelayMillis, signal).catch(() => undefined)
  while (!signal.aborted) {
    const startMillis = systemClock.monotonicMillis()
    const more = !running && roomAhead() && tryZeroAhead(fileCount)
    const tookMillis = systemClock.monotonicMillis() - startMillis
    const pauseMillis = more ? tookMillis * (1 / zeroAheadShare - 1) : retryMillis
    await systemClock.sleep(pauseMillis, signal).catch(() => undefined)
  }
}

function roomAhead(): boolean {
  const wantedBytes = logPoolFileCount * options.fileSizeBytes
  return realDisk.freeBytes(options.directory) * zeroAheadFreeShareMax > wantedBytes
}

/** A disk that refuses is met, and told of, by the commit thread. */
function tryZeroAhead(fileCount: number): boolean {
  try {
    return pool.zeroAhead(fileCount)
  } catch {
    return false
  }
}

port.on('message', (message: ToPreparer) => {
  if (message.type === 'close') {
    closing.abort()
    port.close()
    return
  }
  if (message.type === 'prepare') wanted.push(message.fileIdentity)
  else freed.push(message.fileIdentity)
  void run()
})
say({ type: 'spares', spareCount: pool.spareCount() })
void zeroAhead()
