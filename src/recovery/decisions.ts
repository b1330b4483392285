import { Failure } from '../base/failure.ts'
import { policyNoticeMillis } from '../base/limits.ts'
import type { CommitPolicy, RecoveryKind, RecoveryRecord } from '../timeline/recovery.ts'

// What a person may decide of a recovery, and when: in words, for whoever asks for something else is likely to be in a hurry.

export type Decision = 'commit' | 'rollback' | 'stop'

/** What is under way of a recovery beside its record. */
export interface Under {
  /** It does not get on, and is tried again: why. */
  readonly trouble: string | undefined
  /** Its target serves it on when it is committed. */
  readonly isServedOn: boolean
}

/** How it ends when that is not as a commit: a failover is rolled back, a test or a clone is stopped. */
export function endOf(kind: RecoveryKind): 'rollback' | 'stop' {
  return kind === 'failover' || kind === 'move' ? 'rollback' : 'stop'
}

/** True of the kinds of which a VPG has one at a time: it becomes what the machines are. */
export function changesVpg(kind: RecoveryKind): boolean {
  return kind === 'failover' || kind === 'move'
}

/** Fails REQUEST_INVALID for what this recovery never takes, or takes no more; BUSY for what it does not take now. */
export function requireDecidable(record: RecoveryRecord, decision: Decision, under: Under): void {
  const { id, kind, state } = record
  const { trouble, isServedOn } = under
  const refuse = (sentence: string): never => {
    throw new Failure('REQUEST_INVALID', sentence, { recovery: id, state })
  }
  const busy = (sentence: string): never => {
    throw new Failure('BUSY', sentence, { recovery: id, state })
  }
  const at = record.endedAtMicros === undefined ? '' : ` at ${new Date(record.endedAtMicros / 1000).toISOString()}`
  if (state === 'committed' && decision === 'stop' && isServedOn) {
    if (record.isServiceEnded !== true) return
    refuse(`recovery ${id} was committed${at}, and is served no more: what it recovered is kept where it is`)
  }
  if (state === 'committed')
    refuse(
      `recovery ${id} was committed${at}: what it recovered is kept, and there is nothing left to ${asVerb(decision)}`,
    )
  if (state === 'removed') refuse(`recovery ${id} was removed${at}: there is nothing left to ${asVerb(decision)}`)
  if (kind === 'test' && decision !== 'stop')
    refuse(
      `recovery ${id} is a failover test: all that it takes is \`vra recover stop ${id}\`. To keep what it shows, fail over`,
    )
  if (kind === 'clone' && decision === 'commit')
    refuse(`recovery ${id} is a clone: it is committed by itself when it is ready`)
  if (decision !== 'commit' && decision !== endOf(kind))
    refuse(`recovery ${id} is a ${kind}: \`vra recover ${endOf(kind)} ${id}\` is the way back`)
  if (state === 'removing') busy(`recovery ${id} is being removed already`)
  if (decision === 'commit' && state === 'committing') busy(`recovery ${id} is being committed already`)
  if (decision === 'commit' && state !== 'ready')
    busy(`recovery ${id} is not ready yet: look at what it recovers before you commit it`)
  if (state === 'committing' && record.handOver === 'begun')
    busy(`recovery ${id} is being committed, and has got too far to be undone: agents of before may be refused already`)
  if (state === 'committing' && trouble === undefined)
    busy(`recovery ${id} is being committed at this moment; what is committed stays`)
}

function asVerb(decision: Decision): string {
  return decision === 'rollback' ? 'roll back' : decision
}

/** Fails REQUEST_INVALID where a recovery of this kind cannot have the policy. */
export function requirePolicy(kind: RecoveryKind, policy: CommitPolicy): void {
  if (policy.kind === 'none') return
  if (kind === 'clone')
    throw new Failure('REQUEST_INVALID', 'a clone is committed by itself when it is ready: it takes no commit policy')
  if (kind === 'test' && policy.kind === 'commit')
    throw new Failure('REQUEST_INVALID', 'a failover test is never committed: its commit policy is none or rollback')
}

/** What a commit policy leads to when nobody says anything. */
export interface PolicyEnd {
  readonly state: 'committing' | 'removing'
  readonly inMillis: number
  /** Its time would have come while no process was there, or soon after: people are left the time to see that it is about to. */
  readonly isPutOff: boolean
}

/**
 * From the moment that this process knows the recovery as ready; undefined where it waits for ever. It is measured by the monotonic clock from then on: a clock that is
 * set moves nothing. Of one that was ready before this process there is only the clock of the wall to say how much of the wait has passed, and nobody could decide while
 * there was none: it takes effect no sooner than policyNoticeMillis, and no later than a whole wait, from here.
 */
export function policyEnd(
  { commitPolicy: { kind, afterMillis }, readyAtMicros }: RecoveryRecord,
  nowMicros: number,
  origin: 'ready-now' | 'found-ready',
): PolicyEnd | undefined {
  if (kind === 'none' || readyAtMicros === undefined) return undefined
  const state = kind === 'commit' ? 'committing' : 'removing'
  if (origin === 'ready-now') return { state, inMillis: afterMillis, isPutOff: false }
  const leftMillis = afterMillis - Math.max(0, nowMicros - readyAtMicros) / 1000
  const noticeMillis = Math.min(afterMillis, policyNoticeMillis)
  return { state, inMillis: Math.max(leftMillis, noticeMillis), isPutOff: leftMillis < noticeMillis }
}
