import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import { sequence } from '../../src/base/ids.ts'
import { takeoverToldMillis } from '../../src/base/limits.ts'
import { commitKey, loadVpg, VpgCommits, type VpgContents } from '../../src/manifest/manifest.ts'
import type { ListedObject, ObjectStore } from '../../src/store/object-store.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore, SteppedClock } from '../support/aging-surroundings.ts'
import { MemoryStore } from '../support/segment-store.ts'
import { randomFrom } from '../support/segment-records.ts'

// A takeover is one commit: before it the VPG is the former owner's, after it the new one's, whatever fails on the way; a store that
// cannot be trusted is named, and nothing is written to it.

const never = new AbortController().signal
const { definition } = new AgingModel(randomFrom(1), t.testdir(), 10_000)
const vpg = definition.id
const ends = [{ stream: 1, generation: 3, sequence: sequence(7) }]

function identity(store: ObjectStore, applianceId: string) {
  return { store, clock: new SteppedClock(), applianceId }
}

async function owned(memory: MemoryStore): Promise<VpgCommits> {
  const commits = await VpgCommits.create(identity(memory, 'one'), definition, never)
  const { contents } = commits
  const pins = [{ id: 'pin', ordinal: contents.state.historyEdge, owner: 'export', kind: 'image' as const }]
  await commit(commits, { ...contents, state: { ...contents.state, offloaded: ends, pins } })
  return commits
}

async function commit(commits: VpgCommits, contents: VpgContents): Promise<void> {
  await commits.commitManifest(commits.prepareManifest(contents, []), never)
}

t.test(
  'the new owner has an epoch of its own, knows where the former one ends, and the former owner is fenced',
  async t => {
    const memory = new MemoryStore()
    const former = await owned(memory)
    const { commits, takeover } = await VpgCommits.adopt(identity(memory, 'two'), vpg, never)
    t.match(takeover, { epoch: 2, from: 'one', ends })
    const { contents } = await loadVpg(memory, vpg, 'two', never)
    t.equal(contents.state.epoch, 2)
    t.strictSame(contents.state.pins, [], 'its readers are gone')
    t.match(contents.takeovers, [{ epoch: 2, from: 'one', ends }])
    await t.rejects(former.checkOwnership(never), { code: 'EPOCH_SUPERSEDED' })
    await t.rejects(commit(former, former.contents), { code: 'EPOCH_SUPERSEDED' })
    await t.rejects(VpgCommits.load(identity(memory, 'one'), vpg, never), {
      code: 'IDENTITY_REFUSED',
      message: /--adopt/,
    })
    await commit(commits, commits.contents)
    const again = await VpgCommits.adopt(identity(memory, 'two'), vpg, never)
    t.equal(again.takeover, undefined, 'what is ours already is not taken over')
    t.equal(again.commits.contents.state.epoch, 2)
    const back = await VpgCommits.adopt(identity(memory, 'one'), vpg, never)
    t.match(back.takeover, { epoch: 3, from: 'two' })
  },
)

t.test('a takeover stays announced to who lost the VPG, until a later one tells the same, or for months', async t => {
  const memory = new MemoryStore()
  await owned(memory)
  const clock = new SteppedClock()
  const takenBy = async (applianceId: string): Promise<string[]> => {
    await VpgCommits.adopt({ store: memory, clock, applianceId }, vpg, never)
    return [...memory.objects.keys()].filter(key => key.startsWith('taken/')).sort()
  }
  t.strictSame(await takenBy('two'), [`taken/one/${vpg}-2`])
  t.strictSame(await takenBy('one'), [`taken/one/${vpg}-2`, `taken/two/${vpg}-3`])
  t.strictSame(await takenBy('two'), [`taken/one/${vpg}-4`, `taken/two/${vpg}-3`])
  clock.advance(takeoverToldMillis + 1)
  t.strictSame(await takenBy('three'), [`taken/two/${vpg}-5`])
})

t.test('a former owner that is alive and a moment faster keeps what it committed, and loses the VPG', async t => {
  const memory = new MemoryStore()
  const former = await owned(memory)
  let raced = 0
  const racing: ObjectStore = Object.assign(Object.create(memory) as MemoryStore, {
    create: async (key: string, body: Uint8Array): Promise<void> => {
      if (key.includes('/commit/') && raced++ < 3) {
        const { contents } = former
        const tag = { ordinal: contents.state.historyEdge, name: `late-${raced}`, taggedAtMicros: 1 }
        await commit(former, { ...contents, state: { ...contents.state, tags: [...contents.state.tags, tag] } })
      }
      await memory.create(key, body)
    },
  })
  const { commits } = await VpgCommits.adopt(identity(racing, 'two'), vpg, never)
  t.strictSame(
    commits.contents.state.tags.map(({ name }) => name),
    ['late-1', 'late-2', 'late-3'],
  )
  t.equal(commits.contents.state.epoch, 2, 'one epoch, however many attempts')
  await t.rejects(commit(former, former.contents), { code: 'EPOCH_SUPERSEDED' })
})

t.test('whatever call of a takeover fails, with or without effect, the VPG is taken over once', async t => {
  for (const fate of ['fails-before', 'fails-after'] as const) {
    for (let failing = 0; failing < 12; failing++) {
      const memory = new MemoryStore()
      const former = await owned(memory)
      let armed = true
      const store = new FatefulStore(memory, operation => (armed && operation === failing ? fate : 'works'))
      const adopt = () => VpgCommits.adopt(identity(store, 'two'), vpg, never)
      const taken = await adopt().catch(async (error: unknown) => {
        t.ok(failedWith(error, 'STORE_UNAVAILABLE'))
        return await adopt()
      })
      armed = false
      t.equal(taken.commits.contents.state.epoch, 2, `${fate} at ${failing}`)
      await commit(taken.commits, taken.commits.contents)
      await t.rejects(commit(former, former.contents), { code: 'EPOCH_SUPERSEDED' })
    }
  }
})

t.test('a listing that hides a commit is named, and so is every object that is not what it should be', async t => {
  const memory = new MemoryStore()
  const former = await owned(memory)
  await commit(former, former.contents)
  const newest = commitKey(vpg, former.contents.state.commitNumber)
  const lying: ObjectStore = Object.assign(Object.create(memory) as MemoryStore, {
    list: async function* (prefix: string, after: string | undefined): AsyncIterable<ListedObject> {
      for await (const object of memory.list(prefix, after)) if (object.key !== newest) yield object
    },
  })
  const adopt = (store: ObjectStore) => VpgCommits.adopt(identity(store, 'two'), vpg, never)
  await t.rejects(adopt(lying), { code: 'OBJECT_CORRUPT', message: /its listing lies/ })

  const whole = memory.objects.get(newest) ?? new Uint8Array(0)
  const harms: readonly (readonly [string, Uint8Array])[] = [
    ['damaged', whole.map((byte, at) => (at === 200 ? byte ^ 1 : byte))],
    ['truncated', whole.subarray(0, whole.length - 9)],
    ['another VPG’s', whole.map((byte, at) => (at === 9 ? byte ^ 1 : byte))],
  ]
  for (const [what, body] of harms) {
    memory.objects.set(newest, Uint8Array.from(body))
    const before = [...memory.objects.keys()]
    await t.rejects(adopt(memory), { code: 'OBJECT_CORRUPT' }, what)
    t.strictSame([...memory.objects.keys()], before, `${what}: nothing was written`)
  }
  memory.objects.delete(newest)
  memory.objects.set(commitKey(vpg, former.contents.state.commitNumber + 1), whole)
  await t.rejects(adopt(memory), { code: 'OBJECT_CORRUPT' }, 'under another number')
})
