import { randomBytes } from 'node:crypto'
import type { Aging } from '../aging/aging.ts'
import type { Clock } from '../base/clock.ts'
import { onAbort } from '../base/abort.ts'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { VolumeDataSize } from '../timeline/image-size.ts'
import {
  hasEnded,
  withRecovery,
  type CommitPolicy,
  type Drill,
  type DrillResult,
  type Json,
  type RecoveryKind,
  type RecoveryRecord,
  type RecoveryTargetKind,
  type RecoveryVm,
} from '../timeline/recovery.ts'
import { changesVpg, requirePolicy, type Decision } from './decisions.ts'
import type { RecoveryEvents } from './events.ts'
import { Run, type VolumeProgress, type Writers } from './run.ts'
import type { RecoveredThing, RecoveryTarget, TargetPlan } from './target.ts'

// Recoveries of all VPGs: what a person decided, done step by step. Every step's outcome is durable in the VPG's manifest before the next step is
// begun (run.ts), so a process that is killed between any two is followed by one that goes on (README.md). What is recovered on which target is the
// target's business (target.ts); when something may be decided is decisions.ts.
//
// Nothing here is on the way of a write, and what a recovery meets ends at that recovery.

export { changesVpg } from './decisions.ts'
export { RawTarget, type RawTools } from './raw.ts'
export { Standbys, type StandbyView } from './standby.ts'
export { vmsOf, volumesMeant, type Selection } from './selection.ts'
export type { Decision } from './decisions.ts'
export type { VolumeProgress, Waiting, Writers } from './run.ts'

export interface RecoveriesParts {
  readonly aging: Pick<Aging, 'putRecovery' | 'dataSizes' | 'openImage' | 'closeImage'>
  readonly clock: Clock
  readonly targets: readonly RecoveryTarget[]
  readonly writers: Writers
  readonly events: RecoveryEvents
}

/** What somebody wants recovered; names and references have been looked up. */
export interface RecoveryOrder {
  readonly kind: RecoveryKind
  readonly definition: VpgDefinition
  /** Of a move: the newest, in place of the one that draining will make. */
  readonly checkpoint: Checkpoint
  readonly vms: readonly RecoveryVm[]
  readonly target: { readonly kind: RecoveryTargetKind; readonly settings: Json }
  readonly commitPolicy: CommitPolicy
  /** Of a test that is a drill. */
  readonly drill?: Drill
}

/** What it would do, and of each volume its size and about how much of that is data. */
export interface RecoveryOutline extends TargetPlan {
  readonly sizes: readonly VolumeDataSize[]
}

export interface RecoveryView {
  readonly vpg: VpgId
  readonly record: RecoveryRecord
  readonly things: readonly RecoveredThing[]
  /** What it copies in this process, by volume. */
  readonly progress: readonly VolumeProgress[]
  /** Why it does not get on at this moment; it is tried again. */
  readonly trouble: string | undefined
  /** When its commit policy takes effect; `isPutOff`: later than asked for, because no process was there when its time came. */
  readonly policy: { readonly atMicros: number; readonly isPutOff: boolean } | undefined
}

interface HeldVpg {
  /** As it is now. */
  readonly definition: () => VpgDefinition
  records: readonly RecoveryRecord[]
  readonly runs: Map<string, Run>
  /** Of failovers and moves that are being begun. */
  changing: number
}

export class Recoveries {
  readonly #parts: RecoveriesParts
  readonly #targets: ReadonlyMap<RecoveryTargetKind, RecoveryTarget>
  readonly #vpgs = new Map<VpgId, HeldVpg>()
  readonly #watchers = new Set<(vpg: VpgId) => void>()
  #isClosed = false

  constructor(parts: RecoveriesParts) {
    this.#parts = parts
    this.#targets = new Map(parts.targets.map(target => [target.kind, target]))
  }

  /**
   * The VPG is served from here on, and these are its recoveries as the store has them: those that have not ended are gone on with. Nothing happens where
   * it is served already.
   */
  serve(vpg: VpgId, records: readonly RecoveryRecord[], definition: () => VpgDefinition): void {
    if (this.#vpgs.has(vpg) || this.#isClosed) return
    const held: HeldVpg = { definition, records, runs: new Map(), changing: 0 }
    this.#vpgs.set(vpg, held)
    for (const record of records) {
      if (record.state === 'removed') this.#targets.get(record.target.kind)?.sweep?.(record)
      else this.#run(vpg, held, record, 'found')
    }
  }

  /** It is deleted, or another appliance's: what is under way stops where it is, and its records are not shown. */
  async forget(vpg: VpgId): Promise<void> {
    const held = this.#vpgs.get(vpg)
    this.#vpgs.delete(vpg)
    for (const run of held?.runs.values() ?? []) await run.close()
    this.#tellWatchers(vpg)
  }

  /** What it would do; nothing is changed. Fails as the target's plan() does, REQUEST_INVALID for what cannot be meant. */
  async plan(order: RecoveryOrder, signal: AbortSignal): Promise<RecoveryOutline> {
    const { kind, definition, checkpoint, vms, target, commitPolicy } = order
    requirePolicy(kind, commitPolicy)
    const all = await this.#parts.aging.dataSizes({ vpg: definition.id, checkpoint })
    const wanted = new Set(vms.flatMap(({ volumes }) => volumes))
    const sizes = all.filter(({ volume }) => wanted.has(volume))
    const request = { kind, definition, checkpoint, vms, sizes, settings: target.settings }
    return { ...(await this.#target(target.kind).plan(request, signal)), sizes }
  }

  /**
   * Begun, its record and the pin of its checkpoint durable, on return. Fails as plan() does, before anything is changed; BUSY where another failover or
   * move of the VPG is under way, or too many recoveries are.
   */
  async start(order: RecoveryOrder, signal: AbortSignal): Promise<RecoveryView> {
    const { aging, clock } = this.#parts
    const createdAtMicros = clock.timestampMicros()
    const vpg = order.definition.id
    const held = this.#held(vpg)
    this.#refuseSecond(held, order)
    const isChanging = changesVpg(order.kind)
    if (isChanging) held.changing++
    try {
      const { settings } = await this.plan(order, signal)
      const record = recordOf(order, settings, createdAtMicros)
      await aging.putRecovery({ vpg, record, isNew: true })
      this.#recorded(held, record)
      this.#parts.events.recoveryChanged(vpg, record)
      this.#run(vpg, held, record, 'begun-now')
      return this.get(record.id)
    } finally {
      if (isChanging) held.changing--
    }
  }

  /** Of one VPG or all; the newest first. */
  list(only?: VpgId): RecoveryView[] {
    const vpgs = only === undefined ? [...this.#vpgs.keys()] : [only]
    const views = vpgs.flatMap(vpg => {
      const held = this.#vpgs.get(vpg)
      return held?.records.map(record => this.#view(vpg, held, record)) ?? []
    })
    return views.sort((a, b) => b.record.createdAtMicros - a.record.createdAtMicros)
  }

  /** Fails NOT_FOUND. */
  get(id: string): RecoveryView {
    const [vpg, held, record] = this.#found(id)
    return this.#view(vpg, held, record)
  }

  /** The decision is durable on return, and what follows from it has begun. Fails in words where it cannot be meant. */
  async decide(id: string, decision: Decision): Promise<RecoveryView> {
    const [, held, record] = this.#found(id)
    const run = held.runs.get(id) ?? this.#newRun(record, held, 'found')
    await run.decide(decision)
    return this.get(id)
  }

  /** What came of a drill is durable on return, and its removal has begun. Fails NOT_FOUND, REQUEST_INVALID, BUSY where it has ended, or is to. */
  async endDrill(id: string, result: DrillResult): Promise<RecoveryView> {
    const [, held, record] = this.#found(id)
    if (record.drill === undefined) throw new Failure('REQUEST_INVALID', `recovery ${id} is no drill`)
    const run = held.runs.get(id)
    if (run === undefined) throw new Failure('BUSY', `drill ${id} is ${record.state} already`)
    await run.endDrill(result)
    return this.get(id)
  }

  /** The record, as soon as it is as asked for. Fails NOT_FOUND, also when its VPG is served no more; with the signal's reason. */
  async until(
    id: string,
    isAsAsked: (record: RecoveryRecord) => boolean,
    signal: AbortSignal,
  ): Promise<RecoveryRecord> {
    for (;;) {
      signal.throwIfAborted()
      const [vpg, , record] = this.#found(id)
      if (isAsAsked(record)) return record
      await this.#change(vpg, signal)
    }
  }

  async #change(vpg: VpgId, signal: AbortSignal): Promise<void> {
    await new Promise<void>(resolve => {
      const wake = (): void => {
        this.#watchers.delete(watcher)
        forget()
        resolve()
      }
      const watcher = (of: VpgId): void => (of === vpg ? wake() : undefined)
      this.#watchers.add(watcher)
      const forget = onAbort(signal, wake)
    })
  }

  #tellWatchers(vpg: VpgId): void {
    for (const watcher of [...this.#watchers]) watcher(vpg)
  }

  /** Stops what is under way between two steps; the next process goes on there. */
  async close(): Promise<void> {
    this.#isClosed = true
    for (const vpg of [...this.#vpgs.keys()]) await this.forget(vpg)
    for (const target of this.#targets.values()) await target.close()
  }

  #run(vpg: VpgId, held: HeldVpg, record: RecoveryRecord, origin: 'begun-now' | 'found'): void {
    if (!this.#targets.has(record.target.kind)) {
      const sentence = `this VRA is not set up for the target ${record.target.kind}: recovery ${record.id} waits until it is`
      this.#parts.events.recoveryInTrouble(vpg, record, sentence)
      return
    }
    const run = this.#newRun(record, held, origin)
    held.runs.set(record.id, run)
    run.begin()
  }

  #newRun(record: RecoveryRecord, held: HeldVpg, origin: 'begun-now' | 'found'): Run {
    const { aging, clock, writers, events } = this.#parts
    const { definition } = held
    const target = this.#target(record.target.kind)
    const vpg = definition().id
    const recorded = (now: RecoveryRecord): void => {
      this.#recorded(held, now)
      this.#tellWatchers(vpg)
    }
    return new Run({ vpg, aging, clock, target, writers, definition, events, recorded }, record, origin)
  }

  /** Kept as the store keeps them. */
  #recorded(held: HeldVpg, record: RecoveryRecord): void {
    held.records = withRecovery({ recoveries: held.records, pins: [] }, record).recoveries
    for (const id of held.runs.keys()) if (!held.records.some(each => each.id === id)) held.runs.delete(id)
  }

  #view(vpg: VpgId, held: HeldVpg, record: RecoveryRecord): RecoveryView {
    const run = held.runs.get(record.id)
    const target = this.#targets.get(record.target.kind)
    const things = record.state === 'removed' ? [] : (target?.things(record, held.definition()) ?? [])
    const unknown = `this VRA is not set up for the target ${record.target.kind}`
    const trouble = target === undefined && !hasEnded(record) ? unknown : run?.trouble
    return { vpg, record, things, progress: run?.progress() ?? [], trouble, policy: run?.policy }
  }

  #found(id: string): [VpgId, HeldVpg, RecoveryRecord] {
    for (const [vpg, held] of this.#vpgs) {
      const record = held.records.find(each => each.id === id)
      if (record !== undefined) return [vpg, held, record]
    }
    throw new Failure('NOT_FOUND', `there is no recovery ${id}; \`vra recoveries\` shows those that are`)
  }

  #held(vpg: VpgId): HeldVpg {
    const held = this.#vpgs.get(vpg)
    if (held !== undefined) return held
    throw new Failure(
      'STORE_UNAVAILABLE',
      'the object store has not answered since the start: nothing can be recovered without it',
    )
  }

  #target(kind: RecoveryTargetKind): RecoveryTarget {
    const target = this.#targets.get(kind)
    if (target !== undefined) return target
    const known = [...this.#targets.keys()].join(', ')
    throw new Failure('REQUEST_INVALID', `this VRA is not set up for the target ${kind}; it has ${known}`)
  }

  #refuseSecond(held: HeldVpg, { kind, definition }: RecoveryOrder): void {
    if (!changesVpg(kind)) return
    const other = held.records.find(record => changesVpg(record.kind) && !hasEnded(record))
    const { name } = definition
    if (other !== undefined)
      throw new Failure(
        'BUSY',
        `recovery ${other.id}, a ${other.kind} of ${name}, is ${other.state}: commit it or roll it back first (\`vra recover commit ${other.id}\`, \`vra recover rollback ${other.id}\`). A failover test can run beside it`,
        { recovery: other.id },
      )
    if (held.changing > 0)
      throw new Failure('BUSY', `another failover or move of ${name} is being begun at this moment`)
  }
}

/** True where every volume of the VPG is recovered that its agents write. */
export function isWhole({ volumes }: Pick<VpgDefinition, 'volumes'>, vms: readonly RecoveryVm[]): boolean {
  return volumes.every(({ number }) => vms.some(vm => vm.volumes.includes(number)))
}

function recordOf(order: RecoveryOrder, settings: Json, createdAtMicros: number): RecoveryRecord {
  const { kind, definition, checkpoint, vms, target, commitPolicy, drill } = order
  const isMove = kind === 'move'
  return {
    formatVersion: 1,
    id: `r-${randomBytes(6).toString('hex')}`,
    kind,
    incarnation: definition.incarnation,
    handOver: changesVpg(kind) && isWhole(definition, vms) ? 'planned' : 'none',
    checkpoint: isMove ? undefined : checkpoint,
    vms,
    target: { kind: target.kind, settings },
    commitPolicy,
    state: isMove ? 'draining' : 'preparing',
    memory: null,
    createdAtMicros,
    readyAtMicros: undefined,
    endedAtMicros: undefined,
    failure: undefined,
    ...(drill === undefined ? {} : { drill }),
  }
}
