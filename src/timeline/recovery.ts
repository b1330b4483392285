import { Failure, type FailureRecord } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { drillsKeptMax, recoveriesKeptMax, recoveriesUnfinishedMax, recoverySizeBytesMax } from '../base/limits.ts'
import type { Checkpoint, Pin } from './checkpoint.ts'

// A recovery as plain data: what a person decided, how far it has come, and what its target must remember. A control record of the VPG's manifest:
// durable in the object store before what it says is done, so that a process that is killed between any two steps is followed by one that
// goes on, or undoes.

export type RecoveryKind = 'test' | 'failover' | 'move' | 'clone'

export type RecoveryTargetKind = 'nbd' | 'raw' | 'aws'

/**
 * A move begins with draining, all others with preparing. Every state but ready, committed and removed is work that a start goes on with.
 *
 *   draining ─> preparing ─> ready ─┬─ commit ─────────> committing ─> committed
 *       │           │               └─ rollback, stop ─> removing ──> removed
 *       └───────────┴─ it failed, or was cancelled ──────┘
 */
export type RecoveryState = 'draining' | 'preparing' | 'ready' | 'committing' | 'committed' | 'removing' | 'removed'

/** Anything that goes into JSON and comes back the same. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

export interface RecoveryVm {
  readonly name: string
  /** Numbers of the volumes of this machine that are recovered; the checkpoint includes each. */
  readonly volumes: readonly number[]
}

/** What happens to a recovery that is ready when nobody says anything: after the wait it is committed, or rolled back; none: it waits for ever. */
export interface CommitPolicy {
  readonly kind: 'none' | 'commit' | 'rollback'
  readonly afterMillis: number
}

/**
 * What became of a drill. 'not-recovered': the machines could not be brought up, the record's failure says why; 'gave-way': a person's recovery was
 * begun; 'stopped': by a person; 'interrupted': the daemon ended within it. Only the first four say something of the checkpoint.
 */
export type DrillOutcome = 'passed' | 'failed' | 'timed-out' | 'not-recovered' | 'gave-way' | 'stopped' | 'interrupted'

export interface DrillResult {
  readonly outcome: DrillOutcome
  /** Of the check; absent where it was not run, or ended by a signal. */
  readonly exitStatus?: number | undefined
  /** The end of what the check said. */
  readonly output?: string | undefined
  readonly checkMillis?: number | undefined
}

/** A test that is made to prove that the checkpoint can be recovered: when its check has ended it is removed, and never outlives its process. */
export interface Drill {
  readonly by: 'schedule' | 'person'
  /** The name of one that the configuration has, or the command of a client. */
  readonly check: string
  readonly checkedBy: 'daemon' | 'client'
  /** Durable with the state that removes it. */
  readonly result?: DrillResult | undefined
}

/** At most recoverySizeBytesMax as JSON. */
export interface RecoveryRecord {
  readonly formatVersion: 1
  /** "r-" and 12 hexadecimal digits; part of the names and tags of everything that it creates. */
  readonly id: string
  readonly kind: RecoveryKind
  /** The VPG's, when it was begun; a failover or move that is committed opens the next. */
  readonly incarnation: number
  /**
   * 'planned': a commit hands the machines over, so that agents of this incarnation are refused; 'begun': it has got so far that there is no way back; 'none':
   * it is no failover or move, or one of a part of the VPG, whose protection goes on as it is.
   */
  readonly handOver: 'none' | 'planned' | 'begun'
  /** Pinned, by a pin of the record's id, in the very commit that names it first; let go by the one that ends the recovery. Undefined while a move drains. */
  readonly checkpoint: Checkpoint | undefined
  readonly vms: readonly RecoveryVm[]
  /** As the target validated it. */
  readonly target: { readonly kind: RecoveryTargetKind; readonly settings: Json }
  readonly commitPolicy: CommitPolicy
  readonly state: RecoveryState
  /** The target's own: tokens and ids of what it creates, written before the call that creates it. */
  readonly memory: Json
  readonly createdAtMicros: number
  /** When it was ready: the commit policy's wait and the measured RTO count from it. */
  readonly readyAtMicros: number | undefined
  readonly endedAtMicros: number | undefined
  /** Why it was undone, where it was not asked for. */
  readonly failure: FailureRecord | undefined
  /** Of a test that is a drill. */
  readonly drill?: Drill | undefined
  /** Of a committed one that was served on by the VRA: it is not any more. */
  readonly isServiceEnded?: true
}

/** What a VPG's manifest says of recoveries. */
export interface Recoveries {
  readonly recoveries: readonly RecoveryRecord[]
  readonly pins: readonly Pin[]
}

/** Committed or removed: there is nothing more to do, and nothing of the VPG is needed for it. */
export function hasEnded({ state }: Pick<RecoveryRecord, 'state'>): boolean {
  return state === 'committed' || state === 'removed'
}

/**
 * With this record in place of the one of its id, or behind all others, and with the pin that it needs, or without: which pins recoveries have follows
 * from their records alone. Of those that have ended the newest of either kind are kept. Fails BUSY where too many are under way,
 * REQUEST_INVALID where the record is larger than a record may be.
 */
export function withRecovery({ recoveries, pins }: Recoveries, record: RecoveryRecord): Recoveries {
  const sizeBytes = Buffer.byteLength(JSON.stringify(record))
  if (sizeBytes > recoverySizeBytesMax) {
    const sentence = `what recovery ${record.id} has to remember takes ${sizeBytes} bytes, and may take ${recoverySizeBytesMax}: recover fewer volumes at once`
    throw new Failure('REQUEST_INVALID', sentence, { recovery: record.id, sizeBytes })
  }
  const isKnown = recoveries.some(({ id }) => id === record.id)
  const all = isKnown ? recoveries.map(each => (each.id === record.id ? record : each)) : [...recoveries, record]
  // A drill is in nobody's way.
  if (!isKnown && all.filter(each => !hasEnded(each) && each.drill === undefined).length > recoveriesUnfinishedMax) {
    const sentence = `${recoveriesUnfinishedMax} recoveries of this VPG are under way: commit, roll back or stop one of them first`
    throw new Failure('BUSY', sentence)
  }
  return { recoveries: withoutOldest(all), pins: [...withoutPin(pins, record.id), ...pinOf(record)] }
}

/**
 * Fails BUSY while a VPG cannot be deleted for what its recoveries have to do first. Forced: what is being removed in AWS may stay there for ever, where the
 * account is gone.
 */
export function requireNoneUnderWay(
  recoveries: readonly RecoveryRecord[],
  { vpg, isForced }: { readonly vpg: VpgId; readonly isForced: boolean },
): void {
  const isLeavable = ({ target, state }: RecoveryRecord): boolean => target.kind === 'aws' && state === 'removing'
  const [first, ...others] = recoveries.filter(record => !hasEnded(record) && !(isForced && isLeavable(record)))
  if (first === undefined) return
  const more = others.length === 0 ? '' : ` and ${others.length} more`
  const todo = isLeavable(first)
    ? 'wait until it is removed, or leave what it made in AWS with --force'
    : 'commit, roll back or stop it first'
  const sentence = `recovery ${first.id} (${first.kind}, ${first.state})${more} of this VPG is under way: ${todo}`
  throw new Failure('BUSY', sentence, { vpg, recovery: first.id })
}

/** Without the record of this id and its pin. */
export function withoutRecovery({ recoveries, pins }: Recoveries, id: string): Recoveries {
  return { recoveries: recoveries.filter(record => record.id !== id), pins: withoutPin(pins, id) }
}

/** True of a pin that a recovery needs, whichever process is there: it goes with its record alone. */
export function isPinOfRecovery({ recoveries }: Pick<Recoveries, 'recoveries'>, pin: Pin): boolean {
  return pin.kind === 'recovery' && recoveries.some(record => record.id === pin.id && !hasEnded(record))
}

/** Fails VERSION_UNSUPPORTED for a record that a newer program wrote: nobody may guess what is to be done with it. */
export function requireKnownRecovery({ id, formatVersion }: RecoveryRecord): void {
  if (formatVersion === 1) return
  const sentence = `recovery ${id} is of format ${String(formatVersion)}, this program knows 1: use the program that wrote it, or a newer one`
  throw new Failure('VERSION_UNSUPPORTED', sentence)
}

/** The pin that the record needs: one, or none. */
export function pinOf(record: RecoveryRecord): Pin[] {
  const { id, checkpoint, kind } = record
  if (checkpoint === undefined || hasEnded(record)) return []
  return [{ id, ordinal: checkpoint.ordinal, owner: `recovery (${kind})`, kind: 'recovery' }]
}

function withoutPin(pins: readonly Pin[], id: string): Pin[] {
  return pins.filter(pin => pin.kind !== 'recovery' || pin.id !== id)
}

/** The drill that proved the newest checkpoint of all that were proven. */
export function newestProven(recoveries: readonly RecoveryRecord[]): RecoveryRecord | undefined {
  const proofs = recoveries.filter(record => record.drill?.result?.outcome === 'passed')
  return proofs.reduce<RecoveryRecord | undefined>(
    (newest, record) => (ordinalOf(record) >= ordinalOf(newest) ? record : newest),
    undefined,
  )
}

function ordinalOf(record: RecoveryRecord | undefined): number {
  return record?.checkpoint?.ordinal ?? -1
}

/**
 * A committed one is what a person lives on: no number of tests that were stopped may take it away; nor may drills take away those, or failed ones
 * the proof.
 */
function withoutOldest(recoveries: readonly RecoveryRecord[]): RecoveryRecord[] {
  const left = new Set<RecoveryRecord>()
  const keepNewest = (all: readonly RecoveryRecord[], countMax: number): void => {
    const byAge = all.toSorted((a, b) => (b.endedAtMicros ?? 0) - (a.endedAtMicros ?? 0))
    for (const record of byAge.slice(countMax)) left.add(record)
  }
  const ended = recoveries.filter(hasEnded)
  const ofPersons = ended.filter(({ drill }) => drill === undefined)
  for (const state of ['committed', 'removed'] as const)
    keepNewest(
      ofPersons.filter(record => record.state === state),
      recoveriesKeptMax,
    )
  const proven = newestProven(ended)
  keepNewest(
    ended.filter(record => record.drill !== undefined && record !== proven),
    drillsKeptMax,
  )
  return recoveries.filter(record => !left.has(record))
}
