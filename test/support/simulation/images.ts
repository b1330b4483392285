import type { ImagePlan } from '../../../src/aging/service.ts'
import { Failure } from '../../../src/base/failure.ts'
import { regionSizeBytes } from '../../../src/base/limits.ts'
import { MiB } from '../../../src/base/units.ts'
import type { Exports, ImageThread } from '../../../src/daemon/exports.ts'
import type { Disk } from '../../../src/disk/disk.ts'
import { hashBlocks, openImage, type BlockRun, type Image, type ImageTools } from '../../../src/image/image.ts'
import { LogReader } from '../../../src/journal/log-reader.ts'
import { openSegment, tailSource } from '../../../src/segment/segment.ts'
import type { ObjectStore } from '../../../src/store/object-store.ts'
import { sectorBytes, type Sectors } from './volume.ts'
import type { Life } from './world.ts'

const cacheSizeBytes = 2 * MiB

/** What the thread that reads images does, without a thread: the images are the real ones, over the simulated store and log. */
export class SimulatedImages implements Pick<Exports, 'openThread'> {
  readonly #life: Life
  readonly #hashed = new Map<string, Image>()
  readonly #over = new AbortController()
  readonly #tools: ImageTools

  constructor(life: Life, store: ObjectStore, disk: Disk, directory: string) {
    this.#life = life
    this.#tools = imageTools(store, disk, directory)
  }

  openThread(): Promise<ImageThread> {
    const client = { call: (name: string, argument: object) => this.#call(name, argument as never) }
    return Promise.resolve({ client } as unknown as ImageThread)
  }

  /** What a volume holds as of the plan's checkpoint. */
  async read(plan: ImagePlan): Promise<ReadonlyMap<number, Sectors>> {
    const image = await this.#open(plan)
    const volumes = new Map<number, Sectors>()
    for (const { number, sizeBytes, included } of image.volumes) {
      if (!included) continue
      const sectors: Sectors = new Map()
      const piece = (offsetBytes: number, bytes: Uint8Array): void => {
        const copy = Buffer.from(bytes)
        for (let at = 0; at < copy.length; at += sectorBytes)
          sectors.set((offsetBytes + at) / sectorBytes, copy.subarray(at, at + sectorBytes))
      }
      const sink = { piece, progress: () => undefined }
      await image.scatter(number, { startBytes: 0, endBytes: sizeBytes }, sink, this.#over.signal)
      volumes.set(number, sectors)
    }
    return volumes
  }

  #open(plan: ImagePlan): Promise<Image> {
    return openImage(plan, this.#tools, this.#over.signal)
  }

  async #call(name: string, { id, plan, ...run }: BlockRun & { id: string; plan: ImagePlan }): Promise<unknown> {
    const { world } = this.#life.host
    await this.#life.clock.sleep(world.delay(0.1, 50), this.#over.signal)
    if (name === 'openHashes') return void this.#hashed.set(id, await this.#open(plan))
    if (name === 'closeHashes') return void this.#hashed.delete(id)
    const image = this.#hashed.get(id)
    if (image === undefined) throw new Failure('NOT_FOUND', `no image is open under the id ${id}`)
    return await hashBlocks(image, run, this.#over.signal)
  }
}

/** Over the store, and the log in the directory. */
export function imageTools(store: ObjectStore, disk: Disk, directory: string): ImageTools {
  let reader: LogReader | undefined
  return {
    store,
    openSegment: segment => openSegment(store, segment),
    openTail: records => {
      reader ??= new LogReader({ disk, directory })
      return tailSource('the commit log', records, reader)
    },
    cacheSizeBytes,
    regionSizeBytes,
  }
}
