import { Failure } from '../base/failure.ts'
import { isZero } from '../codec/zeros.ts'
import type { PieceWriter } from './piece-writer.ts'
import type { PieceSink } from './types.ts'

/** Passes on what is not zeros: pieces of zeros stay holes. */
export class DataSink implements PieceSink {
  readonly #name: string
  readonly #writer: PieceWriter
  readonly #onProgress: (doneBytes: number, totalBytes: number) => void
  writtenSizeBytes = 0

  constructor(name: string, writer: PieceWriter, onProgress: (doneBytes: number, totalBytes: number) => void) {
    this.#name = name
    this.#writer = writer
    this.#onProgress = onProgress
  }

  piece(offsetBytes: number, bytes: Uint8Array): void {
    if (isZero(bytes)) return
    try {
      this.#writer.add(offsetBytes, bytes)
    } catch (error) {
      onDisk(this.#name, rethrower(error))
    }
    this.writtenSizeBytes += bytes.length
  }

  progress(doneBytes: number, totalBytes: number): void {
    this.#onProgress(doneBytes, totalBytes)
  }
}

/** What the caller can mend by asking otherwise; the rest is the disk's. */
const requestFaults: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such directory',
  ENOTDIR: 'a part of its path is not a directory',
  EISDIR: 'it is a directory',
  EACCES: 'the VRA may not write there',
  EPERM: 'the VRA may not write there',
  EROFS: 'the file system is read-only',
}

export function onDisk<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code
    const fault = requestFaults[errno ?? '']
    if (fault !== undefined)
      throw new Failure('REQUEST_INVALID', `${file} cannot be written: ${fault}`, { file, errno }, { cause: error })
    const what = errno === 'ENOSPC' ? 'its file system is full' : (errno ?? String(error))
    throw new Failure('DISK_FAILED', `${file} was not written: ${what}`, { file, errno }, { cause: error })
  }
}

export function rethrower(error: unknown): () => never {
  return () => {
    throw error
  }
}
