import type { PositionVector } from '../base/ids.ts'
import { assert } from '../base/assert.ts'
import type { DurableMarker } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import { requireKnownRetention } from '../timeline/densities.ts'
import { hasEnded, requireKnownRecovery, type RecoveryRecord } from '../timeline/recovery.ts'
import { eachRegion } from '../timeline/region-sizes.ts'
import type { DeltaSpan, GarbageObject, PackRef, RegionVersion, VpgState } from '../timeline/state.ts'
import { requireKnownStandby, type StandbyRecord } from '../timeline/standby.ts'
import { regionSizesOf, type ManifestText, type RegionSizesText } from './manifest-text.ts'

// What a manifest says, cut into named parts. A part is a list of items; it is written again only when one of its items is
// another object than at the last manifest. (Items are immutable, so being the same object is being equal.)
//
//   part                       items
//   definition                 one: VpgDefinition
//   segments/<number / 64>     SegmentSpan, those that wait for a fold
//   deltas/<toOrdinal>         one: DeltaSpan; of an open one deltas/<toOrdinal>/<its number>
//   regions/<volume>/<region / 1024>   RegionVersion
//   tags, pins, holes          Tag, Pin, Hole
//   recoveries/<id>            one: RecoveryRecord, one that has not ended
//   recoveries/committed, recoveries/removed, recoveries/drills   RecoveryRecord: those that have
//   standby                    one: StandbyRecord; none where no copies are kept warm
//   recent/<ordinal / 1024>     Checkpoint: complete, after the last delta's end
//   markers                    DurableMarker: of checkpoints that miss others
//   garbage/<leftAtMicros>     keys

/** Another appliance went on with the VPG, from what the store had of it. */
export interface Takeover {
  /** The epoch that began. */
  readonly epoch: number
  /** Whose the VPG was before. */
  readonly from: string
  readonly atMicros: number
  /** Where the former epoch ends in each stream: what was acknowledged past it is sent again, and any other copy of it is never replayed. */
  readonly ends: PositionVector
}

/** All that a VPG's commit sequence says. */
export interface VpgContents {
  readonly state: VpgState
  /** Complete checkpoints after the last delta's end with all markers in committed segments, ascending. */
  readonly recent: readonly Checkpoint[]
  readonly pendingMarkers: readonly DurableMarker[]
  /** Where the last delta ends: only records after it count in the segments. */
  readonly segmentsFrom: PositionVector
  /** Undefined while the VPG is protected; else since when it is not. Its objects are then garbage. */
  readonly deletedAtMicros: number | undefined
  /** The newest, oldest first; absent where there was none. */
  readonly takeovers?: readonly Takeover[]
}

export interface Part {
  readonly name: string
  readonly items: readonly unknown[]
}

/** Items, or what holds some, as the text of a manifest has them. */
export function manifestText(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) => (each instanceof Uint32Array ? [...eachRegion(each)] : each))
}

/** The items of a part of this name that manifestText made the text of. */
export function itemsOf(partName: string, { parsed, sizes }: ManifestText): readonly unknown[] {
  const packOf = (pack: PackText): PackRef => ({
    ...pack,
    regionRawSizeBytes: regionSizesOf(pack.regionRawSizeBytes, sizes),
  })
  const [kind] = partName.split('/')
  if (kind === 'deltas') {
    const deltas = parsed as readonly (Omit<DeltaSpan, 'packs'> & { readonly packs: readonly PackText[] })[]
    return deltas.map(delta => ({ ...delta, packs: delta.packs.map(packOf) }))
  }
  if (kind !== 'regions') return parsed as readonly unknown[]
  const versions = parsed as readonly (Omit<RegionVersion, 'pack'> & { readonly pack?: PackText })[]
  return versions.map(version => (version.pack === undefined ? version : { ...version, pack: packOf(version.pack) }))
}

interface PackText extends Omit<PackRef, 'regionRawSizeBytes'> {
  readonly regionRawSizeBytes: RegionSizesText
}

/** The part of a manifest that is small and always changes; it stands in the root itself. */
export interface RootFields {
  readonly epoch: number
  readonly historyEdge: VpgState['historyEdge']
  readonly agedEarly?: VpgState['agedEarly']
  readonly offloaded: VpgState['offloaded']
  readonly segmentsFrom: PositionVector
  readonly deletedAtMicros: number | undefined
  readonly takeovers?: readonly Takeover[]
}

const segmentsPerPart = 64
const regionsPerPart = 1024
const ordinalsPerPart = 1024

export function rootFieldsOf({ state, segmentsFrom, deletedAtMicros, takeovers }: VpgContents): RootFields {
  const { epoch, historyEdge, agedEarly, offloaded } = state
  const former = takeovers === undefined ? {} : { takeovers }
  return { epoch, historyEdge, agedEarly, offloaded, segmentsFrom, deletedAtMicros, ...former }
}

/** All parts but the garbage, by name. */
export function partsOf({ state, recent, pendingMarkers }: VpgContents): Part[] {
  const parts = new Map<string, unknown[]>()
  const add = (name: string, item: unknown): void => {
    const items = parts.get(name)
    if (items === undefined) parts.set(name, [item])
    else items.push(item)
  }
  add('definition', state.definition)
  for (const segment of state.segments) add(`segments/${Math.floor(segment.commitNumber / segmentsPerPart)}`, segment)
  for (const delta of state.deltas) add(deltaPartName(delta), delta)
  for (const version of state.regions) {
    add(`regions/${version.volume}/${Math.floor(version.region / regionsPerPart)}`, version)
  }
  for (const tag of state.tags) add('tags', tag)
  for (const pin of state.pins) add('pins', pin)
  for (const record of state.recoveries) add(`recoveries/${partOfRecovery(record)}`, record)
  if (state.standby !== undefined) add('standby', state.standby)
  for (const hole of state.holes) add('holes', hole)
  for (const checkpoint of recent) add(`recent/${Math.floor(checkpoint.ordinal / ordinalsPerPart)}`, checkpoint)
  for (const marker of pendingMarkers) add('markers', marker)
  return [...parts].map(([name, items]) => ({ name, items }))
}

function partOfRecovery(record: RecoveryRecord): string {
  if (!hasEnded(record)) return record.id
  return record.drill === undefined ? record.state : 'drills'
}

/** The garbage, a part for each time at which something left. */
export function garbageParts(garbage: readonly GarbageObject[]): Part[] {
  const parts = new Map<number, GarbageObject[]>()
  for (const object of garbage) {
    const objects = parts.get(object.leftAtMicros)
    if (objects === undefined) parts.set(object.leftAtMicros, [object])
    else objects.push(object)
  }
  return [...parts].map(([leftAtMicros, items]) => ({ name: `garbage/${leftAtMicros}`, items }))
}

/** Of a part of the garbage, by its name: when it left. */
export function leftMicrosOf(partName: string): number | undefined {
  const [kind, left] = partName.split('/')
  return kind === 'garbage' ? Number(left) : undefined
}

/** Kinds of parts that serving a VPG needs, none of which grows with the history. */
const servingKinds = new Set(['definition', 'tags', 'pins', 'recoveries', 'standby', 'holes', 'recent', 'markers'])

/** Tells whether a part, of a manifest with all of these, is needed to serve a VPG and to commit after it. There may be thousands. */
export function partsForServing(all: readonly string[]): (partName: string) => boolean {
  // The newest segments' part takes those that are committed next; the last delta says where the segments begin.
  const newestSegments = all.filter(name => name.startsWith('segments/')).sort((a, b) => numberIn(b) - numberIn(a))[0]
  const newestDelta = newestDeltaParts(all)[0]
  return partName =>
    servingKinds.has(partName.split('/')[0] ?? '') || partName === newestSegments || partName === newestDelta
}

export function deltaPartName({ toOrdinal, open }: DeltaSpan): string {
  return open === undefined ? `deltas/${toOrdinal}` : `deltas/${toOrdinal}/${open}`
}

/** Names of the parts of deltas, the newest first. */
export function newestDeltaParts(all: readonly string[]): string[] {
  const openOf = (name: string): number => Number(name.split('/')[2] ?? Infinity)
  const newestFirst = (a: string, b: string): number =>
    numberIn(b) - numberIn(a) || (openOf(a) === openOf(b) ? 0 : openOf(b) - openOf(a))
  return all.filter(name => name.startsWith('deltas/')).sort(newestFirst)
}

function numberIn(partName: string): number {
  return Number(partName.split('/')[1])
}

/** Puts together what partsOf and garbageParts took apart. */
export function contentsOf(fields: RootFields, commitNumber: number, parts: readonly Part[]): VpgContents {
  const all = <T>(kind: string): T[] =>
    parts.filter(part => part.name.split('/')[0] === kind).flatMap(part => part.items as readonly T[])
  const [definition] = all<VpgDefinition>('definition')
  assert(definition !== undefined, 'a manifest has a definition')
  const state: VpgState = {
    definition: withDefaults(definition),
    epoch: fields.epoch,
    commitNumber,
    deltas: all<DeltaSpan>('deltas').sort(
      (a, b) => a.toOrdinal - b.toOrdinal || (a.open ?? Infinity) - (b.open ?? Infinity),
    ),
    segments: all<VpgState['segments'][number]>('segments').sort((a, b) => a.commitNumber - b.commitNumber),
    regions: all<VpgState['regions'][number]>('regions'),
    offloaded: fields.offloaded,
    historyEdge: fields.historyEdge,
    agedEarly: fields.agedEarly,
    tags: all('tags'),
    pins: all('pins'),
    recoveries: recoveriesIn(all<RecoveryRecord>('recoveries')),
    ...standbyIn(all<StandbyRecord>('standby')),
    holes: all('holes'),
    garbage: all('garbage'),
  }
  return {
    state,
    recent: all<Checkpoint>('recent').sort((a, b) => a.ordinal - b.ordinal),
    pendingMarkers: all('markers'),
    segmentsFrom: fields.segmentsFrom,
    deletedAtMicros: fields.deletedAtMicros,
    ...(fields.takeovers === undefined ? {} : { takeovers: fields.takeovers }),
  }
}

/** As they were begun; a record that this program does not know is refused with the whole manifest. */
function recoveriesIn(records: readonly RecoveryRecord[]): RecoveryRecord[] {
  records.forEach(requireKnownRecovery)
  return [...records].sort((a, b) => a.createdAtMicros - b.createdAtMicros || (a.id < b.id ? -1 : 1))
}

function standbyIn([standby]: readonly StandbyRecord[]): Pick<VpgState, 'standby'> {
  if (standby === undefined) return {}
  requireKnownStandby(standby)
  return { standby }
}

/** A definition of before there were several streams, changing volumes, a rate, a pause and limits says what was so then. */
function withDefaults(definition: VpgDefinition): VpgDefinition {
  requireKnownRetention(definition)
  const written: Partial<VpgDefinition> = definition
  return {
    ...definition,
    volumes: definition.volumes.map(volume => ({ ...volume, stream: (volume as { stream?: number }).stream ?? 1 })),
    removedVolumes: written.removedVolumes ?? [],
    syncRateBytesPerSecond: written.syncRateBytesPerSecond ?? 0,
    paused: written.paused ?? false,
    journalWarnSizeBytes: written.journalWarnSizeBytes ?? 0,
    journalLimitSizeBytes: written.journalLimitSizeBytes ?? 0,
  }
}
