import * as path from 'node:path'
import { spoolRoomLookSizeBytes } from '../base/limits.ts'
import { UnnamedFile, type DiskFile } from '../disk/disk.ts'
import { imagePace } from './resolved-region.ts'
import { SpoolPartitions } from './spool-partitions.ts'
import type { SpoolRoom, SpoolShare } from './spool-room.ts'
import { checkedSpoolFile, SpoolSums } from './spool-sums.ts'
import type { PieceSink, SpoolableImage, SpoolPlaces } from './types.ts'

export interface SpoolOptions {
  /** Its name for a moment. */
  readonly fileName: string
  /** Told once, when the spool could not be read and the image is read without it from there on. */
  readonly failed: (cause: unknown) => void
  readonly room: SpoolRoom
}

/** A spool that an image is read from. */
export interface Spooled {
  /** The image is read as before, and the spool's room is free on return. */
  close(): Promise<void>
}

/**
 * Makes a spool of what no delta holds of these volumes, and has the image read from it. Undefined, and nothing is changed, where the disk has no room for it,
 * or others are being made. Fails as reading
 * the image does.
 */
export async function spoolImage(
  image: SpoolableImage,
  volumes: ReadonlySet<number>,
  options: SpoolOptions,
  signal: AbortSignal,
): Promise<Spooled | undefined> {
  const fill = (to: SpoolTarget): Promise<FilledSpool | undefined> => fillSpoolFile(image, volumes, to, signal)
  return await spoolFilledBy(fill, image, options)
}

/** The file and its share of the room are given back where it is not filled, and with the spool. */
export async function spoolFilledBy(
  fill: (to: SpoolTarget) => Promise<FilledSpool | undefined>,
  image: SpoolableImage,
  options: SpoolOptions,
): Promise<Spooled | undefined> {
  const share = options.room.begin()
  if (share === undefined) return undefined
  const file = createSpoolFile(options.fileName)
  const giveBack = async (): Promise<void> => {
    await file?.close()
    share.release()
  }
  let filled: FilledSpool | undefined
  try {
    if (file !== undefined) filled = await fill({ file, directory: path.dirname(options.fileName), share })
  } catch (error) {
    await giveBack()
    throw error
  }
  if (file === undefined || filled === undefined) {
    await giveBack()
    return undefined
  }
  share.made()
  useSpool(image, filled, file, options)
  return {
    close: async () => {
      image.useSpool(undefined)
      await giveBack()
    },
  }
}

/** Undefined where the disk has none. */
export function createSpoolFile(name: string): UnnamedFile | undefined {
  try {
    return UnnamedFile.create(name)
  } catch {
    return undefined
  }
}

export interface SpoolTarget {
  readonly file: UnnamedFile
  /** Where it lies. */
  readonly directory: string
  readonly share: SpoolShare
}

export function useSpool(
  image: SpoolableImage,
  { places, sums }: FilledSpool,
  file: UnnamedFile,
  { failed }: Pick<SpoolOptions, 'failed'>,
): void {
  image.useSpool({ places, file: checkedSpoolFile(file, new SpoolSums(places.sizeBytes, sums)), failed })
}

/** For people. */
export function spoolFailedSentence(cause: unknown): string {
  const why = cause instanceof Error ? cause.message : String(cause)
  return `the spool of an image, in the data directory, could not be read: it is used no more, and reads are slower (${why})`
}

export interface FilledSpool {
  readonly places: SpoolPlaces
  /** Of SpoolSums. */
  readonly sums: SharedArrayBuffer
}

/** Writes the spool to the file; undefined where there is no room for it, or the disk fails. */
export async function fillSpoolFile(
  image: SpoolableImage,
  volumes: ReadonlySet<number>,
  target: SpoolTarget,
  signal: AbortSignal,
): Promise<FilledSpool | undefined> {
  const begun: { places?: SpoolPlaces; sink?: SpoolSink } = {}
  try {
    const begin = (places: SpoolPlaces): PieceSink => {
      if (!target.share.reserve(places.sizeBytes, target.directory)) throw new DiskRefused('there is no room')
      begun.places = places
      return (begun.sink = new SpoolSink(target, places.sizeBytes))
    }
    await image.fillSpool(volumes, begin, signal)
    await begun.sink?.finish(signal)
  } catch (error) {
    if (error instanceof DiskRefused) return undefined
    throw error
  }
  const { places, sink } = begun
  return places === undefined || sink === undefined ? undefined : { places, sums: sink.sums.memory }
}

/** What the disk said, or would: then there is no spool. */
class DiskRefused extends Error {}

class SpoolSink implements PieceSink {
  readonly sums: SpoolSums
  readonly #target: SpoolTarget
  readonly #partitions: SpoolPartitions
  #sinceLookBytes = 0

  constructor(target: SpoolTarget, sizeBytes: number) {
    this.#target = target
    this.sums = new SpoolSums(sizeBytes)
    this.#partitions = new SpoolPartitions(sizeBytes, refusing(target.file.writer))
  }

  piece(offsetBytes: number, bytes: Uint8Array): void {
    const writtenBytes = this.#partitions.append(offsetBytes, bytes)
    if (writtenBytes > 0) this.#wrote(writtenBytes)
  }

  #wrote(sizeBytes: number): void {
    const { directory, share } = this.#target
    share.wrote(sizeBytes)
    this.#sinceLookBytes += sizeBytes
    if (this.#sinceLookBytes < spoolRoomLookSizeBytes) return
    this.#sinceLookBytes = 0
    if (!share.hasRoom(directory)) throw new DiskRefused('others need the room')
  }

  progress(): void {
    // Nobody waits for it that wants to know.
  }

  /** When every piece has been given. */
  async finish(signal: AbortSignal): Promise<void> {
    const pace = imagePace(signal)
    for (let partition = 0; partition < this.#partitions.count; partition++) {
      if (!this.#partitions.putInOrder(partition, this.sums)) throw new DiskRefused('other bytes than were written')
      await pace.step()
    }
  }
}

function refusing(file: DiskFile): Pick<DiskFile, 'read' | 'write'> {
  return {
    read: (target, offsetBytes) => onDisk(() => file.read(target, offsetBytes)),
    write: (pieces, offsetBytes) => onDisk(() => file.write(pieces, offsetBytes)),
  }
}

function onDisk<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw new DiskRefused('the disk takes no spool', { cause })
  }
}
