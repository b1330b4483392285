import { regionSizeBytes } from '../base/limits.ts'
import { realDisk } from '../disk/disk.ts'
import { LogReader } from '../journal/log-reader.ts'
import { openSegment, tailSource } from '../segment/segment.ts'
import { openStore, type CacheConfig, type CacheFacts, type ObjectStore, type StoreConfig } from '../store/store.ts'
import type { ImageTools } from './types.ts'

/** Where images find their bytes, of one thread: the store, and the log beside it. */
export class ImageSources {
  readonly #store: ObjectStore
  readonly #dataDirectory: string
  /** Opened when a plan first has records in the log. */
  #reader: LogReader | undefined

  private constructor(store: ObjectStore, dataDirectory: string) {
    this.#store = store
    this.#dataDirectory = dataDirectory
  }

  /** `dataDirectory` is that of the journal: the commit log is below it. */
  static async open(store: StoreConfig, dataDirectory: string, cache: CacheConfig | undefined): Promise<ImageSources> {
    return new ImageSources(await openStore(store, { cache }), dataDirectory)
  }

  get cacheFacts(): CacheFacts | undefined {
    return this.#store.cacheFacts
  }

  tools(cacheSizeBytes: number): ImageTools {
    return {
      store: this.#store,
      openSegment: segment => openSegment(this.#store, segment),
      openTail: records => {
        this.#reader ??= new LogReader({ disk: realDisk, directory: this.#dataDirectory })
        return tailSource('the commit log', records, this.#reader)
      },
      cacheSizeBytes,
      regionSizeBytes,
    }
  }

  async close(): Promise<void> {
    this.#reader?.close()
    await this.#store.close()
  }
}
