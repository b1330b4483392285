import * as path from 'node:path'
import { spoolFreeShareMax, spoolSizeBytesMax } from '../base/limits.ts'
import { realDisk, UnnamedFile } from '../disk/disk.ts'
import { PieceBuffer, pieceBufferMemorySizeBytes } from './piece-buffer.ts'
import type { PieceSink, SpoolableImage, SpoolPlaces } from './types.ts'

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
  fileName: string,
  signal: AbortSignal,
): Promise<Spooled | undefined> {
  const file = createSpoolFile(fileName)
  if (file === undefined) return undefined
  try {
    const places = await fillSpoolFile(image, volumes, { file, directory: path.dirname(fileName) }, signal)
    if (places !== undefined) return useSpool(image, places, file)
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

export function useSpool(image: SpoolableImage, places: SpoolPlaces, file: UnnamedFile): Spooled {
  image.useSpool({ places, file })
  return {
    close: async () => {
      image.useSpool(undefined)
      await file.close()
    },
  }
}

/** Writes the spool to the file; undefined where there is no room for it, or the disk fails. */
export async function fillSpoolFile(
  image: SpoolableImage,
  volumes: ReadonlySet<number>,
  { file, directory }: { readonly file: UnnamedFile; readonly directory: string },
  signal: AbortSignal,
): Promise<SpoolPlaces | undefined> {
  const filled: { places?: SpoolPlaces; sink?: SpoolSink } = {}
  try {
    const begin = (places: SpoolPlaces): PieceSink => {
      if (places.sizeBytes > spoolSizeBytesMax || places.sizeBytes > spoolFreeShareMax * realDisk.freeBytes(directory))
        throw new DiskRefused()
      filled.places = places
      return (filled.sink = new SpoolSink(file))
    }
    await image.fillSpool(volumes, begin, signal)
    filled.sink?.flush()
  } catch (error) {
    if (error instanceof DiskRefused) return undefined
    throw error
  }
  return filled.places
}

/** What the disk said, or would: then there is no spool. */
class DiskRefused extends Error {}

class SpoolSink implements PieceSink {
  readonly #file: UnnamedFile
  readonly #buffer = new PieceBuffer(new ArrayBuffer(pieceBufferMemorySizeBytes))

  constructor(file: UnnamedFile) {
    this.#file = file
  }

  piece(offsetBytes: number, bytes: Uint8Array): void {
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
