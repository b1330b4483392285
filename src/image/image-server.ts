import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { hashImageCacheSizeBytes } from '../base/limits.ts'
import { realDisk } from '../disk/disk.ts'
import type { CacheFacts } from '../store/object-store.ts'
import {
  exportRaw,
  hashBlocks,
  ImageSources,
  openImage,
  openWritingThread,
  type BlockRun,
  type Image,
  type ImageTools,
} from './image.ts'
import type { ImagePlan } from '../aging/service.ts'
import type { ExportArgument, ExportResult, ImageConfig, ImageNotices, ImageService } from './service.ts'

interface Opened {
  readonly config: ImageConfig
  readonly sources: ImageSources
}

/** The image service itself, in the thread that it runs in. */
export class ImageServer implements ImageService {
  readonly #notify: (progress: ImageNotices['exportProgress']) => void
  readonly #exports = new Map<string, { readonly abort: AbortController; readonly ended: Promise<unknown> }>()
  readonly #hashed = new Map<string, { readonly image: Image; readonly abort: AbortController }>()
  #opened: Opened | undefined

  constructor(notify: (progress: ImageNotices['exportProgress']) => void) {
    this.#notify = notify
  }

  async open(config: ImageConfig): Promise<void> {
    const { store, dataDirectory, cache } = config
    this.#opened = { config, sources: await ImageSources.open(store, dataDirectory, cache) }
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
    const image = await openImage(plan, this.#tools(this.#config.cacheSizeBytes), signal)
    const onProgress = (doneBytes: number, totalBytes: number): void => this.#notify({ id, doneBytes, totalBytes })
    const openWriter = openWritingThread
    const written = await exportRaw({ image, volume, file, existing, disk: realDisk, openWriter, onProgress, signal })
    return { ...written, millis: performance.now() - startedMillis }
  }

  async openHashes({ id, plan }: { readonly id: string; readonly plan: ImagePlan }): Promise<void> {
    const abort = new AbortController()
    const image = await openImage(plan, this.#tools(hashImageCacheSizeBytes), abort.signal)
    this.#hashed.set(id, { image, abort })
  }

  async hashBlocks({ id, ...run }: BlockRun & { readonly id: string }): Promise<Uint8Array> {
    const open = this.#hashed.get(id)
    if (open === undefined) throw new Failure('NOT_FOUND', `no image is open under the id ${id}`)
    return await hashBlocks(open.image, run, open.abort.signal)
  }

  cacheFacts(): Promise<CacheFacts | undefined> {
    return Promise.resolve(this.#opened?.sources.cacheFacts)
  }

  closeHashes({ id }: { readonly id: string }): Promise<void> {
    this.#hashed.get(id)?.abort.abort(new Failure('CLOSING', 'nobody waits for these hashes any more'))
    this.#hashed.delete(id)
    return Promise.resolve()
  }

  get #config(): ImageConfig {
    assert(this.#opened !== undefined, 'open() is the first call')
    return this.#opened.config
  }

  #tools(cacheSizeBytes: number): ImageTools {
    assert(this.#opened !== undefined, 'open() is the first call')
    return this.#opened.sources.tools(cacheSizeBytes)
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
    for (const id of [...this.#hashed.keys()]) await this.closeHashes({ id })
    await this.#opened?.sources.close()
    this.#opened = undefined
  }
}
