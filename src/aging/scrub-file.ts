import { isSystemError } from '../base/failure.ts'
import { type VpgId, vpgId } from '../base/ids.ts'
import { scrubDamagedMax } from '../base/limits.ts'
import { readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'

// How far the verification in the background is: <dataDirectory>/scrub.json. Whatever is wrong with the file costs one pass, nothing else.

export interface ScrubRecord {
  /** The last pass that came to its end. */
  last: { readonly atMicros: number; readonly damagedCount: number } | undefined
  /** The one under way: the objects up to this key are done. */
  pass: ScrubPass | undefined
  /** Keys of objects that were damaged when they were looked at last; bounded. */
  damagedKeys: readonly string[]
  /** Of all passes of this process. */
  checkedSizeBytes: number
}

export interface ScrubPass {
  readonly sinceMicros: number
  afterKey: string
  checkedCount: number
  checkedSizeBytes: number
  damagedCount: number
}

const formatVersion = 1

interface ScrubFile {
  readonly formatVersion: number
  readonly vpgs: Readonly<Record<string, Pick<ScrubRecord, 'last' | 'pass'> & { readonly damagedKeys?: unknown }>>
}

export function readScrubFile(disk: Disk, file: string): Map<VpgId, ScrubRecord> {
  const records = new Map<VpgId, ScrubRecord>()
  const bytes = readWholeFile(disk, file)
  if (bytes === undefined) return records
  for (const [vpg, { last, pass, damagedKeys }] of Object.entries(parse(bytes)?.vpgs ?? {})) {
    const keys = Array.isArray(damagedKeys) ? damagedKeys.map(String).slice(0, scrubDamagedMax) : []
    if (/^[0-9a-f]{32}$/.test(vpg)) records.set(vpgId(vpg), { last, pass, damagedKeys: keys, checkedSizeBytes: 0 })
  }
  return records
}

export function writeScrubFile(disk: Disk, file: string, records: ReadonlyMap<VpgId, ScrubRecord>): void {
  const vpgs = Object.fromEntries(
    [...records].map(([vpg, { last, pass, damagedKeys }]) => [vpg, { last, pass, damagedKeys }]),
  )
  const contents: ScrubFile = { formatVersion, vpgs }
  try {
    replaceFile(disk, file, Buffer.from(JSON.stringify(contents)))
  } catch (error) {
    if (!isSystemError(error)) throw error // a full disk is for others to tell
  }
}

function parse(bytes: Uint8Array): ScrubFile | undefined {
  try {
    const file = JSON.parse(Buffer.from(bytes).toString()) as Partial<ScrubFile> | null
    return file?.formatVersion === formatVersion && typeof file.vpgs === 'object' ? (file as ScrubFile) : undefined
  } catch {
    return undefined // cut off, or not ours
  }
}
