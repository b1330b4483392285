import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { Failure, failureToRecord } from '../base/failure.ts'
import { standBehind } from '../base/priority.ts'
import { UnnamedFile } from '../disk/disk.ts'
import { ImageSources } from './image-sources.ts'
import { openImage } from './image.ts'
import { fillSpoolFile } from './spool-image.ts'
import { SpoolShare } from './spool-room.ts'
import type { SpoolEnd, SpoolWorkerData } from './spool-thread.ts'

// The thread that fills the spool of an image that another one reads; see spool-thread.ts. It has an image of its own, by the same plan, and says once how it went: early,
// after any message to it.

assert(parentPort !== null, 'this file is the start of a worker thread')
standBehind()

/** Of the image's memory: every batch is read once, and nothing again. */
const cacheSizeBytes = 0

async function run(data: SpoolWorkerData, signal: AbortSignal): Promise<SpoolEnd> {
  const { store, dataDirectory, plan, volumes, directory } = data
  const sources = await ImageSources.open(store, dataDirectory, undefined)
  try {
    const image = await openImage(plan, sources.tools(cacheSizeBytes), signal)
    const file = UnnamedFile.of(data.descriptor)
    const share = SpoolShare.of(data.share)
    return { filled: await fillSpoolFile(image, new Set(volumes), { file, directory, share }, signal) }
  } catch (error) {
    if (error instanceof Failure) return { failure: failureToRecord(error) }
    throw error
  } finally {
    await sources.close()
  }
}

const needed = new AbortController()
parentPort.once('message', () => needed.abort(new Failure('CLOSING', 'the spool is needed no more')))
parentPort.postMessage(await run(workerData as SpoolWorkerData, needed.signal))
