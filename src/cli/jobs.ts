import { setTimeout as delay } from 'node:timers/promises'
import { SingleBar } from 'cli-progress'
import { failureFromRecord } from '../base/failure.ts'
import type { ExportJob, VerifyJob } from '../control/service.ts'
import { sizeInWords } from '../control/words.ts'

const pollMillis = 250

interface Progress {
  readonly doneBytes: number
  readonly totalBytes: number | undefined
}

/**
 * Looks at a job until it has ended, with a bar on stderr where that is a terminal. A job that failed throws its Failure; Ctrl-C cancels it and says so.
 */
export async function untilEnded<J extends ExportJob | VerifyJob>(
  job: J,
  calls: {
    readonly look: () => Promise<J>
    readonly cancel: () => Promise<J>
    readonly progressOf: (job: J) => Progress
  },
): Promise<J> {
  const interrupted = new AbortController()
  const interrupt = (): void => interrupted.abort()
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  const bar = barFor(calls.progressOf(job))
  try {
    let current = job
    while (current.state === 'running') {
      await delay(pollMillis, undefined, { signal: interrupted.signal }).catch(() => undefined)
      current = interrupted.signal.aborted ? await calls.cancel() : await calls.look()
      const { doneBytes, totalBytes } = calls.progressOf(current)
      if (totalBytes !== undefined) bar?.setTotal(totalBytes)
      bar?.update(doneBytes, { done: sizeInWords(doneBytes) })
    }
    if (current.failure !== undefined) throw failureFromRecord(current.failure)
    return current
  } finally {
    bar?.stop()
    process.removeListener('SIGINT', interrupt)
    process.removeListener('SIGTERM', interrupt)
  }
}

function barFor({ doneBytes, totalBytes }: Progress): SingleBar | undefined {
  if (process.stderr.isTTY !== true) return undefined
  const bar = new SingleBar({
    format: '{bar} {percentage} %  {done}  {eta_formatted} to go',
    stream: process.stderr,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    hideCursor: true,
    clearOnComplete: true,
    etaBuffer: 40,
  })
  bar.start(totalBytes ?? 1, doneBytes, { done: sizeInWords(doneBytes) })
  return bar
}
