import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { ImagePlan } from '../aging/service.ts'
import { onAbort } from '../base/abort.ts'
import { failureFromRecord, type FailureRecord } from '../base/failure.ts'
import { threadYoungSizeMiBMax } from '../base/limits.ts'
import { endThread } from '../base/threads.ts'
import type { StoreConfig } from '../store/object-store.ts'
import { spoolFilledBy, type FilledSpool, type Spooled, type SpoolOptions, type SpoolTarget } from './spool-image.ts'
import type { SharePlace } from './spool-room.ts'
import type { SpoolableImage } from './types.ts'

export interface SpoolWorkerData {
  readonly store: StoreConfig
  readonly dataDirectory: string
  readonly plan: ImagePlan
  readonly volumes: readonly number[]
  /** Of the file, which belongs to all threads. */
  readonly descriptor: number
  /** Where the file lies: as much of it has to stay free. */
  readonly directory: string
  readonly share: SharePlace
}

/** What the thread says once. */
export interface SpoolEnd {
  /** Undefined: there is no room. */
  readonly filled?: FilledSpool | undefined
  readonly failure?: FailureRecord
}

/** So long a thread that is needed no more may take to end its requests: the store's load counts those of one that is ended under way for ever. */
const endMillisMax = 2_000

export type SpoolSources = Pick<SpoolWorkerData, 'store' | 'dataDirectory'>

/**
 * As spoolImage() does, in a thread of its own that stands behind: the image is read on meanwhile, as before. The plan is the image's. Aborted, it rejects when the thread
 * has ended.
 */
export async function spoolInThread(
  image: SpoolableImage,
  plan: ImagePlan,
  volumes: readonly number[],
  sources: SpoolSources,
  options: SpoolOptions,
  signal: AbortSignal,
): Promise<Spooled | undefined> {
  signal.throwIfAborted()
  const work = ({ file, directory, share }: SpoolTarget): Promise<FilledSpool | undefined> =>
    fill({ ...sources, plan, volumes, descriptor: file.descriptor, directory, share: share.place }, signal)
  return await spoolFilledBy(work, image, options)
}

/** On return, and where it rejects, nothing writes to the file any more. */
async function fill(workerData: SpoolWorkerData, signal: AbortSignal): Promise<FilledSpool | undefined> {
  const resourceLimits = { maxYoungGenerationSizeMb: threadYoungSizeMiBMax }
  const worker = new Worker(new URL('./spool-worker.js', import.meta.url), { workerData, resourceLimits })
  const ended = new Promise<void>(resolve => worker.once('exit', () => resolve()))
  let endTimer: NodeJS.Timeout | undefined
  const forget = onAbort(signal, () => {
    worker.postMessage('end')
    endTimer = setTimeout(() => void endThread(worker), endMillisMax)
  })
  try {
    const gone = ended.then((): SpoolEnd => ({ filled: undefined }))
    const end = await Promise.race([once(worker, 'message').then(([said]) => said as SpoolEnd), gone])
    if (end.failure !== undefined) throw failureFromRecord(end.failure)
    signal.throwIfAborted()
    return end.filled
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    forget()
    clearTimeout(endTimer)
    await endThread(worker)
    await ended
  }
}
