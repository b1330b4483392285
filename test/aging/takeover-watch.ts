import t, { type Test } from 'tap'
import { MirrorWorker } from '../../src/aging/mirror-worker.ts'
import { failedWith } from '../../src/base/failure.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore } from '../support/aging-surroundings.ts'
import { randomFrom } from '../support/segment-records.ts'

// Who writes nothing hears of a takeover all the same, within ten seconds, and does not list every VPG's commits for that. Invariants: what is announced fences
// nobody; what was taken is found by who can look; who cannot asks for each VPG.

async function owner(t: Pick<Test, 'testdir'>, seed: number) {
  const model = new AgingModel(randomFrom(seed), t.testdir(), 60_000)
  const listed: string[] = []
  const store = { isDown: false }
  await model.restart((_, key) => {
    listed.push(key)
    return store.isDown && key.startsWith('taken/') ? 'fails-before' : 'works'
  })
  await model.worker.createVpg(model.definition)
  await model.age()
  /** What a process of ten seconds asks the store for. */
  const tenSeconds = async ({ looks }: { readonly looks: boolean }): Promise<readonly string[]> => {
    listed.length = 0
    model.clock.advance(10_000)
    if (looks) await model.worker.takeoversStep()
    await model.worker.step().catch((error: unknown) => {
      if (!failedWith(error, 'EPOCH_SUPERSEDED')) throw error
    })
    return [...listed]
  }
  const isFenced = (): boolean => model.notices.some(({ name }) => name === 'fenced')
  return { model, store, tenSeconds, isFenced }
}

/** Another appliance takes the VPG. */
async function adopt(t: Pick<Test, 'testdir'>, { memory }: AgingModel): Promise<void> {
  const own = new AgingModel(randomFrom(9), t.testdir(), 60_000)
  const worker = new MirrorWorker(own.clock, () => undefined, {
    openStore: async () => new FatefulStore(memory),
    openLog: () => own.log.reader(),
  })
  await worker.open({ ...own.config, applianceId: 'appliance-two', adopt: true })
}

t.test('an idle VPG costs no listing of its own, and a takeover is found by the one for all', async t => {
  const { model, tenSeconds, isFenced } = await owner(t, 1)
  await tenSeconds({ looks: true })
  for (let count = 0; count < 30; count++)
    t.strictSame(await tenSeconds({ looks: true }), ['taken/appliance-one/'], 'five minutes long')
  await adopt(t, model)
  t.ok([...model.memory.objects.keys()].includes(`taken/appliance-one/${model.vpg}-2`))
  await tenSeconds({ looks: true })
  t.ok(isFenced())
})

t.test('a takeover that nobody announced is found within the hour', async t => {
  const { model, tenSeconds, isFenced } = await owner(t, 2)
  await tenSeconds({ looks: true })
  await adopt(t, model)
  model.memory.objects.delete(`taken/appliance-one/${model.vpg}-2`)
  await tenSeconds({ looks: true })
  t.notOk(isFenced())
  for (let count = 0; count < 360; count++) await tenSeconds({ looks: true })
  t.ok(isFenced())
})

t.test('one that was announced and never came fences nobody, and is asked after from then on', async t => {
  const { model, tenSeconds, isFenced } = await owner(t, 3)
  await tenSeconds({ looks: true })
  const marker = `taken/appliance-one/${model.vpg}-2`
  model.memory.objects.set(marker, Buffer.from('{}'))
  for (let count = 0; count < 3; count++)
    t.strictSame(await tenSeconds({ looks: true }), ['taken/appliance-one/', `${model.vpg}/commit/`])
  t.notOk(isFenced())
  model.write(1, 4)
  const { checkpoint } = model.checkpoint()
  model.worker.durable(model.log.mark)
  await model.worker.readTail()
  t.strictSame(await model.worker.seal({ vpg: model.vpg }), checkpoint.vector, 'it goes on')
  await adopt(t, model)
  await tenSeconds({ looks: true })
  t.ok(isFenced(), 'and at last it comes')
})

t.test('who cannot look asks for each VPG', async t => {
  const { model, store, tenSeconds, isFenced } = await owner(t, 4)
  await tenSeconds({ looks: true })
  store.isDown = true
  t.strictSame(await tenSeconds({ looks: true }), ['taken/appliance-one/'])
  await tenSeconds({ looks: true })
  t.strictSame(await tenSeconds({ looks: true }), ['taken/appliance-one/', `${model.vpg}/commit/`])
  await adopt(t, model)
  await tenSeconds({ looks: true })
  t.ok(isFenced())
})
