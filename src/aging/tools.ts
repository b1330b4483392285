import type { Clock } from '../base/clock.ts'
import type { PositionVector, VpgId } from '../base/ids.ts'
import type { Permits } from '../base/permits.ts'
import type { Disk, OpenVolumeFile } from '../disk/disk.ts'
import type { LogReader } from '../journal/log-reader.ts'
import type { Workspace } from '../mirror/mirror.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { AwakeVpgs } from './awake-vpgs.ts'
import type { LogFiles } from './log-files.ts'
import type { SegmentMemory } from './segment-memory.ts'
import type { StoreAnswers } from './store-answers.ts'
import type { StoreRequests } from './store-requests.ts'
import type { AgingConfig, AgingNotices } from './service.ts'
import type { TakeoverWatch } from './takeover-watch.ts'
import type { Tenure } from './tenure.ts'
import type { Turns } from './turns.ts'
import type { VpgMemos } from './vpg-memos.ts'

export type Notify = <K extends keyof AgingNotices>(name: K, notice: AgingNotices[K]) => void

/** What aging asks of the commit log's reader. */
export type TailedLog = Pick<LogReader, 'next' | 'position' | 'files' | 'readRecord' | 'readUnchecked' | 'close'>

/** What all VPGs of the thread share. */
export interface AgingTools {
  readonly config: AgingConfig
  /** What is asked of it is counted. */
  readonly store: ObjectStore
  readonly requests: StoreRequests
  readonly answers: StoreAnswers
  readonly disk: Disk
  /** Opens an image that somebody hands over, to read it. */
  readonly openImageFile: OpenVolumeFile
  readonly clock: Clock
  readonly turns: Turns
  readonly notify: Notify
  readonly logFiles: LogFiles
  /** Reads records of any place in the log; the tail has a reader of its own. */
  readonly frames: Pick<TailedLog, 'readUnchecked'>
  /** On return the VPGs have taken every record that is known to be durable, unless too many wait to be sealed. */
  readonly readTail: () => Promise<void>
  /** Tells checkpointsGivenUp; on return that was acted on, and what was durable before that is known. */
  readonly tellGivenUp: (vpg: VpgId, through: PositionVector) => Promise<void>
  /** One segment is built at a time, in the one buffer for it. */
  readonly segmentPermit: Permits
  readonly segmentSizeBytesMax: number
  readonly segmentMemory: SegmentMemory
  /** One fold or region rewrite at a time makes its objects, in the one workspace. Who holds it waits for no VPG's turn, and for the store only briefly. */
  readonly mergePermit: Permits
  readonly workspace: Workspace
  /** Which VPGs hold the contents of their manifests. */
  readonly awake: AwakeVpgs
  readonly takeovers: TakeoverWatch
  readonly tenure: Tenure
  /** Undefined where nothing is remembered. */
  readonly memos: VpgMemos | undefined
  readonly signal: AbortSignal
}
