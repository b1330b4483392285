import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { untilTold, type Told } from '../base/told.ts'
import type * as api from '../control/service.ts'
import { checkEnvironment, type Check, type runCheck } from '../recovery/check.ts'
import type { Recoveries } from '../recovery/recovery.ts'
import { drillDueAtMicros, type DrillSchedule } from '../timeline/drill-schedule.ts'
import { hasEnded, newestProven, type Drill, type DrillResult } from '../timeline/recovery.ts'
import type { RecoveryControl } from './recovery-control.ts'
import type { VpgEntry, VpgTable } from './vpg-table.ts'

// Drills: tests that are made, by a schedule or by a person, to prove that a checkpoint can be recovered. A drill is a recovery like any other (../recovery); what is
// here says when one is begun, has its check run, and ends it. One is under way at a time, and it is in nobody's way: it is not begun beside a recovery
// of its VPG, and ends when anybody begins one, of whichever VPG.
//
// The API names checks and cannot say what they are: what this process runs stands in its configuration file. It inherits nothing but what a
// shell needs; what is secret in the daemon's environment stays there.

/** Schedules are looked at so often. */
const lookMillis = 10_000
/** What could not be begun is tried again after this. */
const againMillis = 60_000
const inherited = ['PATH', 'HOME', 'USER', 'LANG', 'LC_ALL', 'TZ', 'TMPDIR']

export interface ConfiguredCheck extends Check {
  readonly name: string
}

export interface DrillsParts {
  readonly checks: readonly ConfiguredCheck[]
  readonly clock: Clock
  readonly control: Pick<RecoveryControl, 'startDrill' | 'get'>
  readonly engine: Pick<Recoveries, 'list' | 'endDrill' | 'until'>
  readonly table: Pick<VpgTable, 'all'>
  readonly runCheck: typeof runCheck
  readonly told: (event: DrillEvent) => void
}

export interface DrillEvent {
  readonly vpg: string
  readonly drill?: string
  readonly outcome?: string
  readonly sentence?: string
}

interface Current {
  readonly vpg: string
  /** Undefined while it is being begun. */
  id: string | undefined
  /** Somebody wants it away; noted also before there is a drill. */
  mustGiveWay: boolean
  /** Of a check that a client runs: what it has told. */
  readonly reported: Told<DrillResult>
}

export class Drills {
  readonly #parts: DrillsParts
  readonly #closing = new AbortController()
  /** Why what is due is not begun, and what could not be begun is not tried again before. */
  readonly #waiting = new Map<VpgId, { readonly sentence: string; readonly untilMillis: number }>()
  #current: Current | undefined
  #seen: Promise<void> = Promise.resolve()
  #keeping: Promise<void> = Promise.resolve()

  constructor(parts: DrillsParts) {
    this.#parts = parts
  }

  /** Schedules are kept from here on. */
  begin(): void {
    this.#keeping = this.#keep()
  }

  /** Its record is durable on return, and it goes on by itself. Fails NOT_FOUND for a check that is not configured, BUSY, and as a recovery's start. */
  async start({ check, ...request }: api.DrillRequest, entry: VpgEntry): Promise<api.RecoveryFacts> {
    const configured = 'configured' in check ? this.#check(check.configured) : undefined
    const other = this.#inTheWay(entry)
    if (other !== undefined) throw new Failure('BUSY', other)
    const drill: Drill = {
      by: 'person',
      check: 'configured' in check ? check.configured : check.command,
      checkedBy: configured === undefined ? 'client' : 'daemon',
    }
    return await this.#start(request, drill, configured ?? { timeoutMillis: timeoutOf(check) })
  }

  /** What came of a check that a client ran: durable on return. Fails BUSY where its drill has ended, or is not ready. */
  async report(id: string, report: api.DrillReport): Promise<api.RecoveryFacts> {
    const { drill, state } = this.#parts.control.get(id)
    if (drill === undefined) throw new Failure('REQUEST_INVALID', `recovery ${id} is no drill`)
    if (drill.checkedBy !== 'client')
      throw new Failure('REQUEST_INVALID', `the check of drill ${id} is run by the daemon, which knows what came of it`)
    const current = this.#current
    if (current?.id !== id || state !== 'ready') {
      const how = drill.outcome === undefined ? state : `${drill.outcome} already`
      throw new Failure('BUSY', `drill ${id} is ${how}: what its check says does not count`)
    }
    const { outcome, exitStatus, output, checkMillis } = report
    current.reported.tell({ outcome, exitStatus, output, checkMillis })
    await this.#parts.engine.until(id, record => record.drill?.result !== undefined, this.#closing.signal)
    return this.#parts.control.get(id)
  }

  /** On return the drill that is under way is being ended, if there is one; it is never waited for until it is gone. */
  async giveWay(): Promise<void> {
    const current = this.#current
    if (current === undefined) return
    current.mustGiveWay = true
    if (current.id !== undefined) await this.#end(current.id, { outcome: 'gave-way' })
  }

  /** As the definition is to keep it. Fails NOT_FOUND for a check that is not configured. */
  schedule(entry: VpgEntry, asked: api.DrillScheduleRequest | null): DrillSchedule | null {
    this.#waiting.delete(entry.definition.id)
    if (asked === null) return null
    const { everyMillis, minuteOfDay = 0, check, target, settings } = asked
    this.#check(check)
    const when = everyMillis === undefined ? { minuteOfDay } : { everyMillis }
    return { when, check, target: { kind: target, settings }, setAtMicros: this.#parts.clock.timestampMicros() }
  }

  /** What the status says of one VPG. */
  ofVpg({ definition }: VpgEntry): api.DrillStatus {
    const { engine, control } = this.#parts
    const records = engine.list(definition.id).map(({ record }) => record)
    const last = records.find(record => record.drill !== undefined && hasEnded(record))
    const proven = newestProven(records)
    const schedule = definition.drillSchedule ?? undefined
    return {
      schedule: schedule === undefined ? undefined : scheduleFacts(schedule),
      nextAtMicros: schedule === undefined ? undefined : this.#dueAtMicros(definition.id, schedule),
      waitsBecause: this.#waiting.get(definition.id)?.sentence,
      last: last === undefined ? undefined : control.get(last.id),
      proven: proven === undefined ? undefined : provenFacts(control.get(proven.id)),
    }
  }

  /** A check that runs is ended; its drill is noted as interrupted by the next process. */
  async close(): Promise<void> {
    this.#closing.abort(new Failure('CLOSING', 'the daemon ends'))
    await this.#keeping
    await this.#seen
  }

  async #keep(): Promise<void> {
    const { clock, table } = this.#parts
    const { signal } = this.#closing
    while (!signal.aborted) {
      for (const entry of table.all()) if (entry.fenced === undefined) await this.#beginDue(entry)
      await clock.sleep(lookMillis, signal).catch(() => undefined)
    }
  }

  async #beginDue(entry: VpgEntry): Promise<void> {
    const { clock, told } = this.#parts
    const { id, name, drillSchedule: schedule } = entry.definition
    const isDue = schedule != null && this.#dueAtMicros(id, schedule) <= clock.timestampMicros()
    if (!isDue) return void this.#waiting.delete(id)
    if (this.#current !== undefined) return // its turn comes
    const nowMillis = clock.monotonicMillis()
    if ((this.#waiting.get(id)?.untilMillis ?? 0) > nowMillis) return
    const other = this.#inTheWay(entry)
    if (other !== undefined) return void this.#waiting.set(id, { sentence: other, untilMillis: nowMillis })
    try {
      const check = this.#check(schedule.check)
      const drill: Drill = { by: 'schedule', check: check.name, checkedBy: 'daemon' }
      const { kind: target, settings } = schedule.target
      await this.#start({ vpg: name, checkpoint: 'latest', target, settings }, drill, check)
      this.#waiting.delete(id)
    } catch (error) {
      if (this.#closing.signal.aborted) return
      const sentence = error instanceof Error ? error.message : String(error)
      if (this.#waiting.get(id)?.sentence !== sentence) told({ vpg: name, sentence })
      this.#waiting.set(id, { sentence, untilMillis: clock.monotonicMillis() + againMillis })
    }
  }

  /** Drills of the schedule count that gave nobody way. */
  #dueAtMicros(vpg: VpgId, schedule: DrillSchedule): number {
    const { clock, engine } = this.#parts
    const last = engine
      .list(vpg)
      .find(({ record: { drill } }) => drill?.by === 'schedule' && drill.result?.outcome !== 'gave-way')
    return drillDueAtMicros(schedule, last?.record.createdAtMicros, clock.timestampMicros())
  }

  /** Why none can be begun now, in words. */
  #inTheWay({ definition: { id, name } }: VpgEntry): string | undefined {
    const current = this.#current
    if (current !== undefined) return `drill ${current.id ?? ''} of ${current.vpg} is under way; one is at a time`
    const other = this.#parts.engine.list(id).find(({ record }) => !hasEnded(record) && record.drill === undefined)
    if (other === undefined) return undefined
    const { record } = other
    const end = record.kind === 'failover' || record.kind === 'move' ? 'commit or rollback' : 'stop'
    return `recovery ${record.id}, a ${record.kind} of ${name}, is ${record.state}: drills wait until it has ended (vra recover ${end})`
  }

  #check(name: string): ConfiguredCheck {
    const { checks } = this.#parts
    const found = checks.find(check => check.name === name)
    if (found !== undefined) return found
    const known = checks.length === 0 ? 'it has none' : `it has ${checks.map(check => check.name).join(', ')}`
    throw new Failure('NOT_FOUND', `the configuration of this VRA has no check "${name}" (drillChecks); ${known}`)
  }

  async #start(
    request: Omit<api.DrillRequest, 'check'>,
    drill: Drill,
    check: Check | Pick<Check, 'timeoutMillis'>,
  ): Promise<api.RecoveryFacts> {
    this.#closing.signal.throwIfAborted()
    const current: Current = { vpg: request.vpg, id: undefined, mustGiveWay: false, reported: untilTold<DrillResult>() }
    this.#current = current
    try {
      const begun = await this.#parts.control.startDrill(request, drill)
      current.id = begun.id
      this.#seen = this.#see(begun.id, current, check)
      return begun
    } catch (error) {
      this.#current = undefined
      throw error
    }
  }

  /** Until nothing of it is left. */
  async #see(id: string, current: Current, check: Check | Pick<Check, 'timeoutMillis'>): Promise<void> {
    const { engine, told } = this.#parts
    const { signal } = this.#closing
    try {
      if (current.mustGiveWay) await this.#end(id, { outcome: 'gave-way' })
      const { state } = await engine.until(id, record => record.state !== 'preparing', signal)
      if (state === 'ready') await this.#checked(id, current, check)
      const { drill } = await engine.until(id, hasEnded, signal)
      told({ vpg: current.vpg, drill: id, ...(drill?.result === undefined ? {} : { outcome: drill.result.outcome }) })
    } catch (error) {
      // Its VPG is served here no more, or the daemon ends.
      if (!(error instanceof Failure)) told({ vpg: current.vpg, drill: id, sentence: String(error) })
    } finally {
      this.#current = undefined
    }
  }

  async #checked(id: string, current: Current, check: Check | Pick<Check, 'timeoutMillis'>): Promise<void> {
    const { clock, control, engine, runCheck } = this.#parts
    const over = new AbortController()
    const signal = AbortSignal.any([this.#closing.signal, over.signal])
    // Whoever ends the drill otherwise ends its check.
    const ended = engine
      .until(id, record => record.state !== 'ready', signal)
      .then(
        () => over.abort(new Failure('CLOSING', 'the drill has ended')),
        () => undefined,
      )
    try {
      const { timeoutMillis } = check
      const result =
        'command' in check
          ? await runCheck({ ...check, clock, environment: environmentOf(control.get(id)) }, signal)
          : await Promise.race([
              current.reported.told,
              clock
                .sleep(timeoutMillis, signal)
                .then(() => ({ outcome: 'timed-out', checkMillis: timeoutMillis }) as const),
            ])
      await this.#end(id, result)
    } catch (error) {
      if (!signal.aborted) await this.#end(id, { outcome: 'failed', output: String(error) })
      this.#closing.signal.throwIfAborted()
    } finally {
      over.abort(new Failure('CLOSING', 'the check has ended'))
      await ended
    }
  }

  /** What the store takes too late is taken all the same; what has ended meanwhile has another result. */
  async #end(id: string, result: DrillResult): Promise<void> {
    await this.#parts.engine.endDrill(id, result).catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error
    })
  }
}

function timeoutOf(check: api.DrillRequest['check']): number {
  return 'timeoutMillis' in check ? check.timeoutMillis : 0
}

function environmentOf(recovered: api.RecoveryFacts): Record<string, string> {
  const own = inherited.flatMap(name => {
    const value = process.env[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return { ...Object.fromEntries(own), ...checkEnvironment(recovered) }
}

function scheduleFacts({ when, check, target, setAtMicros }: DrillSchedule): NonNullable<api.DrillStatus['schedule']> {
  return { ...when, check, target: target.kind, settings: target.settings, setAtMicros }
}

function provenFacts(drill: api.RecoveryFacts): api.ProvenCheckpoint {
  const { id, checkpoint = '', checkpointTimestampMicros = 0, readyAtMicros, endedAtMicros, rtoMillis = 0 } = drill
  const provenAtMicros = endedAtMicros ?? readyAtMicros ?? 0
  return { drill: id, checkpoint, timestampMicros: checkpointTimestampMicros, provenAtMicros, rtoMillis }
}
