import { randomBytes } from 'node:crypto'
import { realpathSync, statSync } from 'node:fs'
import * as path from 'node:path'
import { Failure } from '../base/failure.ts'
import type { Disk } from '../disk/disk.ts'
import { DataSink, onDisk, rethrower } from './data-sink.ts'
import type { OpenPieceWriter } from './piece-writer.ts'
import { writeSpans } from './resumed-export.ts'
import type { Image } from './types.ts'

export interface ExportRequest {
  readonly image: Image
  readonly volume: number
  /** An absolute path. */
  readonly file: string
  /** 'resume': refused as well; and whatever the export fails with, or is killed at, another one of the same image goes on where this one was. */
  readonly existing: 'refuse' | 'replace' | 'resume'
  readonly disk: Disk
  readonly openWriter: OpenPieceWriter
  readonly onProgress: (doneBytes: number, totalBytes: number) => void
  readonly signal: AbortSignal
  /** Of one that is to be resumed; see resumed-export.ts. */
  readonly spanSizeBytesMin?: number
}

/** Files that are being written: a second export to one of them would take the first one's partial file for a leftover. */
const underWay = new Set<string>()

/**
 * Writes the volume to a sparse file, whole or not at all: the bytes go to FILE.<8 hex digits>.partial, which becomes FILE when all of it is on disk. What exports
 * to it have left that were killed is removed first, and nothing else of a like name. Fails
 * ALREADY_EXISTS where FILE exists and is not to be replaced, REQUEST_INVALID where it is no file, BUSY while another export writes it;
 * whatever it fails with, the partial file is gone. One that is to be resumed has FILE.partial, and notes in FILE.progress how much of it is on disk: both stay until it is whole.
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
  if (request.existing === 'resume') {
    const writtenSizeBytes = await writeSpans(request, sizeBytes)
    publish(request, `${file}.partial`)
    onDisk(file, () => disk.syncDirectory(path.dirname(file)))
    disk.remove(`${file}.progress`)
    return { sizeBytes, writtenSizeBytes }
  }
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
  if (existing !== 'replace' && disk.exists(file)) throw existsAlready(file)
}

/** A file that somebody has made meanwhile is not replaced either, unless that was asked for. */
function publish(request: ExportRequest, partial: string): void {
  const { disk, file, existing } = request
  refuseExisting(request)
  if (existing !== 'replace') {
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
