import t from 'tap'
import type { Ordinal, Sequence } from '../../src/base/ids.ts'
import { regionSizeBytes } from '../../src/base/limits.ts'
import { historyEdge, retention } from '../../src/timeline/retention.ts'
import { planFold, waitingBytes } from '../../src/timeline/fold-plan.ts'
import { mirrorBytes, planRegionRewrites, regionLoads } from '../../src/timeline/region-plan.ts'
import { unread } from '../../src/timeline/reach.ts'
import { isGoneAt, withRemovalNoted, withVolumesGone } from '../../src/timeline/removed-volumes.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { eachRegion, regionSizes } from '../../src/timeline/region-sizes.ts'
import type { DeltaSpan, Hole, PackRef, RegionVersion, SegmentSpan, VpgState } from '../../src/timeline/state.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

const { definition } = new AgingModel(randomFrom(1), t.testdir(), 10_000)
const MiB = 1024 * 1024

function pack(name: string, volume: number, regions: readonly number[], rawSizeBytes: number): PackRef {
  return {
    object: { key: name, sizeBytes: 1 },
    volume,
    startBytes: (regions[0] ?? 0) * regionSizeBytes,
    endBytes: ((regions.at(-1) ?? 0) + 1) * regionSizeBytes,
    indexOffsetBytes: 0,
    extentCount: 1,
    rawSizeBytes,
    regionRawSizeBytes: regionSizes(regions.map(region => [region, rawSizeBytes / regions.length])),
  }
}

function emptyState(): VpgState {
  return {
    definition,
    epoch: 1,
    commitNumber: 1,
    deltas: [],
    segments: [],
    regions: [],
    offloaded: [],
    historyEdge: 0 as Ordinal,
    tags: [],
    pins: [],
    recoveries: [],
    holes: [],
    garbage: [],
  }
}

/** What an image at C reads, written down from the rule itself: objects, one by one. */
function objectsOfImage(state: VpgState, at: number, regionCount: number): Set<string> {
  const read = new Set<string>()
  for (let region = 0; region < regionCount; region++) {
    const versions = state.regions.filter(version => version.region === region && version.asOfOrdinal <= at)
    const newest = versions.sort((a, b) => b.asOfOrdinal - a.asOfOrdinal)[0]
    if (newest?.pack !== undefined) read.add(newest.pack.object.key)
    for (const delta of state.deltas) {
      if (!(delta.fromOrdinal < at && delta.toOrdinal > (newest?.asOfOrdinal ?? 0))) continue
      for (const each of delta.packs) {
        if ([...eachRegion(each.regionRawSizeBytes)].some(([touched]) => touched === region)) read.add(each.object.key)
      }
    }
  }
  return read
}

t.test('nothing that an image of a retained checkpoint, or of a later one, reads ever leaves', async t => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = randomFrom(seed)
    const below = (end: number): number => Math.floor(random() * end)
    const regionCount = 6
    let [state, gone] = [emptyState(), 0]
    let ordinals: number[] = []
    for (let step = 0; step < 25; step++) {
      const fromOrdinal = state.deltas.at(-1)?.toOrdinal ?? 0
      const ends = Array.from({ length: 1 + below(4) }, (_, index) => fromOrdinal + 1 + index)
      const toOrdinal = ends.at(-1) as Ordinal
      const packs = Array.from({ length: 1 + below(3) }, (_, index) => {
        const regions = Array.from({ length: regionCount }, (__, region) => region).filter(() => random() < 0.5)
        return pack(`delta${step}.${index}`, 1, regions.length === 0 ? [0] : regions, 100)
      })
      const checkpoints = { key: `page${step}`, sizeBytes: 1 }
      const delta = { kind: 'delta' as const, fromOrdinal: fromOrdinal as Ordinal, toOrdinal, packs, checkpoints }
      const versions: RegionVersion[] = Array.from({ length: below(regionCount) }, (_, region) => ({
        volume: 1,
        region,
        asOfOrdinal: toOrdinal,
        pack: random() < 0.2 ? undefined : pack(`base${step}.${region}`, 1, [region], 100),
      }))
      ordinals = [...ordinals, ...ends]
      const deltas: DeltaSpan[] = [...state.deltas, { ...delta, checkpointCount: ends.length, rawSizeBytes: 1 }]
      state = { ...state, deltas, regions: [...state.regions, ...versions] }
      if (random() < 0.3) {
        const ordinal = (ordinals[below(ordinals.length)] ?? 1) as Ordinal
        if (retention(state)(ordinal))
          state = { ...state, tags: [...state.tags, { ordinal, name: `${step}`, taggedAtMicros: 1 }] }
      }
      if (random() < 0.1) state = { ...state, tags: state.tags.slice(1) }
      const edge = Math.max(state.historyEdge, (ordinals.at(-1) ?? 0) - below(8))
      state = { ...state, historyEdge: edge as Ordinal }
      ordinals = ordinals.filter(retention(state))

      const trimmed = unread(state, ordinals, [])
      const after = { ...state, ...trimmed }
      for (const at of [...ordinals, Infinity]) {
        const before = objectsOfImage(state, at, regionCount)
        const missing = [...before].filter(key => trimmed.leftKeys.includes(key))
        if (missing.length > 0) t.fail(`seed ${seed}, step ${step}: an image at ${at} reads ${missing.join()}`)
        const now = objectsOfImage(after, at, regionCount)
        if (now.size !== before.size || [...before].some(key => !now.has(key)))
          t.fail(`seed ${seed}: an image at ${at} changed`)
        const page = state.deltas.find(one => one.fromOrdinal < at && at <= one.toOrdinal)
        if (page !== undefined && !after.deltas.includes(page)) {
          if (!after.deltas.some(one => one.checkpoints.key === page.checkpoints.key)) t.fail(`no page names ${at}`)
        }
      }
      const readers = [...ordinals, Infinity].map(at => objectsOfImage(state, at, regionCount))
      const idle = after.regions.filter(
        ({ pack: each }) => each !== undefined && !readers.some(one => one.has(each.object.key)),
      )
      if (idle.length > 0) t.fail(`seed ${seed}, step ${step}: region versions stay that nobody reads`)
      const broken = after.deltas.slice(1).some((one, index) => one.fromOrdinal !== after.deltas[index]?.toOrdinal)
      if (broken) t.fail(`seed ${seed}, step ${step}: a delta does not start where the one before it ends`)
      gone += trimmed.leftKeys.length
      state = after
    }
    if (seed <= 3) t.ok(gone > 10, `seed ${seed}: ${gone} objects left`)
  }
})

const points = (...millis: number[]) =>
  millis.map((historyMillis, index) => ({ ordinal: (index + 1) as Ordinal, historyMillis }))

t.test('history is covered from its start, and counted from the newest checkpoint that is not withdrawn', async t => {
  t.equal(historyEdge([], 1000, []), undefined)
  t.equal(historyEdge(points(0, 500, 1000), 5000, []), 1, 'younger than the history: all of it')
  t.equal(historyEdge(points(0, 500, 1000, 1500), 1000, []), 2, 'exactly at the start')
  t.equal(historyEdge(points(0, 400, 1000, 1500), 1000, []), 2, 'the newest before the start covers it')
  const hole: Hole = {
    stream: 1,
    generation: 1,
    firstSequence: 1,
    lastSequence: 1,
    fromOrdinal: 3 as Ordinal,
    reason: '',
    ranges: [],
  }
  t.equal(historyEdge(points(0, 500, 90_000, 99_000), 1000, [hole]), 1, 'withdrawn ones push nothing out')
})

function segment(commitNumber: number, firstSequence: number, lastSequence: number): SegmentSpan {
  return {
    kind: 'segment',
    commitNumber,
    object: { key: `s${commitNumber}`, sizeBytes: 1 },
    footerOffsetBytes: 0,
    footerSizeBytes: 0,
    ranges: [{ stream: 1, generation: 1, firstSequence, lastSequence }],
    writeCount: 1,
    rawSizeBytes: 100,
    firstOrdinal: 0 as Ordinal,
    lastOrdinal: 0 as Ordinal,
  }
}

function checkpointAt(ordinal: number, sequence: number): Checkpoint {
  const vector = [{ stream: 1, generation: 1, sequence: sequence as Sequence }]
  return { ordinal: ordinal as Ordinal, timestampMicros: 1, historyMillis: 1, vector, volumes: [] }
}

t.test(
  'a fold is due by bytes, ends at the newest whole checkpoint, and leaves a segment that straddles it',
  async t => {
    const segments = [segment(2, 1, 100), segment(3, 101, 200), segment(4, 201, 300)]
    const offloaded = [{ stream: 1, generation: 1, sequence: 300 as Sequence }]
    const state = { ...emptyState(), segments, offloaded }
    const checkpoints = [checkpointAt(1, 50), checkpointAt(2, 250), checkpointAt(3, 301)]
    t.equal(planFold(state, { fromVector: [], checkpoints }, { foldSizeBytesMin: 300 }), undefined, 'not yet')
    const plan = planFold(state, { fromVector: [], checkpoints }, { foldSizeBytesMin: 299 })
    t.match(plan, { fromOrdinal: 0, toOrdinal: 2 }, 'checkpoint 3 is not wholly in segments')
    t.same(
      plan?.checkpoints.map(one => one.ordinal),
      [1, 2],
    )
    t.equal(plan?.segments.length, 3)
    const folded = unread(state, [1, 2, 3], plan?.toVector ?? [])
    t.same(folded.leftKeys, ['s2', 's3'], 'the last one has records after the cut')
    t.equal(waitingBytes(folded.segments, plan?.toVector ?? []), 0, 'and was counted by this fold')
  },
)

t.test('regions are rewritten until deltas are within their share, the fullest first', async t => {
  const base = (region: number): RegionVersion => ({
    volume: 1,
    region,
    asOfOrdinal: 1 as Ordinal,
    pack: pack(`b${region}`, 1, [region], 100 * MiB),
  })
  const regions = [0, 1, 2, 3].map(base)
  const packs = [90, 60, 30, 10].map((size, region) => pack(`d${region}`, 1, [region], size * MiB))
  const delta: DeltaSpan = {
    kind: 'delta',
    fromOrdinal: 1 as Ordinal,
    toOrdinal: 2 as Ordinal,
    packs,
    checkpoints: { key: 'p', sizeBytes: 1 },
    checkpointCount: 1,
    rawSizeBytes: 1,
  }
  const { definition } = new AgingModel(randomFrom(1), t.testdir(), 10_000)
  const state = { regions, deltas: [delta], definition }
  t.same(mirrorBytes(state), { liveBytes: 400 * MiB, deltaBytes: 190 * MiB })
  t.same(planRegionRewrites(state, { deltaShareMax: 0.5, countMax: 9 }), [], '0.475 is within 0.5')
  const plan = planRegionRewrites(state, { deltaShareMax: 0.45, countMax: 9 })
  t.same(plan, [{ volume: 1, region: 0, fromOrdinal: 1, asOfOrdinal: 2 }])
  t.equal(planRegionRewrites(state, { deltaShareMax: 0, countMax: 2 }).length, 2, 'as many as are asked for')
  const preseed = { state: 'under-way' as const, file: '/image', modifiedNanos: '1', doneRegionCount: 1 }
  const volumes = definition.volumes.map(volume => (volume.number === 1 ? { ...volume, preseed } : volume))
  const preseeded = { ...state, definition: { ...definition, volumes } }
  t.same(planRegionRewrites(preseeded, { deltaShareMax: 0, countMax: 9 }), [], 'an image may come below yet')
  const removedVolumes = [
    { ...definition.volumes[0]!, removedAfterOrdinal: 1 as Ordinal, goneFromOrdinal: 2 as Ordinal },
  ]
  const removed = { ...state, definition: { ...definition, removedVolumes } }
  t.same(planRegionRewrites(removed, { deltaShareMax: 0, countMax: 9 }), [], 'nobody would read the version')
  const rewritten = { ...state, regions: [...regions, { ...base(0), asOfOrdinal: 2 as Ordinal }] }
  t.equal(regionLoads(rewritten).find(load => load.region === 0)?.deltaBytes, 0, 'nothing is above the new version')
})

t.test(
  'what is held of a removed volume leaves with the last checkpoint that has it, and nothing of the others',
  async t => {
    const delta = (to: number, packs: readonly PackRef[]): DeltaSpan => ({
      ...{ kind: 'delta', fromOrdinal: (to - 1) as Ordinal, toOrdinal: to as Ordinal, packs },
      ...{ checkpoints: { key: `page${to}`, sizeBytes: 1 }, checkpointCount: 1, rawSizeBytes: 1 },
    })
    const base = (volume: number, asOf: number): RegionVersion => {
      return { volume, region: 0, asOfOrdinal: asOf as Ordinal, pack: pack(`base${volume}.${asOf}`, volume, [0], 100) }
    }
    const both = (to: number): DeltaSpan =>
      delta(to, [pack(`delta1.${to}`, 1, [0], 10), pack(`delta2.${to}`, 2, [0], 10)])
    const state: VpgState = {
      ...emptyState(),
      deltas: [both(1), both(2), both(3), delta(4, [pack('delta1.4', 1, [0], 10)])],
      regions: [base(1, 1), base(2, 1)],
    }
    const [kept, removed] = [definition.volumes.slice(0, 1), definition.volumes.slice(1)]
    const stateAt = (edge: number, goneFromOrdinal: number | undefined): VpgState => {
      const gone = removed.map(volume => (goneFromOrdinal === undefined ? volume : { ...volume, goneFromOrdinal }))
      const changed = { ...definition, volumes: kept, removedVolumes: gone as VpgState['definition']['removedVolumes'] }
      return { ...state, historyEdge: edge as Ordinal, definition: changed }
    }
    const left = (edge: number, gone: number | undefined): string[] => {
      const ordinals = [1, 2, 3, 4, 5].filter(ordinal => ordinal >= edge)
      return unread(stateAt(edge, gone), ordinals, []).leftKeys.filter(key => /^(base|delta)2/.test(key))
    }
    // The first delta lies below the base in any case.
    t.same(left(4, undefined), ['delta2.1'], 'nobody knows yet that no checkpoint will have it again')
    t.same(left(3, 4), ['delta2.1'], 'the last one that has it reads base and deltas')
    t.same(left(4, 4).sort(), ['base2.1', 'delta2.1', 'delta2.2', 'delta2.3'])
    const after = unread(stateAt(4, 4), [4, 5], [])
    t.same(
      after.regions.map(({ volume }) => volume),
      [1],
    )
  },
)

t.test('a removed volume is gone with the first checkpoint after the removal that does not name it', async t => {
  const [first, second] = definition.volumes
  const named = (ordinal: number, ...numbers: readonly number[]): Checkpoint => ({
    ...{ ordinal: ordinal as Ordinal, timestampMicros: 1, historyMillis: 1, vector: [] },
    volumes: numbers.map(number => ({ number, sizeBytes: 512, included: true })),
  })
  const noted = withRemovalNoted({ ...definition, volumes: [first!], removedVolumes: [second!] }, 10 as Ordinal)
  const ends = (checkpoint: Checkpoint | undefined) =>
    withVolumesGone(noted, checkpoint).removedVolumes[0]?.goneFromOrdinal
  t.equal(ends(undefined), undefined)
  t.equal(ends(named(10, 1)), undefined, 'of before: it may not have known the volume yet')
  t.equal(ends(named(11, 1, 2)), undefined, 'a marker that waited')
  t.equal(ends(named(12, 1)), 12)
  t.equal(withVolumesGone(noted, named(11, 1, 2)), noted, 'nothing to write down')
  const gone = withVolumesGone(noted, named(12, 1))
  t.equal(withVolumesGone(gone, named(13, 1)), gone, 'once')
  t.strictSame(
    [11, 12, 13].map(at => isGoneAt(gone, second!.number, at as Ordinal)),
    [false, true, true],
  )
  t.notOk(isGoneAt(gone, first!.number, 13 as Ordinal))
})
