import * as path from 'node:path'
import { Failure } from '../base/failure.ts'
import { type VpgId, vpgId } from '../base/ids.ts'
import { crc32c } from '../codec/crc32c.ts'
import { readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'
import { encodeCheckpoints, type VpgBrief } from '../manifest/manifest.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { OpenedVpg, PackedVpg } from './service.ts'

// What this appliance remembers of its VPGs, so that it can take their writes while the store is away, and knows an older copy of
// the store, or a listing that lies, for what it is. A memory and no truth: what the store says takes its place. It is written after
// a commit counts and before the log files are free that the commit stands for, so it may be behind, and never ahead.
//
//   <dataDirectory>/vpgs/<vpg>.json   first line: JSON as MemoFile; second line: its CRC-32C, 8 hexadecimal digits
//
// A file that is damaged, or another appliance's, is as good as none.

const formatVersion = 1
const ending = '.json'

interface MemoFile {
  readonly formatVersion: number
  readonly applianceId: string
  /** The last that counted. */
  readonly commitNumber: number
  readonly opened: Omit<OpenedVpg, 'checkpoints' | 'segments' | 'foldedThrough' | 'recoveries'> & {
    /** Missing in files of an older version. */
    readonly foldedThrough?: OpenedVpg['foldedThrough']
    readonly recoveries?: OpenedVpg['recoveries']
  }
  /** The newest that was in the store. */
  readonly newest?: Checkpoint
  /** True where of the VPG nothing was in the store then but what that commit names: see made-objects.ts. */
  readonly allCommitted?: boolean
  /** Why this appliance does not own the VPG any more, a sentence. */
  readonly fenced?: string
}

export type VpgMemo = Omit<MemoFile, 'formatVersion' | 'applianceId'>

export class VpgMemos {
  readonly #disk: Disk
  readonly #directory: string
  readonly #applianceId: string
  readonly #held: Map<VpgId, VpgMemo>

  private constructor(disk: Disk, directory: string, applianceId: string, held: Map<VpgId, VpgMemo>) {
    this.#disk = disk
    this.#directory = directory
    this.#applianceId = applianceId
    this.#held = held
  }

  /** Reads what is there; `damageFound` hears of a file that is none of ours. */
  static open(disk: Disk, directory: string, applianceId: string, damageFound: (sentence: string) => void): VpgMemos {
    disk.makeDirectory(directory)
    disk.syncDirectory(path.dirname(directory))
    const held = new Map<VpgId, VpgMemo>()
    for (const name of disk.list(directory)) {
      if (!/^[0-9a-f]{32}\.json$/.test(name)) continue
      const file = path.join(directory, name)
      const memo = parse(readWholeFile(disk, file), applianceId)
      if (memo !== undefined) held.set(vpgId(name.slice(0, -ending.length)), memo)
      else damageFound(`${file} cannot be read: without it this VPG is served only while the store answers`)
    }
    return new VpgMemos(disk, directory, applianceId, held)
  }

  /** What was remembered when the process started, with all that was kept since. */
  get(vpg: VpgId): VpgMemo | undefined {
    return this.#held.get(vpg)
  }

  all(): readonly (readonly [VpgId, VpgMemo])[] {
    return [...this.#held]
  }

  file(vpg: VpgId): string {
    return path.join(this.#directory, `${vpg}${ending}`)
  }

  /** Remembers the VPG as its newest commit says. A disk that does not take it keeps the memory as it was: older, and true then. */
  keep(
    { state, pendingMarkers, segmentsFrom: foldedThrough }: VpgBrief,
    { newest, allCommitted }: { readonly newest: Checkpoint | undefined; readonly allCommitted: boolean },
  ): void {
    const { definition, epoch, offloaded, historyEdge, tags, recoveries, holes, commitNumber } = state
    this.#write(definition.id, {
      commitNumber,
      opened: { definition, epoch, offloaded, historyEdge, tags, recoveries, holes, pendingMarkers, foldedThrough },
      ...(newest === undefined ? {} : { newest }),
      ...(allCommitted ? { allCommitted } : {}),
    })
  }

  /** Another appliance owns the VPG: it is not served again by this one, whether the store answers or not. */
  fence(vpg: VpgId, sentence: string): void {
    const memo = this.#held.get(vpg)
    if (memo !== undefined && memo.fenced === undefined) this.#write(vpg, { ...memo, fenced: sentence })
  }

  /** The VPG is deleted. */
  forget(vpg: VpgId): void {
    if (!this.#held.delete(vpg)) return
    try {
      this.#disk.remove(this.file(vpg))
      this.#disk.syncDirectory(this.#directory)
    } catch (error) {
      if (!isDiskError(error)) throw error // it is found again, and the store says that the VPG is gone
    }
  }

  #write(vpg: VpgId, memo: VpgMemo): void {
    const before = this.#held.get(vpg)
    this.#held.set(vpg, memo)
    const isAsBefore = before?.fenced === memo.fenced && before?.allCommitted === memo.allCommitted
    if (before?.commitNumber === memo.commitNumber && isAsBefore) return
    try {
      replaceFile(this.#disk, this.file(vpg), encode({ formatVersion, applianceId: this.#applianceId, ...memo }))
    } catch (error) {
      if (!isDiskError(error)) throw error
    }
  }
}

/** As a start offers it where the store does not answer. */
export function remembered({ opened, newest }: VpgMemo): PackedVpg {
  const checkpointPage = encodeCheckpoints(newest === undefined ? [] : [newest])
  const { foldedThrough = [], recoveries = [] } = opened
  return { ...opened, foldedThrough, recoveries, segments: [], checkpointPage }
}

/**
 * Fails OBJECT_CORRUPT where the store has less of the VPG than this appliance has seen commits of: what came after was offloaded, and
 * agents have let go of it, so to go on from there would leave it out of every later image.
 */
export function requireNotOlder(memo: VpgMemo | undefined, commitNumber: number): void {
  if (memo === undefined || memo.commitNumber <= commitNumber) return
  const { id: vpg, name } = memo.opened.definition
  const sentence =
    `the store shows commit ${commitNumber} of VPG "${name}" as its newest, and this appliance has seen commit ` +
    `${memo.commitNumber}: an older copy of the store was put back, or its listing lies. Restore the newer one; to go on ` +
    'from the older one, start an appliance with an empty data directory with --adopt: agents compare their disks then.'
  throw new Failure('OBJECT_CORRUPT', sentence, { vpg, commitNumber, seenCommitNumber: memo.commitNumber })
}

function encode(memo: MemoFile): Buffer {
  const text = JSON.stringify(memo)
  return Buffer.from(`${text}\n${checksumOf(text)}\n`)
}

function parse(bytes: Uint8Array | undefined, applianceId: string): VpgMemo | undefined {
  const [text = '', checksum] = Buffer.from(bytes ?? [])
    .toString()
    .split('\n')
  if (checksum !== checksumOf(text)) return undefined
  const { formatVersion: version, applianceId: owner, ...memo } = JSON.parse(text) as MemoFile
  return version === formatVersion && owner === applianceId ? memo : undefined
}

function checksumOf(text: string): string {
  return crc32c(Buffer.from(text)).toString(16).padStart(8, '0')
}

function isDiskError(error: unknown): boolean {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).code === 'string'
}
