import { setTimeout as delay } from 'node:timers/promises'
import type { SingleBar } from 'cli-progress'
import { failureFromRecord } from '../base/failure.ts'
import type { ExportJob, PreseedJob, VerifyJob } from '../control/service.ts'
import { durationInWords, sizeInWords } from '../control/words.ts'

const pollMillis = 250
const barWidth = 40

interface Progress {
  readonly doneBytes: number
  readonly totalBytes: number | undefined
}

/**
 * Looks at a job until it has ended, with a bar on stderr where that is a terminal. A job that failed throws its Failure; Ctrl-C cancels it and says so.
 */
export async function untilEnded<J extends ExportJob | PreseedJob | VerifyJob>(
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
  const bar = await barFor(calls.progressOf(job))
  try {
    let current = job
    while (current.state === 'running') {
      await delay(pollMillis, undefined, { signal: interrupted.signal }).catch(() => undefined)
      current = interrupted.signal.aborted ? await calls.cancel() : await calls.look()
      const { doneBytes, totalBytes } = calls.progressOf(current)
      if (totalBytes !== undefined) bar?.setTotal(totalBytes)
      bar?.update(doneBytes, { done: sizeInWords(doneBytes), total: totalBytes !== undefined })
    }
    if (current.failure !== undefined) throw failureFromRecord(current.failure)
    return current
  } finally {
    bar?.stop()
    process.removeListener('SIGINT', interrupt)
    process.removeListener('SIGTERM', interrupt)
  }
}

async function barFor({ doneBytes, totalBytes }: Progress): Promise<SingleBar | undefined> {
  if (process.stderr.isTTY !== true) return undefined
  const { SingleBar } = await import('cli-progress')
  const bar = new SingleBar({
    format: (_, { progress, eta }, { done, total }: { done: string; total: boolean }) => {
      if (!total) return `${done} checked`
      const full = Math.round(barWidth * progress)
      const toGo = Number.isFinite(eta) && eta > 0 ? `  ${durationInWords(eta * 1000)} to go` : ''
      return `${'█'.repeat(full)}${'░'.repeat(barWidth - full)} ${Math.floor(progress * 100)} %  ${done}${toGo}`
    },
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    etaBuffer: 40,
  })
  bar.start(totalBytes ?? 1, doneBytes, { done: sizeInWords(doneBytes), total: totalBytes !== undefined })
  return bar
}
