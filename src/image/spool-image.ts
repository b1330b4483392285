import * as path from 'node:path'
import { spoolFreeShareMax, spoolSizeBytesMax } from '../base/limits.ts'
import { realDisk, UnnamedFile } from '../disk/disk.ts'
import { PieceBuffer, pieceBufferMemorySizeBytes } from './piece-buffer.ts'
import { checkedSpoolFile, SpoolSums } from './spool-sums.ts'
import type { PieceSink, SpoolableImage, SpoolPlaces } from './types.ts'

export interface SpoolOptions {
  /** Its name for a moment. */
  readonly fileName: string
  /** Told once, when the spool could not be read and the image is read without it from there on. */
  readonly failed: (cause: unknown) => void
}

/** A spool that an image is read from. */
export interface Spooled {
  /** The image is read as before, and the spool's room is free on return. */
  close(): Promise<void>
}

/**
 * Makes a spool of what no delta holds of these volumes, and has the image read from it. Undefined, and nothing is changed, where the disk has no room for it. Fails as reading
 * the image does.
 */
export async function spoolImage(
  image: SpoolableImage,
  volumes: ReadonlySet<number>,
  options: SpoolOptions,
  signal: AbortSignal,
): Promise<Spooled | undefined> {
  const file = createSpoolFile(options.fileName)
  if (file === undefined) return undefined
  try {
    const filled = await fillSpoolFile(image, volumes, { file, directory: path.dirname(options.fileName) }, signal)
    if (filled !== undefined) return useSpool(image, filled, file, options)
  } catch (error) {
    await file.close()
    throw error
  }
  await file.close()
  return undefined
}

/** Undefined where the disk has none. */
export function createSpoolFile(name: string): UnnamedFile | undefined {
  try {
    return UnnamedFile.create(name)
  } catch {
    return undefined
  }
}

export function useSpool(
  image: SpoolableImage,
  { places, sums }: FilledSpool,
  file: UnnamedFile,
  { failed }: SpoolOptions,
): Spooled {
  image.useSpool({ places, file: checkedSpoolFile(file, new SpoolSums(places.sizeBytes, sums)), failed })
  return {
    close: async () => {
      image.useSpool(undefined)
      await file.close()
    },
  }
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
  { file, directory }: { readonly file: UnnamedFile; readonly directory: string },
  signal: AbortSignal,
): Promise<FilledSpool | undefined> {
  const begun: { places?: SpoolPlaces; sink?: SpoolSink } = {}
  try {
    const begin = (places: SpoolPlaces): PieceSink => {
      if (places.sizeBytes > spoolSizeBytesMax || places.sizeBytes > spoolFreeShareMax * realDisk.freeBytes(directory))
        throw new DiskRefused()
      begun.places = places
      return (begun.sink = new SpoolSink(file, places.sizeBytes))
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
  readonly #file: UnnamedFile
  readonly #buffer = new PieceBuffer(new ArrayBuffer(pieceBufferMemorySizeBytes))

  constructor(file: UnnamedFile, sizeBytes: number) {
    this.#file = file
    this.sums = new SpoolSums(sizeBytes)
  }

  piece(offsetBytes: number, bytes: Uint8Array): void {
    this.sums.add(offsetBytes, bytes)
    for (let done = 0; done < bytes.length;) {
      const taken = this.#buffer.add(offsetBytes + done, bytes.subarray(done))
      if (taken === 0) this.flush()
      done += taken
    }
  }

  progress(): void {
    // Nobody waits for it that wants to know.
  }

  flush(): void {
    onDisk(() => this.#buffer.writeTo(this.#file.writer))
  }
}

function onDisk<T>(work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw new DiskRefused('the disk takes no spool', { cause })
  }
}
