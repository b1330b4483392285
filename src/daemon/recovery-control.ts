import type { Aging } from '../aging/aging.ts'
import type { OpenedVpg } from '../aging/service.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { formatCheckpointId, ordinal, type VpgId } from '../base/ids.ts'
import type * as api from '../control/service.ts'
import { durationInWords } from '../control/words.ts'
import {
  changesVpg,
  isWhole,
  vmsOf,
  volumesMeant,
  type Recoveries,
  type RecoveryOrder,
  type RecoveryView,
  type Standbys,
} from '../recovery/recovery.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { hasEnded, requireNoneUnderWay, type Drill } from '../timeline/recovery.ts'
import type { Checkpoints } from './checkpoints.ts'
import type { VpgEntry, VpgTable } from './vpg-table.ts'

export interface RecoveryControlParts {
  readonly aging: Pick<Aging, 'dataSizes'>
  readonly checkpoints: Checkpoints
  readonly clock: Clock
  readonly recoveries: Recoveries
  readonly standbys: Standbys
  readonly table: VpgTable
}

type Order = RecoveryOrder & { readonly entry: VpgEntry; readonly remarks: readonly string[] }

/** What the API asks of recoveries: names and references are looked up here, and what is told is put into names again. */
export class RecoveryControl {
  readonly #parts: RecoveryControlParts
  readonly #closing = new AbortController()

  constructor(parts: RecoveryControlParts) {
    this.#parts = parts
  }

  async plan(request: api.RecoveryRequest): Promise<api.RecoveryPlan> {
    const { clock, recoveries } = this.#parts
    const { entry, remarks, ...order } = await this.#order(request)
    const plan = await recoveries.plan(order, this.#closing.signal)
    const { kind, checkpoint, commitPolicy, definition } = order
    const nameOf = namesIn(entry)
    const sizes = new Map(plan.sizes.map(size => [size.volume, size]))
    const vms = order.vms.map(({ name, volumes }) => ({
      name,
      volumes: volumes.map(number => {
        const { sizeBytes = 0, dataSizeBytes = 0 } = sizes.get(number) ?? {}
        return { name: nameOf(number), sizeBytes, dataSizeBytes }
      }),
    }))
    return {
      vpg: definition.name,
      kind,
      target: order.target.kind,
      settings: plan.settings,
      checkpoint: formatCheckpointId(checkpoint.ordinal),
      checkpointTimestampMicros: checkpoint.timestampMicros,
      ageMillis: Math.max(0, clock.timestampMicros() - checkpoint.timestampMicros) / 1000,
      tags: entry.tagsOf(checkpoint.ordinal),
      vms,
      sizeBytes: plan.sizes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      copySizeBytes: plan.copySizeBytes,
      expectedMillis: plan.expectedMillis,
      commitPolicy,
      remarks: [...remarks, ...plan.remarks],
    }
  }

  /** `before` is done when the request is known to have a meaning. */
  async start(request: api.RecoveryRequest, before: () => Promise<void>): Promise<api.RecoveryFacts> {
    const { entry: _, remarks: __, ...order } = await this.#order(request)
    await before()
    return this.#facts(await this.#parts.recoveries.start(order, this.#closing.signal))
  }

  async startDrill(request: Omit<api.DrillRequest, 'check'>, drill: Drill): Promise<api.RecoveryFacts> {
    const test = { ...request, kind: 'test', commitPolicy: { kind: 'none', afterMillis: 1 } } as const
    const { entry: _, remarks: __, ...order } = await this.#order(test)
    return this.#facts(await this.#parts.recoveries.start({ ...order, drill }, this.#closing.signal))
  }

  list(): api.RecoveryFacts[] {
    const views = this.#parts.recoveries.list().filter(({ record }) => record.drill === undefined || !hasEnded(record))
    return views.map(view => this.#facts(view))
  }

  /** Newest first. */
  drillsOf(vpg: VpgId): api.RecoveryFacts[] {
    const views = this.#parts.recoveries.list(vpg).filter(({ record }) => record.drill !== undefined)
    return views.map(view => this.#facts(view))
  }

  get(id: string): api.RecoveryFacts {
    return this.#facts(this.#parts.recoveries.get(id))
  }

  async decide(id: string, decision: api.RecoveryDecision): Promise<api.RecoveryFacts> {
    return this.#facts(await this.#parts.recoveries.decide(id, decision))
  }

  /** The VPG's recoveries and standby copies are gone on with, as the store has them; nothing happens where they are already. */
  serve(entry: VpgEntry, { recoveries, standby }: Pick<OpenedVpg, 'recoveries' | 'standby'>): void {
    const { id } = entry.definition
    this.#parts.standbys.serve(id, standby, () => entry.definition)
    this.#parts.recoveries.serve(id, recoveries, () => entry.definition)
  }

  /** The same of all that are served. */
  serveAll(opened: readonly OpenedVpg[]): void {
    for (const vpg of opened) {
      const entry = this.#parts.table.get(vpg.definition.id)
      if (entry !== undefined && entry.fenced === undefined) this.serve(entry, vpg)
    }
  }

  /** It is deleted, or another appliance's. */
  async forget(vpg: VpgId): Promise<void> {
    await this.#parts.standbys.forget(vpg)
    await this.#parts.recoveries.forget(vpg)
  }

  /** Its definition says something else. */
  changed(vpg: VpgId): void {
    this.#parts.standbys.changed(vpg)
  }

  /** Fails REQUEST_INVALID where none can be kept. */
  requireStandbyTarget(): void {
    this.#parts.standbys.requireTarget()
  }

  /** Fails BUSY while its recoveries keep the VPG from being deleted. */
  requireNoneUnderWay(vpg: VpgId, { isForced }: { readonly isForced: boolean }): void {
    const records = this.#parts.recoveries.list(vpg).map(({ record }) => record)
    requireNoneUnderWay(records, { vpg, isForced })
  }

  /** Nothing of the VPG is left elsewhere but what its recoveries made, on return. Fails as Standbys.end() does. */
  async endStandby(vpg: VpgId): Promise<void> {
    await this.#parts.standbys.end(vpg)
  }

  /** The VPG is about to be deleted, and its copies are left where they are: nothing is made of them or removed; changed() takes that back. */
  async abandonStandby(vpg: VpgId): Promise<void> {
    await this.#parts.standbys.abandon(vpg)
  }

  /** What the status says of one VPG. */
  ofVpg(entry: VpgEntry): Pick<api.VpgStatus, 'recoveries' | 'lastRecovery' | 'standby'> {
    const views = this.#parts.recoveries.list(entry.definition.id)
    const ready = views.filter(({ record }) => record.readyAtMicros !== undefined)
    const last = ready.map(view => this.#facts(view)).sort((a, b) => (b.readyAtMicros ?? 0) - (a.readyAtMicros ?? 0))[0]
    return {
      standby: this.#standby(entry),
      recoveries: views.filter(({ record }) => !hasEnded(record)).map(view => this.#facts(view)),
      lastRecovery:
        last?.readyAtMicros === undefined || last.rtoMillis === undefined
          ? undefined
          : { readyAtMicros: last.readyAtMicros, rtoMillis: last.rtoMillis },
    }
  }

  #standby({ definition }: VpgEntry): api.StandbyFacts | undefined {
    const { clock, standbys } = this.#parts
    const view = standbys.view(definition.id)
    if (view === undefined) return undefined
    const { copies, ...rest } = view
    const ages = definition.volumes.map(({ number }) => {
      const copy = copies.find(({ volume }) => volume === number)
      return copy === undefined ? Infinity : Math.max(0, clock.timestampMicros() - copy.timestampMicros) / 1000
    })
    const oldestMillis = Math.max(...ages)
    const nameOf = namesIn({ definition })
    return {
      intervalMillis: definition.standbyIntervalMillis ?? 0,
      ageMillis: Number.isFinite(oldestMillis) ? oldestMillis : undefined,
      copies: copies.map(({ volume, place, ordinal: at, timestampMicros, putSizeBytes, isWhole }) => ({
        ...{ volume: nameOf(volume), place, checkpoint: formatCheckpointId(ordinal(at)) },
        ...{ checkpointTimestampMicros: timestampMicros, putSizeBytes, isWhole },
      })),
      ...rest,
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new Failure('CLOSING', 'the daemon ends'))
  }

  async #order(request: api.RecoveryRequest): Promise<Order> {
    const { checkpoints, clock, table } = this.#parts
    const entry = table.named(request.vpg)
    const { definition } = entry
    const { kind, commitPolicy } = request
    if (kind === 'move' && request.checkpoint.trim() !== 'latest')
      throw new Failure(
        'REQUEST_INVALID',
        'a move makes the last checkpoint itself and takes that one, so that nothing is lost; for another one fail over to it',
      )
    const meant = volumesMeant(definition, { vms: request.vms ?? [], volumes: request.volumes ?? [] })
    const including = (meant ?? definition.volumes).map(({ number }) => number)
    const nowMicros = clock.timestampMicros()
    const checkpoint = await checkpoints
      .findIncluding(entry, including, request.checkpoint, nowMicros)
      .catch(async (error: unknown) => {
        // A time before a volume was there, or while its first synchronisation runs: what there was of the others.
        if (meant !== undefined || !failedWith(error, 'CHECKPOINT_MISSING')) throw error
        return await checkpoints.find(entry, request.checkpoint, nowMicros)
      })
    const instead = await this.#instead(entry, including, checkpoint)
    const vms = vmsOf(definition, checkpoint, meant, instead)
    const target = { kind: request.target, settings: request.settings }
    const isPart = changesVpg(kind) && !isWhole(definition, vms)
    if (kind === 'move' && isPart)
      throw new Failure(
        'REQUEST_INVALID',
        `a move is of all volumes of ${definition.name}: their agents stop writing together. To recover some of them take a failover, a test or a clone`,
      )
    const remarks = await this.#remarks(entry, checkpoint, kind)
    if (isPart)
      remarks.push(
        'only a part of the group: when it is committed, the protection of the group goes on as it is, and what is recovered is not protected by it',
      )
    return { entry, remarks, kind, definition, checkpoint, vms, target, commitPolicy }
  }

  /** Where it does not include all that is wanted: what does. */
  async #instead(entry: VpgEntry, including: readonly number[], checkpoint: Checkpoint): Promise<string> {
    const { checkpoints } = this.#parts
    const nearest = await checkpoints.nearestIncluding(entry, including, checkpoint.ordinal)
    const others = 'or name the volumes that you want (--volume)'
    return nearest === undefined
      ? `none does yet; wait, ${others}`
      : `the nearest that does is ${nearest}; take that, ${others}`
  }

  async #remarks(entry: VpgEntry, checkpoint: Checkpoint, kind: api.RecoveryKind): Promise<string[]> {
    const remarks: string[] = []
    const newest = await this.#parts.checkpoints.latest(entry)
    if (newest !== undefined && newest.ordinal > checkpoint.ordinal) {
      const later = durationInWords((newest.timestampMicros - checkpoint.timestampMicros) / 1000)
      const id = formatCheckpointId(newest.ordinal)
      remarks.push(`there are newer checkpoints: what was written in the ${later} up to ${id} is not in this one`)
    }
    const then = new Set(checkpoint.volumes.map(({ number }) => number))
    const without = entry.definition.volumes.filter(({ number }) => !then.has(number)).map(({ name }) => `"${name}"`)
    if (without.length > 0) remarks.push(`${without.join(', ')} was not part of the group then, and is not recovered`)
    if (kind === 'test') remarks.push('a test: protection goes on, and stopping it removes everything again')
    if (kind === 'failover')
      remarks.push(
        'protection goes on, and nothing of it is lost, until you commit; the machines of the protected site are not stopped by this: make sure that they and these do not run side by side',
      )
    return remarks
  }

  #facts({ vpg, record, things, progress, trouble, policy }: RecoveryView): api.RecoveryFacts {
    const entry = this.#parts.table.get(vpg)
    const nameOf = namesIn(entry)
    const { checkpoint, createdAtMicros, readyAtMicros, endedAtMicros, commitPolicy } = record
    const sizeOf = (volume: number): number =>
      checkpoint?.volumes.find(({ number }) => number === volume)?.sizeBytes ??
      entry?.definition.volumes.find(({ number }) => number === volume)?.sizeBytes ??
      0
    const etas = progress.flatMap(({ etaMillis }) => etaMillis ?? [])
    return {
      id: record.id,
      vpg: entry?.definition.name ?? vpg,
      kind: record.kind,
      state: record.state,
      target: record.target.kind,
      settings: record.target.settings,
      checkpoint: checkpoint === undefined ? undefined : formatCheckpointId(checkpoint.ordinal),
      checkpointTimestampMicros: checkpoint?.timestampMicros,
      vms: record.vms.map(({ name, volumes }) => ({
        name,
        volumes: volumes.map(volume => {
          const { doneBytes, totalBytes, etaMillis } = progress.find(each => each.volume === volume) ?? {}
          return { name: nameOf(volume), sizeBytes: sizeOf(volume), doneBytes, totalBytes, etaMillis }
        }),
      })),
      things: things.map(({ vm, volume, kind, place }) => ({
        ...{ vm, kind, place },
        volume: volume === undefined ? undefined : nameOf(volume),
      })),
      doneBytes: progress.reduce((sum, { doneBytes }) => sum + doneBytes, 0),
      totalBytes: progress.reduce((sum, { totalBytes }) => sum + totalBytes, 0),
      etaMillis: etas.length === 0 ? undefined : Math.max(...etas),
      commitPolicy,
      policyAtMicros: policy?.atMicros,
      isPolicyPutOff: policy?.isPutOff,
      createdAtMicros,
      readyAtMicros: readyAtMicros ?? undefined,
      endedAtMicros: endedAtMicros ?? undefined,
      rtoMillis: readyAtMicros === undefined ? undefined : Math.max(0, readyAtMicros - createdAtMicros) / 1000,
      trouble,
      failure: record.failure,
      drill: record.drill === undefined ? undefined : drillFacts(record.drill),
    }
  }
}

function drillFacts({ by, check, checkedBy, result }: Drill): api.DrillFacts {
  const { outcome, exitStatus, output, checkMillis } = result ?? {}
  return { by, check, checkedBy, outcome, exitStatus, output, checkMillis }
}

function namesIn(entry: Pick<VpgEntry, 'definition'> | undefined): (volume: number) => string {
  const { volumes = [], removedVolumes = [] } = entry?.definition ?? {}
  return number => [...volumes, ...removedVolumes].find(volume => volume.number === number)?.name ?? `volume ${number}`
}
