import * as path from 'node:path'
import t, { type Test } from 'tap'
import { unpacked } from '../../src/aging/aging.ts'
import { MirrorWorker } from '../../src/aging/mirror-worker.ts'
import type { AgingNotices, PackedVpg } from '../../src/aging/service.ts'
import { decodeCheckpoints } from '../../src/manifest/manifest.ts'
import { readManifest } from '../../src/manifest/read.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore } from '../support/aging-surroundings.ts'
import { randomFrom } from '../support/segment-records.ts'

// A start that has nothing beside the store opens a VPG from its manifest's root. Invariants: it serves the VPG, takes it over and commits without having read
// its history; the history is told whole before anything can leave it; every checkpoint is what it was.

type Opened = ReturnType<typeof unpacked>

/** A VPG with deltas, a checkpoint for each segment; `start` opens it from its root. */
async function site(t: Pick<Test, 'testdir'>, seed: number) {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(seed), directory, 36_000_000)
  const config = { ...model.config, memoDirectory: path.join(directory, 'vpgs') }
  model.contentsSizeBytesMax = 0
  await model.restart(undefined, config)
  await model.worker.createVpg(model.definition)
  // Until the manifest has pages that nobody needs to serve the VPG.
  const hasPages = async (): Promise<boolean> => {
    const { pageSet } = await readManifest(model.memory, model.vpg, new AbortController().signal)
    return [...pageSet.written.keys()].filter(name => /^(deltas|regions)/.test(name)).length >= 4
  }
  for (let count = 0; !(await hasPages()); count++) {
    if (count > 150) throw new Error('the manifest stays small')
    await step(model)
  }
  await model.worker.seal({ vpg: model.vpg })
  const start = async (changed: Partial<typeof config> = {}): Promise<{ keys: readonly string[]; opened: Opened }> => {
    const keys: string[] = []
    const noted = (_: number, key: string) => {
      keys.push(key)
      return 'works' as const
    }
    const vpgs = await model.restart(noted, { ...config, ...changed }, { wholeSizeBytesMax: 0 })
    return { keys: [...keys], opened: only(vpgs) }
  }
  return { model, config, start }
}

async function step(model: AgingModel): Promise<void> {
  model.write(1, 8)
  model.write(2, 2)
  model.checkpoint()
  model.clock.advance(11_000)
  await model.age()
}

function only(vpgs: readonly PackedVpg[]): Opened {
  if (vpgs[0] === undefined || vpgs.length !== 1) throw new Error(`${vpgs.length} VPGs`)
  return unpacked(vpgs[0])
}

function told<K extends keyof AgingNotices>(model: AgingModel, name: K): AgingNotices[K][] {
  return model.notices.filter(notice => notice.name === name).map(({ notice }) => notice as AgingNotices[K])
}

function pagesIn(keys: readonly string[]): number {
  return new Set(keys.filter(key => key.includes('/page/'))).size
}

t.test(
  'a start from the root reads few pages, tells the newest checkpoint, and the history when it is read',
  async t => {
    const { model, start } = await site(t, 1)
    const whole = only(await model.restart())
    const { keys, opened } = await start()
    t.equal(opened.isUnread, true)
    t.ok(pagesIn(keys) <= 3, `${pagesIn(keys)} pages of ${pagesIn([...model.memory.objects.keys()])}`)
    t.strictSame(opened.checkpoints.at(-1), whole.checkpoints.at(-1))
    const { checkpoints: _all, segments: _segments, ...rest } = whole
    t.match(opened, rest, 'all else as a start says that reads all')
    t.equal((await model.worker.status({ vpg: model.vpg })).isUnread, true)
    t.strictSame(told(model, 'historyRead'), [])

    const before = model.notices.length
    await model.worker.readHistory({ vpg: model.vpg })
    await model.worker.readHistory({ vpg: model.vpg })
    const [read, ...more] = told(model, 'historyRead')
    t.strictSame(more, [], 'it is told once')
    t.equal(model.notices.length, before + 1)
    t.strictSame(decodeCheckpoints('', read!.checkpointPage), whole.checkpoints)
    t.strictSame(read!.segments, whole.segments)
    t.match(await model.worker.status({ vpg: model.vpg }), { isUnread: false })
    t.ok((await model.worker.status({ vpg: model.vpg })).deltaCount > 4)
  },
)

t.test('what it commits before it has read the history leaves nothing out', async t => {
  const { model, start } = await site(t, 2)
  await start()
  model.write(1, 4)
  const made = model.checkpoint()
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  await model.worker.seal({ vpg: model.vpg })
  t.strictSame(told(model, 'historyRead'), [], 'a segment needs none of it')
  t.equal((await model.worker.close())[0]?.text, '', 'nor can a start after this go on from here')
  await start()
  for (const each of [...model.checkpoints.slice(-4), made])
    t.equal(await model.difference(await model.open(each)), undefined)
  const [read] = told(model, 'historyRead')
  t.ok(decodeCheckpoints('', read!.checkpointPage).some(({ ordinal }) => ordinal === made.checkpoint.ordinal))
  await step(model)
  t.equal(await model.difference(await model.open(model.checkpoints.at(-1)!)), undefined)
  t.strictSame(told(model, 'damageFound'), [])
})

t.test('a takeover from the root carries every page over, and fences the former owner', async t => {
  const { model, config } = await site(t, 3)
  const whole = only(await model.restart(undefined, config))
  const former = model.worker
  const keys: string[] = []
  const store = new FatefulStore(model.memory, (_, key) => {
    keys.push(key)
    return 'works'
  })
  const notices: string[] = []
  const empty = new AgingModel(randomFrom(4), t.testdir(), 60_000)
  const successor = new MirrorWorker(empty.clock, name => void notices.push(name), {
    openStore: async () => store,
    openLog: () => empty.log.reader(),
    wholeSizeBytesMax: 0,
  })
  const opened = only((await successor.open({ ...empty.config, applianceId: 'appliance-two', adopt: true })).vpgs)
  t.ok(pagesIn(keys) <= 4, `${pagesIn(keys)} pages read or written`)
  t.match(opened, { epoch: 2, isUnread: true, offloaded: whole.offloaded })
  t.strictSame(notices, ['adopted'])
  await successor.follow({ durable: empty.log.mark })
  const kept = model.checkpoints.filter(({ checkpoint }) => checkpoint.ordinal >= whole.historyEdge)
  for (const each of [...kept.slice(0, 3), ...kept.slice(-3)]) {
    const plan = await successor.openImage({ vpg: model.vpg, checkpoint: each.checkpoint, owner: 'test' })
    t.equal(await model.difference(plan), undefined)
    await successor.closeImage({ vpg: model.vpg, pinId: plan.pinId })
  }
  while (await successor.step());
  t.notOk(notices.includes('damageFound'))
  t.same(await successor.status({ vpg: model.vpg }), {
    ...(await successor.status({ vpg: model.vpg })),
    isUnread: false,
  })

  const before = model.memory.objects.size
  await t.rejects(former.tag({ vpg: model.vpg, ordinal: model.checkpoints.at(-1)!.checkpoint.ordinal, name: 'late' }), {
    code: /EPOCH_SUPERSEDED|IDENTITY_REFUSED/,
  })
  t.equal(model.memory.objects.size, before)
})

t.test('whatever call of a takeover from the root fails, it is one takeover, and nothing is lost', async t => {
  const { model } = await site(t, 5)
  const before = new Map(model.memory.objects)
  const newest = model.checkpoints.at(-1)!
  for (const fate of ['fails-before', 'fails-after'] as const)
    for (let failing = 0; failing < 20; failing++) {
      model.memory.objects.clear()
      for (const [key, bytes] of before) model.memory.objects.set(key, bytes)
      const store = new FatefulStore(model.memory, operation => (operation === failing ? fate : 'works'))
      const empty = new AgingModel(randomFrom(6), t.testdir(), 60_000)
      const successor = new MirrorWorker(empty.clock, () => undefined, {
        openStore: async () => store,
        openLog: () => empty.log.reader(),
        wholeSizeBytesMax: 0,
      })
      const opened = only((await successor.open({ ...empty.config, applianceId: 'appliance-two', adopt: true })).vpgs)
      t.equal(opened.epoch, 2, `${fate} at ${failing}`)
      await successor.follow({ durable: empty.log.mark })
      const plan = await successor.openImage({ vpg: model.vpg, checkpoint: newest.checkpoint, owner: 'test' })
      t.equal(await model.difference(plan), undefined)
    }
})

t.test('a page that is damaged is named when the history is read; what comes in is sealed all the same', async t => {
  const { model, start } = await site(t, 7)
  const { keys } = await start()
  const read = new Set(keys)
  for (const [key, bytes] of model.memory.objects)
    if (key.includes('/page/') && !read.has(key))
      model.memory.objects.set(
        key,
        bytes.map((each, at) => (at === 140 ? each ^ 1 : each)),
      )
  await t.rejects(model.worker.readHistory({ vpg: model.vpg }), { code: 'BUSY', message: /\/page\// })
  t.match(told(model, 'damageFound'), [
    {
      sentence:
        /\/page\/.*not merged any further, and none of its checkpoints can be recovered or, but for the newest, listed, until/,
    },
  ])
  model.write(1, 4)
  const made = model.checkpoint()
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  t.match(await model.worker.seal({ vpg: model.vpg }), made.checkpoint.vector)
})

t.test('a history that the store does not give keeps nothing of the VPG from being sealed', async t => {
  const { model, config } = await site(t, 8)
  const store = { isFailing: false }
  const fateOf = (_: number, key: string) =>
    store.isFailing && key.includes('/page/') ? ('fails-before' as const) : ('works' as const)
  await model.restart(fateOf, config, { wholeSizeBytesMax: 0 })
  store.isFailing = true
  const reading = t.rejects(model.worker.readHistory({ vpg: model.vpg }), { code: 'STORE_UNAVAILABLE' })
  model.write(1, 4)
  const made = model.checkpoint()
  model.worker.durable(model.log.mark)
  t.strictSame(await model.worker.seal({ vpg: model.vpg }), made.checkpoint.vector)
  await reading
  t.equal(await model.worker.step(), false, 'who has others to go on with goes on')
  t.match(await model.worker.status({ vpg: model.vpg }), { isUnread: true })
  store.isFailing = false
  await model.worker.readHistory({ vpg: model.vpg })
  t.equal(told(model, 'historyRead').length, 1)
  t.equal(told(model, 'storeFailing').length, told(model, 'storeRecovered').length)
  t.equal(await model.difference(await model.open(made)), undefined)
})
