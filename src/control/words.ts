import type { AgingQueues } from '../aging/service.ts'
import { formatCheckpointId } from '../base/ids.ts'
import type {
  Density,
  DrillOutcome,
  DrillStatus,
  RecoveryFacts,
  SnapshotKeyFacts,
  StandbyFacts,
  SyncFacts,
  VpgStatus,
} from './service.ts'

// Facts in the words that people read: on the status page and the command line.

/** "1.5 GiB": three digits at most. */
export function sizeInWords(sizeBytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = sizeBytes
  let unit = 0
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2
  return `${value.toFixed(digits).replace(/\.0+$/, '')} ${units[unit]}`
}

/** "12,345". By hand: the first number that Intl formats costs a command 60 ms of CPU. */
export function countInWords(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** "350 ms", "4.2 s", "3 min 20 s", "2 h 5 min", "12 d 3 h" */
export function durationInWords(millis: number): string {
  if (millis < 1000) return `${Math.round(millis)} ms`
  if (millis < 10_000) return `${(millis / 1000).toFixed(1).replace('.0', '')} s`
  const seconds = Math.round(millis / 1000)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return pair(Math.floor(seconds / 60), 'min', seconds % 60, 's')
  const minutes = Math.round(seconds / 60)
  if (minutes < 1440) return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'min')
  const hours = Math.round(minutes / 60)
  return pair(Math.floor(hours / 24), 'd', hours % 24, 'h')
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`
}

/** "2026-03-29 02:15:07.250Z": UTC always, so that two people mean the same instant. */
export function instantInWords(timestampMicros: number): string {
  return new Date(Math.floor(timestampMicros / 1000)).toISOString().replace('T', ' ')
}

/** "40 s ago", and what lies ahead of the clock as "now". */
export function agoInWords(timestampMicros: number, nowMicros: number): string {
  const millis = (nowMicros - timestampMicros) / 1000
  return millis < 1 ? 'now' : `${durationInWords(millis)} ago`
}

/** "delta synchronisation 43 %, 51.2 MiB/s, 3 min 20 s left", "initial synchronisation 0 %, waits: the VRA is reading an image of it" */
export function syncInWords(sync: SyncFacts): string {
  const { kind, doneBytes, totalBytes, rateBytesPerSecond, etaMillis, heldBecause } = sync
  const percent = totalBytes === 0 ? '' : ` ${Math.floor((100 * doneBytes) / totalBytes)} %`
  if (heldBecause !== undefined) return `${kind} synchronisation${percent}, waits: ${heldBecause}`
  const rate = rateBytesPerSecond > 0 ? `, ${sizeInWords(rateBytesPerSecond)}/s` : ''
  const eta = etaMillis === undefined ? '' : `, ${durationInWords(etaMillis)} left`
  return `${kind} synchronisation${percent}${rate}${eta}`
}

/**
 * What goes on with a group that is not simply protected, short enough for a table: "root: initial synchronisation 43 %, 51.2 MiB/s, 3 min 20 s left",
 * "away for 12 min, 34 MiB waited when it was last heard"; empty where nothing does.
 */
export function progressInWords(vpg: VpgStatus, nowMicros: number): string {
  const since = (micros: number): string => durationInWords(Math.max(0, nowMicros - micros) / 1000)
  const away = vpg.agents
    .filter(agent => agent.state === 'disconnected')
    .map(({ agent, disconnectedAtMicros, queuedBytes }) => {
      const forHow = disconnectedAtMicros === undefined ? ' since the start' : ` for ${since(disconnectedAtMicros)}`
      const waits = queuedBytes === 0 ? '' : `, ${sizeInWords(queuedBytes)} waited when it was last heard`
      return `${agent} is away${forHow}${waits}`
    })
  const syncs = vpg.volumes.flatMap(({ name, sync }) => (sync === undefined ? [] : [`${name}: ${syncInWords(sync)}`]))
  const [first, ...others] = [...away, ...syncs]
  const queuedBytes = vpg.agents.reduce((sum, agent) => sum + agent.queuedBytes, 0)
  if (first === undefined)
    return queuedBytes === 0 || vpg.state === 'protected' ? '' : `${sizeInWords(queuedBytes)} wait`
  return `${first}${others.length === 0 ? '' : `; ${others.length} more`}`
}

/** "5 h of 24 h, cut short by the journal's limit": what is there, and what was asked for. */
export function historyInWords({ historyMillis, mirror }: Pick<VpgStatus, 'historyMillis' | 'mirror'>): string {
  const short = mirror.agedEarlySinceMicros === undefined ? '' : ", cut short by the journal's limit"
  return `${durationInWords(mirror.historyMillis)} of ${durationInWords(historyMillis)}${short}`
}

/** "every checkpoint for 4 h, one in 1 min up to 2 d 0 h, ..." */
export function retentionInWords(densities: readonly Density[]): string {
  return densities
    .map(({ everyMillis, forMillis }) => {
      if (everyMillis === 0) return `every checkpoint for ${durationInWords(forMillis)}`
      return `one in ${durationInWords(everyMillis)} up to ${durationInWords(forMillis)}`
    })
    .join(', ')
}

/** "one every 1 h, 12 min old, 1.2 GiB put in 7 times" */
export function standbyInWords(standby: VpgStatus['standby']): string | undefined {
  if (standby === undefined) return undefined
  const { intervalMillis, state, ageMillis, putSizeBytes, advanceCount, failureCount, trouble } = standby
  const why = trouble === undefined ? '' : `; it did not get on, and is tried again: ${trouble}`
  if (state === 'ending') return `none is wanted any more, what there is goes${why}`
  const age = ageMillis === undefined ? 'not of every volume yet' : `${durationInWords(ageMillis)} old`
  const now = { waiting: '', advancing: ', being brought up to a newer one', suspended: ', waiting for a recovery' }[
    state
  ]
  const failed = failureCount === 0 ? '' : `, ${countInWords(failureCount)} failures`
  const put = `${sizeInWords(putSizeBytes)} put in ${countInWords(advanceCount)} times since the start`
  return `one every ${durationInWords(intervalMillis)}, ${age}${now}, ${put}${failed}${why}`
}

/** "arn:aws:kms:...", "data: arn:aws:kms:..." */
export function snapshotKeysInWords({ all, volumes }: SnapshotKeyFacts): string[] {
  const own = Object.entries(volumes).map(([name, key]) => `${name}: ${key}`)
  return all === undefined ? own : [all, ...own]
}

/** "root: snap-0abc of 3.1204, 12 min ago, 34 MiB put for it" */
export function standbyCopyInWords(
  { volume, place, checkpoint, checkpointTimestampMicros, putSizeBytes, isWhole }: StandbyFacts['copies'][number],
  nowMicros: number,
): string {
  const put = `${sizeInWords(putSizeBytes)} put for it${isWhole ? ', whole' : ''}`
  return `${volume}: ${place} of ${checkpoint}, ${agoInWords(checkpointTimestampMicros, nowMicros)}, ${put}`
}

/** "failover r-0a1b2c3d4e5f to raw at 3.1204, preparing 43 %, 3 min 20 s left" */
export function recoveryInWords(recovery: RecoveryFacts, nowMicros: number): string {
  const { id, target, checkpoint, trouble, drill } = recovery
  const kind = drill === undefined ? recovery.kind : 'drill'
  const at = checkpoint === undefined ? '' : ` at ${checkpoint}`
  const waits = recovery.state === 'draining' ? 'it waits' : 'it does not get on, and is tried again'
  const why = trouble === undefined ? '' : `; ${waits}: ${trouble}`
  return `${kind} ${id} to ${target}${at}, ${recoveryStateInWords(recovery, nowMicros)}${why}`
}

/** "preparing 43 %, 3 min 20 s left", "ready 12 min ago, will be rolled back in 48 min unless you say otherwise", "being checked, ready 12 s ago" */
export function recoveryStateInWords(recovery: RecoveryFacts, nowMicros: number): string {
  const { state, doneBytes, totalBytes, etaMillis, readyAtMicros, policyAtMicros, commitPolicy } = recovery
  if (state === 'preparing' && totalBytes > 0) {
    const eta = etaMillis === undefined ? '' : `, ${durationInWords(etaMillis)} left`
    return `${state} ${Math.floor((100 * doneBytes) / totalBytes)} %${eta}`
  }
  if (state !== 'ready' || readyAtMicros === undefined) return state
  const ready = `ready ${agoInWords(readyAtMicros, nowMicros)}`
  if (recovery.drill !== undefined) return recovery.drill.outcome === undefined ? `being checked, ${ready}` : ready
  if (policyAtMicros === undefined) return ready
  const end = recovery.kind === 'test' ? 'stopped' : commitPolicy.kind === 'commit' ? 'committed' : 'rolled back'
  const putOff = recovery.isPolicyPutOff === true ? ' (the VRA was not running when its time came: it is put off)' : ''
  const wait = durationInWords(Math.max(0, policyAtMicros - nowMicros) / 1000)
  return `${ready}, will be ${end} in ${wait} unless you say otherwise${putOff}`
}

const outcomeWords: Readonly<Record<DrillOutcome, string>> = {
  passed: 'passed',
  failed: 'failed',
  'timed-out': 'took too long, and was ended',
  'not-recovered': 'could not be recovered',
  'gave-way': 'gave way to a recovery',
  stopped: 'was stopped',
  interrupted: 'ended with the daemon',
}

/** "fsck: failed with exit status 4 after 12 s", "fsck: could not be recovered: the file system is full" */
export function drillInWords({ drill, failure }: Pick<RecoveryFacts, 'drill' | 'failure'>): string {
  if (drill === undefined) return ''
  const { check, outcome, exitStatus, checkMillis } = drill
  if (outcome === undefined) return `${check}: under way`
  const status = outcome === 'failed' && exitStatus !== undefined ? ` with exit status ${exitStatus}` : ''
  const after = checkMillis === undefined ? '' : ` after ${durationInWords(checkMillis)}`
  const why = failure === undefined ? '' : `: ${failure.sentence}`
  return `${check}: ${outcomeWords[outcome]}${status}${after}${why}`
}

/** "3.1204, 2 h ago, ready after 1.2 s": the newest checkpoint that is known to be recoverable; undefined where nobody drills. */
export function provenInWords({ schedule, last, proven }: DrillStatus, nowMicros: number): string | undefined {
  if (proven === undefined) return schedule === undefined && last === undefined ? undefined : 'none yet'
  const { checkpoint, timestampMicros, rtoMillis } = proven
  return `${checkpoint}, of ${agoInWords(timestampMicros, nowMicros)}, ready after ${durationInWords(rtoMillis)}`
}

/** "fsck to nbd every 24 h, next in 3 h", "... daily at 03:30 UTC, ..." */
export function scheduleInWords(
  { schedule, nextAtMicros, waitsBecause }: DrillStatus,
  nowMicros: number,
): string | undefined {
  if (schedule === undefined) return undefined
  const { everyMillis, minuteOfDay = 0, check, target } = schedule
  const two = (value: number): string => String(value).padStart(2, '0')
  const when =
    everyMillis === undefined
      ? `daily at ${two(Math.floor(minuteOfDay / 60))}:${two(minuteOfDay % 60)} UTC`
      : `every ${durationInWords(everyMillis)}`
  const nextMillis = ((nextAtMicros ?? nowMicros) - nowMicros) / 1000
  const next = waitsBecause ?? (nextMillis <= 0 ? 'due now' : `next in ${durationInWords(nextMillis)}`)
  return `${check} to ${target} ${when}, ${next}`
}

/** What somebody can do with it now, a sentence; undefined where there is nothing. */
export function nextInWords({ id, kind, state, things, drill }: RecoveryFacts): string | undefined {
  const isChange = kind === 'failover' || kind === 'move'
  const back = isChange ? 'rollback' : 'stop'
  switch (state) {
    case 'draining':
    case 'preparing':
      return `It goes on in the VRA whatever happens here. "vra recoveries show ${id}" says how far it is, "vra recover ${back} ${id}" ends it and removes what there is.`
    case 'ready':
      if (drill !== undefined) return undefined
      return isChange
        ? `Look at it first. Then "vra recover commit ${id}" keeps it, "vra recover rollback ${id}" removes it again; protection goes on until then.`
        : `Look at it. "vra recover stop ${id}" removes it again; protection goes on meanwhile.`
    case 'committed':
      if (things.some(thing => thing.kind === 'nbd'))
        return `It is yours. The VRA goes on serving its disks until "vra recover stop ${id}" ends that; they stay where they are kept.`
      return things.length === 0 ? undefined : 'It is yours: the VRA does not touch it any more.'
    case 'committing':
    case 'removing':
    case 'removed':
      return undefined
  }
}

/** "12 GiB of at most 40 GiB, warns at 30 GiB" */
export function journalInWords(
  vpg: Pick<VpgStatus, 'journalWarnSizeBytes' | 'journalLimitSizeBytes' | 'mirror'>,
): string {
  const { journalWarnSizeBytes: warn, journalLimitSizeBytes: limit, mirror } = vpg
  const most = limit === 0 ? '' : ` of at most ${sizeInWords(limit)}`
  return `${sizeInWords(mirror.historySizeBytes)}${most}${warn === 0 ? '' : `, warns at ${sizeInWords(warn)}`}`
}

/** "3 h ago, all of it whole", "never yet; 12 GiB so far": of what is in the store. */
export function verifiedInWords({ scrub }: VpgStatus['mirror'], nowMicros: number): string | undefined {
  if (scrub === undefined) return undefined
  const { verifiedAtMicros, damagedCount, passSinceMicros, passCheckedSizeBytes } = scrub
  const result = damagedCount === 0 ? 'all of it whole' : `${countInWords(damagedCount)} objects damaged`
  const last = verifiedAtMicros === undefined ? 'never yet' : `${agoInWords(verifiedAtMicros, nowMicros)}, ${result}`
  const found =
    verifiedAtMicros === undefined && damagedCount > 0 ? `, ${countInWords(damagedCount)} objects damaged` : ''
  return passSinceMicros === undefined ? last : `${last}; ${sizeInWords(passCheckedSizeBytes)} so far${found}`
}

/** "until 2026-12-31T23:59:59Z, at least": what the VPG needs in a store that locks objects. */
export function lockedInWords({ locks }: VpgStatus['mirror']): string | undefined {
  if (locks === undefined) return undefined
  const { lockedUntilMicros = 0, failure } = locks
  const until = lockedUntilMicros === 0 ? 'not all of it yet' : `until ${instantInWords(lockedUntilMicros)}, at least`
  return failure === undefined ? until : `${until}; locks cannot be renewed: ${failure}`
}

/** "3 requests were put off, the last 4 s ago; 2 wait": of a store that had too much to do in the last minutes. */
export function throttlingInWords(queues: AgingQueues | undefined, nowMicros: number): string | undefined {
  const load = queues?.load
  if (load?.throttledAtMicros === undefined || nowMicros - load.throttledAtMicros > 5 * 60e6) return undefined
  const count = Object.values(load.throttledCounts).reduce((sum, each) => sum + each, 0)
  const last = agoInWords(load.throttledAtMicros, nowMicros)
  const said = `"slow down" to ${countInWords(count)} ${count === 1 ? 'request' : 'requests'}, the last ${last}`
  return `${said}; ${countInWords(load.waitingCount)} wait to be tried again`
}

/** "…/base/1-ab: 12 checkpoints read it, 3.1 to 3.12, and all that come": each object that the verification found damaged. */
export function damagedInWords({ scrub }: VpgStatus['mirror']): string[] {
  return (scrub?.damaged ?? []).map(({ key, checkpointCount, firstOrdinal, lastOrdinal, laterOnes }) => {
    const later = laterOnes ? ', and all that come' : ''
    if (firstOrdinal === undefined || lastOrdinal === undefined)
      return `${key}: no checkpoint in the store reads it${later}`
    const span = `${formatCheckpointId(firstOrdinal)} to ${formatCheckpointId(lastOrdinal)}`
    return `${key}: ${countInWords(checkpointCount)} checkpoints read it, ${span}${later}`
  })
}
