import { statSync } from 'node:fs'
import { MiB } from '../base/units.ts'
import { readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'
import { DataSink, onDisk, rethrower } from './data-sink.ts'
import type { OpenPieceWriter } from './piece-writer.ts'
import type { Image } from './types.ts'

// An export that survives its process: spans of the volume, ascending; each is on disk before it is noted that it is.
//
//   FILE.partial    as large as the volume; what has not been written is a hole
//   FILE.progress   JSON: which image, which partial file, and up to which offset all of it is on disk
//
// Nothing but the image's own bytes is ever written to the partial file, so what a dead process left behind the noted offset is right or a hole, and written once more. A span is
// no smaller than a sixteenth of the volume: the writes that no delta holds are read once for every span.

/** Some seconds of writing, which is what a kill costs; a sync and a note each. */
const spanSizeBytesMin = 512 * MiB
const spansMax = 16

export interface SpansRequest {
  readonly image: Image
  readonly volume: number
  readonly file: string
  readonly disk: Disk
  readonly openWriter: OpenPieceWriter
  readonly onProgress: (doneBytes: number, totalBytes: number) => void
  readonly signal: AbortSignal
  /** Larger ones where that would make too many. */
  readonly spanSizeBytesMin?: number
}

interface Note {
  readonly formatVersion: 1
  /** Of its checkpoint the ordinal, and the volume's number. */
  readonly image: string
  readonly partial: string
  readonly doneBytes: number
}

/** All of the volume is on disk in FILE.partial on return; how much was written for it in this call. */
export async function writeSpans(request: SpansRequest, sizeBytes: number): Promise<number> {
  const { image, volume, file, disk, signal } = request
  const partial = `${file}.partial`
  const noteFile = `${file}.progress`
  const about = { formatVersion: 1, image: `${image.checkpoint.ordinal}/${volume}` } as const
  let doneBytes = doneBytesOf(readNote(disk, noteFile), about.image, partial)
  const nextData = async (): Promise<number> =>
    await image.nextData(volume, { startBytes: doneBytes, endBytes: sizeBytes }, signal)
  let startBytes = await nextData() // it knows whether there is such a volume
  if (doneBytes === 0) onDisk(file, () => makeEmpty(disk, partial, sizeBytes))
  const identity = identityOf(partial) ?? ''
  const spanSizeBytes = spanOf(sizeBytes, request.spanSizeBytesMin ?? spanSizeBytesMin)
  let writtenSizeBytes = 0
  while (startBytes < sizeBytes) {
    signal.throwIfAborted()
    // Spans begin where they would without the holes, so that few of them are small.
    const endBytes = Math.min(sizeBytes, startBytes - (startBytes % spanSizeBytes) + spanSizeBytes)
    writtenSizeBytes += await writeSpan(request, { startBytes, endBytes }, sizeBytes)
    const note: Note = { ...about, partial: identity, doneBytes: endBytes }
    onDisk(file, () => replaceFile(disk, noteFile, Buffer.from(JSON.stringify(note))))
    doneBytes = endBytes
    startBytes = await nextData()
  }
  return writtenSizeBytes
}

/** On disk on return. */
async function writeSpan(
  { image, volume, file, openWriter, onProgress, signal }: SpansRequest,
  span: { readonly startBytes: number; readonly endBytes: number },
  sizeBytes: number,
): Promise<number> {
  const writer = await openWriter(`${file}.partial`).catch((error: unknown) => onDisk(file, rethrower(error)))
  const told = (done: number, total: number): void => {
    const share = total === 0 ? 0 : done / total
    onProgress(Math.floor(span.startBytes + share * (span.endBytes - span.startBytes)), sizeBytes)
  }
  const sink = new DataSink(file, writer, told)
  try {
    await image.scatter(volume, span, sink, signal)
    signal.throwIfAborted()
    await writer.finish().catch((error: unknown) => onDisk(file, rethrower(error)))
  } finally {
    await writer.abandon()
  }
  return sink.writtenSizeBytes
}

function spanOf(sizeBytes: number, spanSizeBytesMin: number): number {
  return spanSizeBytesMin * Math.max(1, Math.ceil(sizeBytes / spansMax / spanSizeBytesMin))
}

/** A hole of the volume's size, on disk on return: a volume of zeros is no more than this. A file that is there stays the same file, whatever names it has. */
function makeEmpty(disk: Disk, partial: string, sizeBytes: number): void {
  const open = disk.open(partial, disk.exists(partial) ? 'write' : 'create')
  try {
    open.truncate(0)
    open.truncate(sizeBytes)
    open.sync()
  } finally {
    open.close()
  }
}

/** Undefined where there is none that can be read. */
function readNote(disk: Disk, noteFile: string): Partial<Note> | undefined {
  try {
    return JSON.parse(Buffer.from(readWholeFile(disk, noteFile) ?? []).toString()) as Partial<Note>
  } catch {
    return undefined
  }
}

/** 0 where the note is of another image, or of another file. */
function doneBytesOf(note: Partial<Note> | undefined, image: string, partial: string): number {
  const isOurs = note?.formatVersion === 1 && note.image === image && note.partial === identityOf(partial)
  return isOurs ? (note.doneBytes ?? 0) : 0
}

/** Nothing of the device: it may have another number when it is mounted again. */
function identityOf(file: string): string | undefined {
  const found = statSync(file, { bigint: true, throwIfNoEntry: false })
  return found === undefined ? undefined : `${found.ino}:${found.birthtimeNs}`
}
