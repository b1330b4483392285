import type { ImagePlan } from '../aging/service.ts'
import type { FailureRecord } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { ImageConfig } from '../image/service.ts'
import type { StandbyAdvance, TargetPlan, TargetRequest } from '../recovery/target.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Json, RecoveryRecord } from '../timeline/recovery.ts'
import type { StandbyRecord } from '../timeline/standby.ts'

// The aws thread, seen from the daemon: the only one that loads the SDK's clients of EBS and EC2 and, with the threads that it starts itself,
// the only one through which a block goes. The worker's file is aws-worker.ts; speak to it by RpcClient<AwsService>.

export interface AwsConfig {
  readonly region: string
  readonly endpoints: {
    readonly ebs?: string | undefined
    readonly ec2?: string | undefined
    readonly quotas?: string | undefined
  }
  /** The value of the owner's tags. */
  readonly siteId: string
  readonly tagKeys: { readonly ec2: string; readonly ebs: string; readonly vpc: string; readonly s3: string }
  readonly putsPerSecondMax: number
  /** Under way at once, over all snapshots. */
  readonly putsAtOnceMax: number
  readonly putThreads: number
  readonly requestTimeoutMillis: number
}

/** Calls to the thread; see RpcMethods. `work` names one call of a target, for what the thread asks back and for its end. */
export interface AwsService {
  /** `spoolRoom` is of newSpoolRoom(): one for the process. */
  open(argument: {
    readonly aws: AwsConfig
    readonly image: ImageConfig
    readonly spoolRoom: SharedArrayBuffer
  }): Promise<void>
  plan(argument: { readonly work: number; readonly request: TargetRequest }): Promise<TargetPlan>
  carryOut(argument: {
    readonly work: number
    readonly step: 'prepare' | 'commit' | 'remove'
    readonly record: RecoveryRecord
    readonly definition: VpgDefinition
  }): Promise<void>
  /** As StandbyTarget has them. */
  advance(argument: StandbyWork): Promise<StandbyAdvance>
  removeChains(argument: StandbyWork): Promise<void>
  /** The call then fails CLOSING. */
  cancel(argument: { readonly work: number }): Promise<void>
  close(argument: undefined): Promise<void>
}

export interface StandbyWork {
  readonly work: number
  readonly record: StandbyRecord
  readonly definition: VpgDefinition
}

/** What the thread asks back while it works. */
export interface AwsAsks {
  remember(argument: { readonly work: number; readonly memory: Json }): Promise<void>
  openPlan(argument: { readonly work: number }): Promise<ImagePlan>
  /** The same of another checkpoint of the VPG, which is pinned until release(). CHECKPOINT_MISSING where it is not retained. */
  openPlanAt(argument: { readonly vpg: VpgId; readonly checkpoint: Checkpoint }): Promise<ImagePlan>
  release(argument: { readonly vpg: VpgId; readonly pinId: string }): Promise<void>
  /** What is remembered of the VPG's standby chains at this moment; undefined where none are kept. */
  standbyOf(argument: { readonly vpg: VpgId }): Promise<KnownStandby | undefined>
}

/** What the daemon knows of a VPG's standby chains at this moment. */
export type KnownStandby = Pick<StandbyRecord, 'checkpoints' | 'memory' | 'state'>

/** Notices from the thread, by name. */
export interface AwsNotices {
  progress: { readonly work: number; readonly volume: number; readonly doneBytes: number; readonly totalBytes: number }
  /** A chain begins anew, or what else people should know; of no VPG where it is of all. */
  told: { readonly vpg: VpgId | undefined; readonly sentence: string; readonly failure: FailureRecord | undefined }
}
