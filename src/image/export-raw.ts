import { randomBytes } from 'node:crypto'
import { realpathSync, statSync } from 'node:fs'
import * as path from 'node:path'
import { Failure } from '../base/failure.ts'
import { isZero } from '../codec/zeros.ts'
import type { Disk } from '../disk/disk.ts'
import type { OpenPieceWriter, PieceWriter } from './piece-writer.ts'
import type { Image, PieceSink } from './types.ts'

export interface ExportRequest {
  readonly image: Image
  readonly volume: number
  /** An absolute path. */
  readonly file: string
  readonly existing: 'refuse' | 'replace'
  readonly disk: Disk
  readonly openWriter: OpenPieceWriter
  readonly onProgress: (doneBytes: number, totalBytes: number) => void
  readonly signal: AbortSignal
}

/** Files that are being written: a second export to one of them would take the first one's partial file for a leftover. */
const underWay = new Set<string>()

/**
 * Writes the volume to a sparse file, whole or not at all: the bytes go to FILE.<8 hex digits>.partial, which becomes FILE when all of it is on disk. What exports
 * to it have left that were killed is removed first, and nothing else of a like name. Fails
 * ALREADY_EXISTS where FILE exists and is not to be replaced, REQUEST_INVALID where it is no file, BUSY while another export writes it;
 * whatever it fails with, the partial file is gone.
 */
export async function exportRaw(request: ExportRequest): Promise<{ sizeBytes: number; writtenSizeBytes: number }> {
  const { file } = request
  const directory = onDisk(file, () => realpathSync(path.dirname(file)))
  const name = path.join(directory, path.basename(file))
  if (underWay.has(name)) throw new Failure('BUSY', `another export writes ${file} at this moment`, { file })
  underWay.add(name)
  try {
    return await writeWhole(request)
  } finally {
    underWay.delete(name)
  }
}

async function writeWhole(request: ExportRequest): Promise<{ sizeBytes: number; writtenSizeBytes: number }> {
  const { image, volume, file, disk, signal } = request
  const sizeBytes = image.volumes.find(candidate => candidate.number === volume)?.sizeBytes ?? 0
  refuseExisting(request)
  removeLeftovers(disk, file)
  const partial = `${file}.${randomBytes(4).toString('hex')}.partial`
  onDisk(file, () => createEmpty(disk, partial, sizeBytes))
  try {
    const writer = await request.openWriter(partial).catch((error: unknown) => onDisk(file, rethrower(error)))
    const sink = new DataSink(file, writer, request.onProgress)
    try {
      await image.scatter(volume, { startBytes: 0, endBytes: sizeBytes }, sink, signal)
      signal.throwIfAborted()
      await writer.finish().catch((error: unknown) => onDisk(file, rethrower(error))) // all bytes are on disk
    } finally {
      await writer.abandon()
    }
    publish(request, partial) // ...and become the file in one step
    onDisk(file, () => disk.syncDirectory(path.dirname(file))) // ...and the step itself is on disk
    return { sizeBytes, writtenSizeBytes: sink.writtenSizeBytes }
  } catch (error) {
    disk.remove(partial)
    throw error
  }
}

function removeLeftovers(disk: Disk, file: string): void {
  const [directory, base] = [path.dirname(file), path.basename(file)]
  for (const name of onDisk(file, () => disk.list(directory))) {
    const isOurs = name.startsWith(`${base}.`) && /^[0-9a-f]{8}\.partial$/.test(name.slice(base.length + 1))
    if (isOurs) disk.remove(path.join(directory, name))
  }
}

/** A file of the volume's size that is a hole. */
function createEmpty(disk: Disk, partial: string, sizeBytes: number): void {
  const open = disk.open(partial, 'create')
  try {
    open.truncate(sizeBytes)
  } catch (error) {
    disk.remove(partial)
    throw error
  } finally {
    open.close()
  }
}

function rethrower(error: unknown): () => never {
  return () => {
    throw error
  }
}

/**
 * Refuses what is there and is no file, whether it may be replaced or not: the rename would take the name of a device away, and put a file in
 * its place that fills the memory behind /dev. REQUEST_INVALID.
 */
function refuseOtherThanFile(file: string): void {
  const found = onDisk(file, () => statSync(file, { throwIfNoEntry: false }))
  if (found === undefined || found.isFile()) return
  const kind = found.isDirectory() ? 'a directory' : found.isBlockDevice() ? 'a block device' : 'no regular file'
  const advice = found.isBlockDevice() ? 'export to a file, then copy that to the device' : 'name a file'
  throw new Failure('REQUEST_INVALID', `${file} is ${kind}: ${advice}`, { file })
}

function refuseExisting({ disk, file, existing }: ExportRequest): void {
  refuseOtherThanFile(file)
  if (existing === 'refuse' && disk.exists(file)) throw existsAlready(file)
}

/** A file that somebody has made meanwhile is not replaced either, unless that was asked for. */
function publish(request: ExportRequest, partial: string): void {
  const { disk, file, existing } = request
  refuseExisting(request)
  if (existing === 'refuse') {
    try {
      disk.link(partial, file)
      disk.remove(partial)
      return
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EEXIST') throw existsAlready(file)
      if (!linkless.has(code)) onDisk(file, rethrower(error))
    }
  }
  onDisk(file, () => disk.rename(partial, file))
}

/** What file systems say that have no hard links. */
const linkless = new Set<string | undefined>(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

function existsAlready(file: string): Failure {
  return new Failure('ALREADY_EXISTS', `${file} exists; choose another name, or say that it may be replaced`, { file })
}

/** Passes on what is not zeros: pieces of zeros stay holes. */
class DataSink implements PieceSink {
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

function onDisk<T>(file: string, work: () => T): T {
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
