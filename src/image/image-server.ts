import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { regionSizeBytes } from '../base/limits.ts'
import { realDisk } from '../disk/disk.ts'
import { LogReader } from '../journal/log-reader.ts'
import { openSegment, tailSource } from '../segment/segment.ts'
import { openStore, type ObjectStore } from '../store/store.ts'
import { exportRaw, openImage, type ImageTools } from './image.ts'
import type { ExportArgument, ExportResult, ImageConfig, ImageNotices, ImageService } from './service.ts'

interface Opened {
  readonly config: ImageConfig
  readonly store: ObjectStore
  /** Opened when a plan first has records in the log. */
  reader: LogReader | undefined
}

/** The image service itself, in the thread that it runs in. */
export class ImageServer implements ImageService {
  readonly #notify: (progress: ImageNotices['exportProgress']) => void
  readonly #exports = new Map<string, { readonly abort: AbortController; readonly ended: Promise<unknown> }>()
  #opened: Opened | undefined

  constructor(notify: (progress: ImageNotices['exportProgress']) => void) {
    this.#notify = notify
  }

  async open(config: ImageConfig): Promise<void> {
    this.#opened = { config, store: await openStore(config.store), reader: undefined }
  }

  async exportRaw(argument: ExportArgument): Promise<ExportResult> {
    if (this.#exports.has(argument.id))
      throw new Failure('ALREADY_EXISTS', `an export of the id ${argument.id} is under way`, { id: argument.id })
    const abort = new AbortController()
    const work = this.#export(argument, abort.signal)
    this.#exports.set(argument.id, { abort, ended: work.catch(() => undefined) })
    try {
      return await work
    } finally {
      this.#exports.delete(argument.id)
    }
  }

  async #export({ id, plan, volume, file, existing }: ExportArgument, signal: AbortSignal): Promise<ExportResult> {
    const startedMillis = performance.now()
    const image = await openImage(plan, this.#tools(), signal)
    const onProgress = (doneBytes: number, totalBytes: number): void => this.#notify({ id, doneBytes, totalBytes })
    const written = await exportRaw({ image, volume, file, existing, disk: realDisk, onProgress, signal })
    return { ...written, millis: performance.now() - startedMillis }
  }

  #tools(): ImageTools {
    const opened = this.#opened
    assert(opened !== undefined, 'open() is the first call')
    const { store, config } = opened
    return {
      store,
      openSegment: segment => openSegment(store, segment),
      openTail: records =>
        tailSource('the commit log', records, record => {
          opened.reader ??= new LogReader({ disk: realDisk, directory: config.dataDirectory })
          return Promise.resolve(opened.reader.readRecord(record))
        }),
      cacheSizeBytes: config.cacheSizeBytes,
      regionSizeBytes,
    }
  }

  cancel({ id }: { readonly id: string }): Promise<void> {
    const sentence = 'the export was cancelled; nothing of it is left'
    this.#exports.get(id)?.abort.abort(new Failure('CLOSING', sentence, { id }))
    return Promise.resolve()
  }

  /** Cancels what is under way, waits until it has ended, and closes the store. */
  async close(): Promise<void> {
    const ending = [...this.#exports].map(async ([id, { ended }]) => {
      await this.cancel({ id })
      await ended
    })
    await Promise.all(ending)
    this.#opened?.reader?.close()
    await this.#opened?.store.close()
    this.#opened = undefined
  }
}
