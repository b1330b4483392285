import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import { commitKey, createOnce, loadVpg, VpgCommits, type VpgContents } from '../../src/manifest/manifest.ts'
import type { Ordinal } from '../../src/base/ids.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { regionSizes } from '../../src/timeline/region-sizes.ts'
import { decodeCheckpoints, encodeCheckpoints } from '../../src/timeline/checkpoint-page.ts'
import { readManifest } from '../../src/manifest/read.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore, SteppedClock, type Fate } from '../support/aging-surroundings.ts'
import { MemoryStore } from '../support/segment-store.ts'
import { randomFrom } from '../support/segment-records.ts'

const never = new AbortController().signal
const { definition } = new AgingModel(randomFrom(1), t.testdir(), 10_000)

function identity(store: FatefulStore, applianceId = 'one') {
  return { store, clock: new SteppedClock(), applianceId }
}

async function created(store: FatefulStore): Promise<VpgCommits> {
  const commits = await VpgCommits.create(identity(store), definition, never)
  await commits.commitManifest(commits.prepareManifest(commits.contents, []), never)
  return commits
}

function tagged(contents: VpgContents, name: string): VpgContents {
  const tag = { ordinal: 7 as Ordinal, name, taggedAtMicros: 1 }
  return { ...contents, state: { ...contents.state, tags: [...contents.state.tags, tag] } }
}

/** Attempts until the store answers. */
async function persist<T>(attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (!failedWith(error, 'STORE_UNAVAILABLE')) throw error
    }
  }
}

t.test('whatever call of a commit fails, with or without effect, it is committed once', async t => {
  for (const fate of ['fails-before', 'fails-after'] as const) {
    for (let failing = 0; failing < 40; failing++) {
      const memory = new MemoryStore()
      const commits = await created(new FatefulStore(memory))
      const calm = commits.contents.state.commitNumber
      const store = new FatefulStore(memory, operation => (operation === failing ? fate : 'works'))
      const { commits: writer } = await persist(() => VpgCommits.load(identity(store), definition.id, never))
      for (let index = 0; index < 3; index++) {
        const pending = writer.prepareManifest(tagged(writer.contents, `t${index}`.padEnd(5000, 'x')), [])
        await persist(() => writer.commitManifest(pending, never))
      }
      const { contents } = await loadVpg(memory, definition.id, 'one', never)
      t.same(contents.state, writer.contents.state, `${fate} at operation ${failing}: what was committed is read back`)
      t.equal(contents.state.commitNumber, calm + 3, `${fate} at operation ${failing}: each commit took one number`)
    }
  }
})

t.test('a second writer fences the first, also where its numbers have been removed again', async t => {
  const memory = new MemoryStore()
  const store = new FatefulStore(memory)
  const first = await created(store)
  const { commits: second } = await VpgCommits.load(identity(store), definition.id, never)
  for (const name of ['a', 'b', 'c']) {
    await second.commitManifest(second.prepareManifest(tagged(second.contents, name), []), never)
  }
  const stolen = first.contents.state.commitNumber + 1
  const taken = first.prepareManifest(tagged(first.contents, 'late'), [])
  await t.rejects(first.checkOwnership(never), { code: 'EPOCH_SUPERSEDED' }, 'the check alone finds it')
  await t.rejects(first.commitManifest(taken, never), { code: 'EPOCH_SUPERSEDED' }, 'the number is taken')

  const calm = new MemoryStore()
  const old = await created(new FatefulStore(calm))
  for (const [key, body] of memory.objects) calm.objects.set(key, body)
  calm.objects.delete(commitKey(definition.id, stolen))
  const late = old.prepareManifest(tagged(old.contents, 'late'), [])
  await t.rejects(
    old.commitManifest(late, never),
    { code: 'EPOCH_SUPERSEDED' },
    'the number was free, a higher one is not',
  )
  const { contents } = await loadVpg(calm, definition.id, 'one', never)
  t.strictSame(
    contents.state.tags.map(tag => tag.name),
    ['a', 'b', 'c'],
    'readers take the highest number',
  )
})

t.test(
  'what a killed process had sent off, and the store took late, fences until a start, which goes on behind it',
  async t => {
    const memory = new MemoryStore()
    const store = new FatefulStore(memory)
    const killed = await created(store)
    const { commits: running } = await VpgCommits.load(identity(store), definition.id, never)
    await killed.commitManifest(killed.prepareManifest(tagged(killed.contents, 'late'), []), never)
    const before = [...memory.objects.keys()]
    const own = running.prepareManifest(tagged(running.contents, 'own'), [])
    await t.rejects(running.commitManifest(own, never), { code: 'EPOCH_SUPERSEDED', message: /started again/ })
    await t.rejects(running.checkOwnership(never), { code: 'EPOCH_SUPERSEDED' }, 'for good')
    for (const key of before) t.ok(memory.objects.has(key), `${key} is left alone`)
    const { commits: started } = await VpgCommits.load(identity(store), definition.id, never)
    await started.commitManifest(started.prepareManifest(tagged(started.contents, 'own'), []), never)
    const { contents } = await loadVpg(memory, definition.id, 'one', never)
    t.strictSame(
      contents.state.tags.map(tag => tag.name),
      ['late', 'own'],
    )
  },
)

t.test('another appliance is refused in words', async t => {
  const store = new FatefulStore(new MemoryStore())
  await created(store)
  await t.rejects(loadVpg(store, definition.id, 'two', never), { code: 'IDENTITY_REFUSED', message: /belongs to/ })
})

t.test('a manifest of many thousand parts keeps its root small, and writes again only what changed', async t => {
  const memory = new MemoryStore()
  const store = new FatefulStore(memory)
  const commits = await created(store)
  const regions = Array.from({ length: 60_000 }, (_, index) => ({
    volume: 1 + Math.floor(index / 30_000),
    region: index % 30_000,
    asOfOrdinal: 5 as Ordinal,
    pack: undefined,
  }))
  const tags = Array.from({ length: 2000 }, (_, index) => ({
    ordinal: index as Ordinal,
    name: `n${index}`,
    taggedAtMicros: 1,
  }))
  const deltas = Array.from({ length: 600 }, (_, index) => ({
    kind: 'delta' as const,
    fromOrdinal: index as Ordinal,
    toOrdinal: (index + 1) as Ordinal,
    packs: Array.from({ length: 40 }, (_, pack) => ({
      object: { key: `${definition.id}/delta/1-${index}-${pack}`, sizeBytes: 1 },
      volume: 1,
      startBytes: pack,
      endBytes: pack + 1,
      indexOffsetBytes: 1,
      extentCount: 1,
      rawSizeBytes: 1,
      regionRawSizeBytes: regionSizes([[pack, 1]]),
    })),
    checkpoints: { key: 'none', sizeBytes: 1 },
    checkpointCount: 0,
    rawSizeBytes: 1,
  }))
  const large = { ...commits.contents, state: { ...commits.contents.state, regions, tags, deltas } }
  await commits.commitManifest(commits.prepareManifest(large, []), never)
  const root = memory.objects.get(commitKey(definition.id, commits.contents.state.commitNumber))
  t.ok((root?.length ?? Infinity) <= 64 * 1024, `the root has ${root?.length} bytes`)

  const before = store.created.length
  const changed = [...regions.slice(0, -1), { volume: 2, region: 29_999, asOfOrdinal: 6 as Ordinal, pack: undefined }]
  const next = { ...commits.contents, state: { ...commits.contents.state, regions: changed } }
  await commits.commitManifest(commits.prepareManifest(next, []), never)
  t.ok(store.created.length - before <= 5, `${store.created.length - before} objects for one changed region`)
  const pageSet = [...memory.objects.keys()].filter(key => key.includes('/page/'))
  const referred = new Set([...commits.manifestKeys(), ...commits.contents.state.garbage.map(({ key }) => key)])
  t.strictSame(
    pageSet.filter(key => !referred.has(key)),
    [],
    'every page is referred to or garbage',
  )
  const read = await readManifest(memory, definition.id, never)
  t.equal(read.contents.state.regions.length, regions.length)
  t.equal(read.contents.state.deltas.length, deltas.length)
  t.same(read.contents.state.garbage, commits.contents.state.garbage)
})

t.test('a flipped byte anywhere in a manifest is found and named, never served', async t => {
  const memory = new MemoryStore()
  const commits = await created(new FatefulStore(memory))
  const large = tagged(commits.contents, 'x'.repeat(9000))
  await commits.commitManifest(commits.prepareManifest(large, []), never)
  for (const key of commits.manifestKeys()) {
    const whole = memory.objects.get(key) ?? new Uint8Array(0)
    for (let at = 0; at < whole.length; at += at < 200 ? 1 : 97) {
      const bad = Uint8Array.from(whole)
      bad[at] = (bad[at] ?? 0) ^ 0x40
      memory.objects.set(key, bad)
      const found: unknown = await loadVpg(memory, definition.id, 'one', never).catch((error: unknown) => error)
      // A root whose magic is gone is taken for a segment, and is then damaged as one.
      const named = failedWith(found, 'OBJECT_CORRUPT') && found.message.includes(key)
      if (!named) t.fail(`${key}, byte ${at}: ${String(found)}`)
    }
    memory.objects.set(key, whole)
  }
  t.ok(await loadVpg(memory, definition.id, 'one', never), 'whole again')
})

t.test('a month of checkpoints every five seconds fits in a few megabytes, and comes back the same', async t => {
  const volumes = [{ number: 1, sizeBytes: 2 ** 40, included: true }]
  const checkpoints: Checkpoint[] = Array.from({ length: 518_400 }, (_, index) => ({
    ordinal: (2 ** 32 + index * 2) as Ordinal,
    timestampMicros: 1_790_000_000_000_000 + index * 5_000_001,
    historyMillis: index * 5000.25,
    vector: [{ stream: 1, generation: 3, sequence: (index * 997) as Checkpoint['vector'][number]['sequence'] }],
    volumes,
  }))
  const body = encodeCheckpoints(checkpoints)
  t.ok(body.length < 518_400 * 20, `${(body.length / 518_400).toFixed(1)} bytes each`)
  const back = decodeCheckpoints('page', body)
  t.equal(back.length, checkpoints.length)
  for (const at of [0, 1, 77_777, 518_399]) t.same(back[at], checkpoints[at])
  t.throws(() => decodeCheckpoints('page', body.subarray(0, body.length - 1)), { code: 'OBJECT_CORRUPT' })
})

t.test('creating an object that an earlier attempt created is not an error, unless it is somebody else’s', async t => {
  const fates: Fate[] = ['fails-after', 'works', 'works']
  const store = new FatefulStore(new MemoryStore(), operation => fates[operation] ?? 'works')
  const bytes = new Uint8Array(64).fill(7)
  await persist(() => createOnce(store, 'a/b', bytes, '07'.repeat(16), never))
  await t.rejects(createOnce(store, 'a/b', bytes, '08'.repeat(16), never), { code: 'ALREADY_EXISTS' })
})

t.test('a root stays within its bound, whatever is on the edge between it and its pages', async t => {
  let worst = 0
  for (const deltaCount of [0, 60, 120, 140, 160, 180, 200, 220, 300]) {
    for (const garbageCount of [0, 60, 120, 160, 200, 400]) {
      const memory = new MemoryStore()
      const commits = await created(new FatefulStore(memory))
      const { state } = commits.contents
      const key = (index: number): string => `${definition.id}/page/1-${String(index).padStart(36, '0')}`
      const offloaded = Array.from({ length: 64 }, (_, index) => ({
        stream: index + 1,
        generation: 4_000_000_000,
        sequence: (9e15 + index) as (typeof state.offloaded)[number]['sequence'],
      }))
      const deltas = Array.from({ length: deltaCount }, (_, index) => ({
        kind: 'delta' as const,
        fromOrdinal: (2 ** 32 + index) as Ordinal,
        toOrdinal: (2 ** 32 + index + 1) as Ordinal,
        packs: [],
        checkpoints: { key: 'k'.repeat(4096), sizeBytes: 1 },
        checkpointCount: 1,
        rawSizeBytes: 1,
      }))
      const garbage = Array.from({ length: garbageCount }, (_, index) => ({
        key: key(index),
        leftAtMicros: 1.7e15 + index,
      }))
      const contents = { ...commits.contents, segmentsFrom: offloaded, state: { ...state, offloaded, deltas, garbage } }
      const left = Array.from({ length: 30 }, (_, index) => key(5000 + index))
      await commits.commitManifest(commits.prepareManifest(contents, left), never)
      const root = memory.objects.get(commitKey(definition.id, commits.contents.state.commitNumber))
      worst = Math.max(worst, root?.length ?? Infinity)
    }
  }
  t.ok(worst <= 62 * 1024, `${worst} bytes at most`)
})
