import * as path from 'node:path'
import { newVpgId, ordinal, type Ordinal, type PositionVector } from '../../src/base/ids.ts'
import { KiB } from '../../src/base/units.ts'
import { realDisk } from '../../src/disk/disk.ts'
import { openImage, type Image, type SpoolableImage } from '../../src/image/image.ts'
import {
  fold,
  mergeDeltas,
  rewriteRegion,
  surveyDeltas,
  Workspace,
  type FoldLimits,
  type MergeLimits,
} from '../../src/mirror/mirror.ts'
import type { ImagePlan } from '../../src/aging/service.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { basedIn } from '../../src/timeline/merge-plan.ts'
import { eachRegion } from '../../src/timeline/region-sizes.ts'
import type { DeltaSpan, RegionVersion, SegmentSpan, VpgState } from '../../src/timeline/state.ts'
import { History } from './mirror-history.ts'
import { MemoryStore } from './mirror-memory-store.ts'
import { packTail } from '../../src/segment/segment.ts'

export const testRegionSizeBytes = 64 * KiB
const signal = new AbortController().signal

/** A history and its mirror: it folds, rewrites regions, thins, and drops what no retained checkpoint reads, as aging would. */
export class TestTimeline {
  readonly store = new MemoryStore()
  readonly history: History
  readonly vpg = newVpgId()
  readonly #scratchDirectory: string
  readonly #workspace = new Workspace()
  #deltas: DeltaSpan[] = []
  #regions: RegionVersion[] = []
  #droppedSegments = new Set<number>()
  #keyCount = 0
  #foldedThrough: { ordinal: Ordinal; vector: PositionVector } = { ordinal: ordinal(0), vector: [] }
  retained: Checkpoint[] = []

  constructor(history: History, scratchDirectory: string) {
    this.history = history
    this.#scratchDirectory = path.resolve(scratchDirectory)
  }

  readonly #tools = {
    store: this.store,
    newKey: () => `pack-${++this.#keyCount}`,
    workspace: this.#workspace,
    yieldNow: () => Promise.resolve(),
    signal,
  }

  get state(): VpgState {
    const segments: SegmentSpan[] = this.history.segments
      .map(segment => segment.span)
      .filter(span => !this.#droppedSegments.has(span.commitNumber))
    return {
      definition: {
        id: this.vpg,
        name: 'test',
        incarnation: 1,
        volumes: [],
        streams: [],
        historyMillis: 1,
        checkpointIntervalMillis: 1,
        syncRateBytesPerSecond: 0,
        paused: false,
        removedVolumes: [],
        journalWarnSizeBytes: 0,
        journalLimitSizeBytes: 0,
        createdAtMicros: 0,
      },
      epoch: 1,
      commitNumber: 1,
      deltas: this.#deltas,
      segments,
      regions: this.#regions,
      offloaded: [],
      historyEdge: ordinal(0),
      tags: [],
      pins: [],
      recoveries: [],
      holes: [],
      garbage: [],
    }
  }

  checkpoint(): void {
    this.retained.push(this.history.checkpoint())
  }

  /** Drops some checkpoints, never the newest. */
  thin(): void {
    const newest = this.retained.at(-1)
    this.retained = this.retained.filter(checkpoint => checkpoint === newest || this.history.random(3) > 0)
  }

  /** Folds up to a retained checkpoint that is not folded; everything up to there is in segments then. */
  async fold(limits: Omit<FoldLimits, 'regionSizeBytes'>): Promise<DeltaSpan | undefined> {
    const { ordinal: fromOrdinal, vector: fromVector } = this.#foldedThrough
    const candidates = this.retained.filter(checkpoint => checkpoint.ordinal > fromOrdinal)
    if (candidates.length === 0) return undefined
    this.history.seal('all')
    const checkpoints = candidates.slice(0, 1 + this.history.random(candidates.length))
    const to = checkpoints.at(-1)!
    const { packs, rawSizeBytes } = await fold({
      ...this.#tools,
      vpg: this.vpg,
      epoch: 1,
      fromOrdinal,
      fromVector,
      checkpoints,
      sources: this.history.segments
        .filter(({ span }) => !this.#droppedSegments.has(span.commitNumber))
        .map(segment => segment.source),
      holes: [],
      disk: realDisk,
      scratchDirectory: this.#scratchDirectory,
      limits: { ...limits, regionSizeBytes: testRegionSizeBytes },
    })
    const delta: DeltaSpan = {
      kind: 'delta',
      fromOrdinal,
      toOrdinal: to.ordinal,
      packs,
      checkpoints: { key: 'none', sizeBytes: 0 },
      checkpointCount: checkpoints.length,
      rawSizeBytes,
    }
    this.#deltas = [...this.#deltas, delta]
    this.#foldedThrough = { ordinal: to.ordinal, vector: to.vector }
    const covered = (stream: number, generation: number, lastSequence: number): boolean =>
      to.vector.some(
        at =>
          at.stream === stream &&
          (at.generation > generation || (at.generation === generation && at.sequence >= lastSequence)),
      )
    for (const { span } of this.history.segments) {
      if (span.ranges.every(range => covered(range.stream, range.generation, range.lastSequence)))
        this.#droppedSegments.add(span.commitNumber)
    }
    return delta
  }

  /** Makes one delta of some adjacent ones. */
  async merge(limits: Omit<MergeLimits, 'regionSizeBytes'>): Promise<DeltaSpan | undefined> {
    const first = this.history.random(this.#deltas.length)
    const run = this.#deltas.slice(first, first + 1 + this.history.random(4))
    const [oldest, newest] = [run[0], run.at(-1)]
    if (oldest === undefined || newest === undefined) return undefined
    const ordinals = this.retained.map(checkpoint => checkpoint.ordinal)
    const { fromOrdinal } = oldest
    const { toOrdinal } = newest
    const inside = ordinals.filter(each => fromOrdinal < each && each < toOrdinal)
    const groups = [...inside, toOrdinal]
    const isBased = basedIn(this.state, ordinals)
    const request = { ...this.#tools, vpg: this.vpg, epoch: 1, deltas: run, groups, isBased }
    const mergeLimits = { ...limits, regionSizeBytes: testRegionSizeBytes }
    const { packs, rawSizeBytes } = await mergeDeltas({ ...request, limits: mergeLimits })
    const regions = packs.flatMap(({ volume, regionRawSizeBytes }) =>
      [...eachRegion(regionRawSizeBytes)].map(([region]) => ({ volume, region })),
    )
    const places = [...new Map(regions.map(at => [`${at.volume}/${at.region}`, at])).values()]
    const survey = await surveyDeltas({ ...request, limits: mergeLimits }, places)
    if (survey.liveSizeBytes !== rawSizeBytes)
      throw new Error(`the survey says ${survey.liveSizeBytes} bytes, the merge kept ${rawSizeBytes}`)
    const kind = 'delta'
    const page = { checkpoints: { key: 'none', sizeBytes: 0 }, checkpointCount: groups.length }
    const delta: DeltaSpan = { kind, fromOrdinal, toOrdinal, packs, ...page, rawSizeBytes }
    this.#deltas = this.#deltas.toSpliced(first, run.length, delta)
    return delta
  }

  /** Rewrites some region at the end of some delta after its newest version. */
  async rewrite(): Promise<RegionVersion | undefined> {
    const { number, sizeBytes } = this.history.checkpoints[0]!.volumes[this.history.random(2)]!
    const region = this.history.random(Math.ceil(sizeBytes / testRegionSizeBytes))
    const newest = Math.max(
      0,
      ...this.#regions
        .filter(version => version.volume === number && version.region === region)
        .map(version => version.asOfOrdinal),
    )
    const ends = this.#deltas.map(delta => delta.toOrdinal).filter(end => end > newest)
    if (ends.length === 0) return undefined
    const version = await rewriteRegion({
      ...this.#tools,
      state: this.state,
      vpg: this.vpg,
      epoch: 1,
      volume: number,
      region,
      asOfOrdinal: ends[this.history.random(ends.length)]!,
      regionSizeBytes: testRegionSizeBytes,
    })
    this.#regions = [...this.#regions, version]
    return version
  }

  /** Removes versions and deltas that no retained checkpoint's image reads; returns how many. */
  drop(): number {
    const before = this.#regions.length + this.#deltas.length
    const base = (volume: number, region: number, at: number): RegionVersion | undefined =>
      this.#regions
        .filter(version => version.volume === volume && version.region === region && version.asOfOrdinal <= at)
        .sort((a, b) => b.asOfOrdinal - a.asOfOrdinal)[0]
    const retained = [...this.retained.map(checkpoint => checkpoint.ordinal), this.#foldedThrough.ordinal]
    const versions = this.#regions.filter(version =>
      retained.some(at => base(version.volume, version.region, at) === version),
    )
    const deltas = this.#deltas.filter(delta =>
      delta.packs.some(pack =>
        [...eachRegion(pack.regionRawSizeBytes)].some(([region]) =>
          retained.some(
            at => delta.fromOrdinal < at && delta.toOrdinal > (base(pack.volume, region, at)?.asOfOrdinal ?? -1),
          ),
        ),
      ),
    )
    this.#regions = versions
    this.#deltas = deltas
    return before - versions.length - deltas.length
  }

  plan(checkpoint: Checkpoint): ImagePlan {
    const tail = this.history.tail().batches.map((batch, index) => ({
      fileIdentity: 1,
      offsetBytes: index,
      sizeBytes: 1,
      stream: batch.stream,
      generation: batch.generation,
      firstSequence: batch.firstSequence,
      lastSequence: batch.firstSequence + batch.writes.length - 1,
    }))
    return {
      pinId: 'pin',
      checkpoint,
      state: this.state,
      tail: packTail(tail),
      segmentsFrom: this.#foldedThrough.vector,
    }
  }

  async open(plan: ImagePlan, cacheSizeBytes = 32 * KiB): Promise<SpoolableImage> {
    return await openImage(
      plan,
      {
        store: this.store,
        openSegment: span => this.history.segments[span.commitNumber - 1]!.source,
        openTail: () => this.history.tail().source,
        cacheSizeBytes,
        regionSizeBytes: testRegionSizeBytes,
      },
      signal,
    )
  }
}

/** Everything that read() gives of the volume, in pieces of random size. */
export async function readVolume(image: Image, volume: number, random: (below: number) => number): Promise<Uint8Array> {
  const { sizeBytes } = image.volumes.find(candidate => candidate.number === volume)!
  const bytes = new Uint8Array(sizeBytes).fill(0xaa)
  for (let at = 0; at < sizeBytes;) {
    const end = Math.min(sizeBytes, at + 1 + random(100_000))
    await image.read(volume, at, bytes.subarray(at, end), signal)
    at = end
  }
  return bytes
}

/** Everything that scatter() gives of the volume; fails where a byte comes twice. */
export async function scatterVolumeToArray(
  image: Image,
  volume: number,
  range: { startBytes: number; endBytes: number },
): Promise<{ bytes: Uint8Array; givenTwice: boolean }> {
  const { sizeBytes } = image.volumes.find(candidate => candidate.number === volume)!
  const bytes = new Uint8Array(sizeBytes)
  const given = new Uint8Array(sizeBytes)
  let givenTwice = false
  const piece = (offsetBytes: number, data: Uint8Array): void => {
    const own = given.subarray(offsetBytes, offsetBytes + data.length)
    givenTwice ||= own.includes(1) || own.length !== data.length
    own.fill(1)
    bytes.set(data, offsetBytes)
  }
  await image.scatter(volume, range, { piece, progress: () => undefined }, signal)
  return { bytes, givenTwice }
}
