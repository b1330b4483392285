import * as path from 'node:path'
import { spoolRoomLookSizeBytes } from '../base/limits.ts'
import { UnnamedFile } from '../disk/disk.ts'
import { PieceBuffer, pieceBufferMemorySizeBytes } from './piece-buffer.ts'
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
    begun.sink?.flush()
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
  readonly #buffer = new PieceBuffer(new ArrayBuffer(pieceBufferMemorySizeBytes))

  #bufferedBytes = 0
  #sinceLookBytes = 0

  constructor(target: SpoolTarget, sizeBytes: number) {
    this.#target = target
    this.sums = new SpoolSums(sizeBytes)
  }

  piece(offsetBytes: number, bytes: Uint8Array): void {
    this.sums.add(offsetBytes, bytes)
    for (let done = 0; done < bytes.length;) {
      const taken = this.#buffer.add(offsetBytes + done, bytes.subarray(done))
      this.#bufferedBytes += taken
      if (taken === 0) this.flush()
      done += taken
    }
  }

  progress(): void {
    // Nobody waits for it that wants to know.
  }

  flush(): void {
    const { file, directory, share } = this.#target
    onDisk(() => this.#buffer.writeTo(file.writer))
    share.wrote(this.#bufferedBytes)
    this.#sinceLookBytes += this.#bufferedBytes
    this.#bufferedBytes = 0
    if (this.#sinceLookBytes < spoolRoomLookSizeBytes) return
    this.#sinceLookBytes = 0
    if (!share.hasRoom(directory)) throw new DiskRefused('others need the room')
  }
}

function onDisk<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw new DiskRefused('the disk takes no spool', { cause })
  }
}
