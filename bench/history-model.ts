import { ordinal, sequence, type Ordinal, type VpgId } from '../src/base/ids.ts'
import {
  foldSizeBytesMinDefault,
  checkpointsBeforeFoldMax,
  deltaShareMax,
  deltasThinnedPerCommitMax,
  garbageCompanyShare,
  packRawSizeBytesMax,
  regionSizeBytes,
  regionsPerCommitMax,
  segmentsBeforeFoldMax,
  segmentsBetweenManifestsMax,
  segmentSizeBytesTarget,
} from '../src/base/limits.ts'
import { GiB, KiB } from '../src/base/units.ts'
import { VpgCommits, type VpgContents } from '../src/manifest/manifest.ts'
import type { ObjectStore } from '../src/store/object-store.ts'
import type { Checkpoint } from '../src/timeline/checkpoint.ts'
import { densitiesDefault } from '../src/timeline/densities.ts'
import { lastDeltaEnd } from '../src/timeline/deltas.ts'
import { foldThresholdBytes, planFold, waitingBytes } from '../src/timeline/fold-plan.ts'
import { unread } from '../src/timeline/reach.ts'
import { newestVersions, planRegionRewrites, regionName } from '../src/timeline/region-plan.ts'
import { historyEdge, retention } from '../src/timeline/retention.ts'
import { eachRegion, regionSizes } from '../src/timeline/region-sizes.ts'
import type { DeltaSpan, ObjectRef, PackRef, RegionVersion, SegmentSpan, VpgState } from '../src/timeline/state.ts'
import { droppedBy, isWorthACommit, type ThinningPoint } from '../src/timeline/thinning.ts'

// Months of one full volume, without its bytes: random incompressible 4 KiB writes, spread evenly. What is folded, rewritten, thinned and let go when, and what
// each manifest is, is said by the very functions that the aging thread asks; only the bytes of packs and segments are reckoned.

export type Kind = 'segments' | 'deltas' | 'base' | 'manifests'
export const kinds: readonly Kind[] = ['segments', 'deltas', 'base', 'manifests']

export interface Written {
  readonly rawSizeBytes: number
  readonly days: number
  readonly puts: Readonly<Record<Kind, number>>
  readonly putBytes: Readonly<Record<Kind, number>>
  /** What a full recovery of the newest checkpoint reads, of the live bytes: once a day. */
  readonly readShares: readonly number[]
}

const writeSizeBytes = 4 * KiB
const dayMillis = 86_400_000
const graceMillis = dayMillis
// As the formats say: of a segment a batch of 64 writes has two headers and a row, a write its columns; of a pack an extent has 10 bytes, a block 16.
const segmentBytesPerWrite = writeSizeBytes + 9 + (128 + 28 + 16 + 64 * 9) / 64
const deltaIndexShare = (10 + 16 / 16) / writeSizeBytes
const baseIndexShare = 26 / (64 * KiB)

export interface ModelOptions {
  readonly volumeSizeBytes: number
  readonly checkpointMillis: number
  /** Of the deltas that are there at the beginning. */
  readonly foldSizeBytes: number
}

export class HistoryModel {
  readonly #commits: VpgCommits
  readonly #volumeSizeBytes: number
  readonly #checkpointMillis: number
  #contents: VpgContents
  #folded: ThinningPoint[] = []
  /** Checkpoints that deltas hold, for their pages. */
  readonly #checkpoints = new Map<number, Checkpoint>()
  #historyMillis = 0
  #sequence = 0
  #ordinal = 0
  #commitNumber = 1
  #sinceManifest = 0
  #random = 12_345
  readonly #counts = { puts: zeros(), putBytes: zeros(), rawSizeBytes: 0, days: 0, readShares: [] as number[] }

  private constructor(commits: VpgCommits, options: ModelOptions) {
    this.#commits = commits
    this.#volumeSizeBytes = options.volumeSizeBytes
    this.#checkpointMillis = options.checkpointMillis
    const deltas = this.#fullCycle(options.foldSizeBytes)
    const regions = Array.from({ length: this.#volumeSizeBytes / regionSizeBytes }, (_, region) =>
      this.#version(region, Math.floor(this.#uniform() * (deltas.length + 1))),
    )
    this.#ordinal = deltas.length
    this.#contents = { ...commits.contents, state: { ...commits.contents.state, deltas, regions } }
    this.takeWritten()
  }

  /** A full volume in the middle of its life: its regions were rewritten one behind the other, the last cycle of all is in deltas. */
  static async create(vpg: VpgId, options: ModelOptions): Promise<HistoryModel> {
    const definition: VpgState['definition'] = {
      ...{ id: vpg, name: `scale-${vpg.slice(0, 8)}`, incarnation: 1, removedVolumes: [], paused: false },
      volumes: [{ number: 1, name: 'disk', sizeBytes: options.volumeSizeBytes, stream: 1 }],
      streams: [{ number: 1, agent: 'bench' }],
      ...{ historyMillis: 30 * dayMillis, retention: { formatVersion: 1, densities: densitiesDefault } },
      ...{ checkpointIntervalMillis: 5_000, syncRateBytesPerSecond: 0, createdAtMicros: 1 },
      ...{ journalWarnSizeBytes: 0, journalLimitSizeBytes: 0 },
    }
    const made: HistoryModel[] = []
    const store = sink((kind, sizeBytes) => made[0]?.count(kind, sizeBytes))
    const clock = {
      timestampMicros: () => (made[0]?.historyMillis ?? 0) * 1000,
      monotonicMillis: () => made[0]?.historyMillis ?? 0,
      sleep: () => Promise.resolve(),
      after: () => () => undefined,
    }
    const commits = await VpgCommits.create({ store, clock, applianceId: 'bench' }, definition, never)
    const model = new HistoryModel(commits, options)
    made.push(model)
    // What is there at the beginning is written once, and not counted.
    await model.#commit(model.#contents, [])
    model.takeWritten()
    return model
  }

  /** Deltas from when the region was rewritten that is the next again: twice what stands above the base in the mean. */
  #fullCycle(foldSizeBytes: number): DeltaSpan[] {
    const count = Math.round((2 * deltaShareMax * this.#volumeSizeBytes) / foldSizeBytes)
    const page = this.#page([])
    const templates = Array.from({ length: 8 }, () => this.#deltaPacks(foldSizeBytes))
    return Array.from({ length: count }, (_, index) => ({
      ...{ kind: 'delta', fromOrdinal: index as Ordinal, toOrdinal: (index + 1) as Ordinal },
      packs: (templates[index % templates.length] ?? []).map(pack => ({
        ...pack,
        object: { ...pack.object, key: this.#commits.newKey('delta') },
      })),
      ...{ checkpoints: { ...page, key: `${page.key}${index}` }, checkpointCount: 0, rawSizeBytes: foldSizeBytes },
    }))
  }

  get historyMillis(): number {
    return this.#historyMillis
  }

  get contents(): VpgContents {
    return this.#contents
  }

  /** Those of the page that a delta refers to. */
  checkpointsOf(pageKey: string): readonly Checkpoint[] {
    const delta = this.#contents.state.deltas.find(({ checkpoints }) => checkpoints.key === pageKey)
    if (delta === undefined) return []
    return [...this.#checkpoints.values()].filter(({ ordinal: at }) => delta.fromOrdinal < at && at <= delta.toOrdinal)
  }

  /** What was written since the last call. */
  takeWritten(): Written {
    const { puts, putBytes, rawSizeBytes, days, readShares } = this.#counts
    const written = { puts: { ...puts }, putBytes: { ...putBytes }, rawSizeBytes, days, readShares: [...readShares] }
    for (const kind of kinds) puts[kind] = putBytes[kind] = 0
    this.#counts.rawSizeBytes = this.#counts.days = this.#counts.readShares.length = 0
    return written
  }

  /** One day of writes at an even pace; `segmentMillisMax` as the configuration's segmentAgeMillisMax. */
  async day(bytesPerDay: number, segmentMillisMax: number, segmentBytesMax = segmentSizeBytesTarget): Promise<void> {
    const millis = Math.min(segmentMillisMax, (segmentBytesMax / bytesPerDay) * dayMillis)
    const endMillis = this.#historyMillis + dayMillis
    while (this.#historyMillis < endMillis) {
      await this.#segment((bytesPerDay * millis) / dayMillis, millis)
      while (await this.#age());
    }
    this.#counts.days++
    this.#counts.readShares.push(this.#readShare())
  }

  async #segment(rawSizeBytes: number, millis: number): Promise<void> {
    const writeCount = Math.max(1, Math.round(rawSizeBytes / writeSizeBytes))
    const first = this.#sequence + 1
    const recent = [...this.#contents.recent]
    const checkpointCount =
      Math.floor((this.#historyMillis + millis) / this.#checkpointMillis) -
      Math.floor(this.#historyMillis / this.#checkpointMillis)
    const startMillis = this.#historyMillis
    const volumes = this.#volumes
    for (let index = 1; index <= checkpointCount; index++) {
      this.#sequence += Math.floor(writeCount / Math.max(1, checkpointCount)) + 1
      const historyMillis = Math.round(startMillis + (millis * index) / checkpointCount)
      const vector = [{ stream: 1, generation: 1, sequence: sequence(this.#sequence) }]
      recent.push({
        ordinal: ordinal(++this.#ordinal),
        timestampMicros: historyMillis * 1000,
        historyMillis,
        vector,
        volumes,
      })
    }
    this.#sequence++
    this.#historyMillis += millis
    const sizeBytes = Math.round(writeCount * segmentBytesPerWrite + 192)
    const segment: SegmentSpan = {
      ...{ kind: 'segment', commitNumber: ++this.#commitNumber },
      object: { key: `commit/${this.#commitNumber}`, sizeBytes },
      ...{ footerOffsetBytes: sizeBytes - 12 * writeCount, footerSizeBytes: 12 * writeCount },
      ranges: [{ stream: 1, generation: 1, firstSequence: first, lastSequence: this.#sequence }],
      ...{ writeCount, rawSizeBytes: writeCount * writeSizeBytes },
      ...{
        firstOrdinal: (recent.at(-checkpointCount)?.ordinal ?? 0) as Ordinal,
        lastOrdinal: (recent.at(-1)?.ordinal ?? 0) as Ordinal,
      },
    }
    this.count('segments', sizeBytes)
    this.#counts.rawSizeBytes += segment.rawSizeBytes
    const { state } = this.#contents
    const offloaded = [{ stream: 1, generation: 1, sequence: sequence(this.#sequence) }]
    this.#contents = {
      ...this.#contents,
      recent,
      state: { ...state, segments: [...state.segments, segment], offloaded },
    }
    if (++this.#sinceManifest >= segmentsBetweenManifestsMax) await this.#commit(this.#contents, [])
  }

  /** As the aging thread's merges, one at a time. */
  async #age(): Promise<boolean> {
    return (await this.#fold()) || (await this.#rewrite()) || (await this.#thin()) || (await this.#collect())
  }

  async #fold(): Promise<boolean> {
    const { state, recent, segmentsFrom } = this.#contents
    const limits = { foldSizeBytesMin: foldSizeBytesMinDefault }
    const isNear =
      waitingBytes(state.segments, segmentsFrom) > foldThresholdBytes(state, limits) ||
      recent.length > checkpointsBeforeFoldMax ||
      state.segments.length > segmentsBeforeFoldMax
    if (!isNear) return false
    const plan = planFold(state, { fromVector: segmentsFrom, checkpoints: recent }, limits)
    if (plan === undefined) return false
    if (await this.#thin(true)) return true
    const rawSizeBytes = plan.segments.reduce((sum, segment) => sum + segment.rawSizeBytes, 0)
    const page = this.#page(plan.checkpoints)
    const delta: DeltaSpan = {
      ...{
        kind: 'delta',
        fromOrdinal: plan.fromOrdinal,
        toOrdinal: plan.toOrdinal,
        packs: this.#deltaPacks(rawSizeBytes),
      },
      ...{ checkpoints: page, checkpointCount: plan.checkpoints.length, rawSizeBytes },
    }
    for (const checkpoint of plan.checkpoints) {
      this.#folded.push({ ordinal: checkpoint.ordinal, historyMillis: checkpoint.historyMillis, includedCount: 1 })
      this.#checkpoints.set(checkpoint.ordinal, checkpoint)
    }
    await this.#commitTrimmed({
      ...this.#contents,
      state: { ...state, deltas: [...state.deltas, delta] },
      recent: recent.filter(({ ordinal: at }) => at > plan.toOrdinal),
      segmentsFrom: plan.toVector,
    })
    return true
  }

  async #rewrite(): Promise<boolean> {
    const { state } = this.#contents
    const plans = planRegionRewrites(state, { deltaShareMax, countMax: regionsPerCommitMax })
    if (plans.length === 0) return false
    const versions = plans.map(({ region, asOfOrdinal }) => this.#version(region, asOfOrdinal))
    for (const { pack } of versions) this.count('base', pack?.object.sizeBytes ?? 0)
    await this.#commitTrimmed({ ...this.#contents, state: { ...state, regions: [...state.regions, ...versions] } })
    return true
  }

  async #thin(isAnyWorth = false): Promise<boolean> {
    const { state } = this.#contents
    const points = this.#points()
    const due = droppedBy(densitiesDefault, points, state)
    if (due.length === 0 || (!isAnyWorth && !isWorthACommit(due.length, points.length))) return false
    const end = lastDeltaEnd(state)
    const losing = state.deltas
      .filter(({ fromOrdinal, toOrdinal }) => due.some(at => fromOrdinal < at && at <= toOrdinal))
      .slice(0, deltasThinnedPerCommitMax)
    const dropped = new Set(
      due.filter(at => at > end || losing.some(({ fromOrdinal, toOrdinal }) => fromOrdinal < at && at <= toOrdinal)),
    )
    this.#folded = this.#folded.filter(point => !dropped.has(point.ordinal))
    for (const at of dropped) this.#checkpoints.delete(at)
    const isLosing = new Set(losing)
    const left: string[] = []
    const deltas = state.deltas.map(delta => {
      if (!isLosing.has(delta)) return delta
      const kept = this.#folded.filter(({ ordinal: at }) => delta.fromOrdinal < at && at <= delta.toOrdinal)
      left.push(delta.checkpoints.key)
      const checkpoints = this.#page(kept.flatMap(({ ordinal: at }) => this.#checkpoints.get(at) ?? []))
      return {
        ...delta,
        checkpoints,
        checkpointCount: kept.length,
        versionCount: delta.versionCount ?? delta.checkpointCount,
      }
    })
    const recent = this.#contents.recent.filter(({ ordinal: at }) => !dropped.has(at))
    await this.#commitTrimmed({ ...this.#contents, recent, state: { ...state, deltas } }, left)
    return true
  }

  /** Garbage waits for its grace period, and a share of that for company. */
  async #collect(): Promise<boolean> {
    const { garbage } = this.#contents.state
    const oldest = garbage[0]
    const before = (this.#historyMillis - graceMillis) * 1000
    if (oldest === undefined || oldest.leftAtMicros > before - graceMillis * 1000 * garbageCompanyShare) return false
    const left = garbage.filter(({ leftAtMicros }) => leftAtMicros > before)
    await this.#commit({ ...this.#contents, state: { ...this.#contents.state, garbage: left } }, [])
    return true
  }

  async #commitTrimmed(contents: VpgContents, leftKeys: readonly string[] = []): Promise<void> {
    const points = [...this.#folded, ...contents.recent]
    const edge = historyEdge(points, contents.state.definition.historyMillis, []) ?? (0 as Ordinal)
    const state = { ...contents.state, historyEdge: edge }
    const ordinals = points.map(point => point.ordinal)
    const trimmed = unread(state, ordinals, contents.segmentsFrom)
    const isRetained = retention(state)
    this.#folded = this.#folded.filter(point => isRetained(point.ordinal))
    const { deltas, segments, regions } = trimmed
    await this.#commit({ ...contents, state: { ...state, deltas, segments, regions } }, [
      ...trimmed.leftKeys,
      ...leftKeys,
    ])
  }

  async #commit(contents: VpgContents, leftKeys: readonly string[]): Promise<void> {
    this.#contents = await this.#commits.commitManifest(this.#commits.prepareManifest(contents, leftKeys), never)
    this.#sinceManifest = 0
  }

  #page(checkpoints: readonly Checkpoint[]): ObjectRef {
    const { key, bytes } = this.#commits.checkpointPage(checkpoints)
    this.count('manifests', bytes.length)
    return { key, sizeBytes: bytes.length }
  }

  #points(): ThinningPoint[] {
    return [...this.#folded, ...this.#contents.recent.map(point => ({ ...point, includedCount: 1 }))]
  }

  /** Packs of 128 MiB over all regions, each with about as much as the others. */
  #deltaPacks(rawSizeBytes: number): PackRef[] {
    const regionCount = this.#volumeSizeBytes / regionSizeBytes
    const mean = rawSizeBytes / regionCount
    const packs: PackRef[] = []
    let own: [number, number][] = []
    let ownBytes = 0
    const close = (): void => {
      const [first, last] = [own[0]?.[0] ?? 0, own.at(-1)?.[0] ?? 0]
      const pack = this.#pack('delta', own, { first, last, rawSizeBytes: ownBytes, indexShare: deltaIndexShare })
      this.count('deltas', pack.object.sizeBytes)
      packs.push(pack)
      own = []
      ownBytes = 0
    }
    for (let region = 0; region < regionCount; region++) {
      // The sum of so many independent writes is nearly normal, as wide as the root of their number.
      const spread = Math.sqrt(mean * writeSizeBytes) * (this.#uniform() + this.#uniform() + this.#uniform() - 1.5) * 2
      const bytes = Math.max(0, Math.round((mean + spread) / writeSizeBytes) * writeSizeBytes)
      if (ownBytes + bytes > packRawSizeBytesMax && own.length > 0) close()
      if (bytes > 0) own.push([region, bytes])
      ownBytes += bytes
    }
    if (own.length > 0) close()
    return packs
  }

  #version(region: number, asOfOrdinal: number): RegionVersion {
    const extent = { first: region, last: region, rawSizeBytes: regionSizeBytes, indexShare: baseIndexShare }
    return {
      volume: 1,
      region,
      asOfOrdinal: asOfOrdinal as Ordinal,
      pack: this.#pack('base', [[region, regionSizeBytes]], extent),
    }
  }

  #pack(
    kind: 'delta' | 'base',
    pairs: readonly (readonly [number, number])[],
    of: { readonly first: number; readonly last: number; readonly rawSizeBytes: number; readonly indexShare: number },
  ): PackRef {
    const sizeBytes = Math.round(of.rawSizeBytes * (1 + of.indexShare) + 32 * pairs.length + 208)
    return {
      object: { key: this.#commits.newKey(kind), sizeBytes },
      ...{ volume: 1, startBytes: of.first * regionSizeBytes, endBytes: (of.last + 1) * regionSizeBytes },
      ...{ indexOffsetBytes: of.rawSizeBytes + 80, extentCount: Math.round(of.rawSizeBytes / writeSizeBytes) },
      ...{ rawSizeBytes: of.rawSizeBytes, regionRawSizeBytes: regionSizes(pairs) },
    }
  }

  /** Of the newest base, the deltas over it with their indexes, and the segments behind the last. */
  #readShare(): number {
    const { deltas, regions, segments } = this.#contents.state
    const newest = newestVersions(regions)
    let readBytes = 0
    for (const { pack } of newest.values()) readBytes += pack?.object.sizeBytes ?? 0
    for (const { object } of segments) readBytes += object.sizeBytes
    for (const { packs, toOrdinal } of deltas)
      for (const { volume, regionRawSizeBytes } of packs)
        for (const [region, bytes] of eachRegion(regionRawSizeBytes))
          if ((newest.get(regionName({ volume, region }))?.asOfOrdinal ?? 0) < toOrdinal)
            readBytes += bytes * (1 + deltaIndexShare) + 32
    return readBytes / this.#volumeSizeBytes
  }

  get #volumes(): Checkpoint['volumes'] {
    return this.#contents.recent[0]?.volumes ?? [{ number: 1, sizeBytes: this.#volumeSizeBytes, included: true }]
  }

  count(kind: Kind, sizeBytes: number): void {
    this.#counts.puts[kind]++
    this.#counts.putBytes[kind] += sizeBytes
  }

  #uniform(): number {
    this.#random = (this.#random * 1_103_515_245 + 12_345) % 2 ** 31
    return this.#random / 2 ** 31
  }
}

const never = new AbortController().signal

function zeros(): Record<Kind, number> {
  return { segments: 0, deltas: 0, base: 0, manifests: 0 }
}

/** A store that takes everything and holds nothing; only manifests come here. */
function sink(count: (kind: Kind, sizeBytes: number) => void): ObjectStore {
  return {
    create: async (_key, body) => count('manifests', body.length),
    readRange: () => Promise.reject(new Error('nothing is held here')),
    list: async function* () {},
    remove: async () => undefined,
    close: async () => undefined,
  }
}

export const perGiB = (count: number, rawSizeBytes: number): number => count / (rawSizeBytes / GiB)
