import t, { type Test } from 'tap'
import { vpgId, type VpgId } from '../../src/base/ids.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import type { Fate } from '../support/aging-surroundings.ts'
import { randomFrom } from '../support/segment-records.ts'

// The store goes on failing for some VPGs, whatever step of theirs that meets, and answers another. Invariants: that one is merged; they go on, each from
// where it was, when the store answers them, and every checkpoint of theirs shows the writes before it.

const [first, second, healthy] = ['11', '22', '33'].map(byte => vpgId(byte.repeat(16))) as [VpgId, VpgId, VpgId]

/** Of a key of the first two VPGs: whether the object is there, and whether a pack of a merge is. */
type IsHit = (key: string, at: { readonly exists: boolean; readonly hasPack: boolean }) => boolean

/** Three VPGs of one process with its loops; the store fails for the first two where it is hit, once `fate` is said. */
async function site(t: Pick<Test, 'testdir'>, isHit: IsHit, contentsSizeBytesMax: number) {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(11), directory, 60_000, first)
  const { objects } = model.memory
  model.contentsSizeBytesMax = contentsSizeBytesMax
  const store: { fate: Fate } = { fate: 'works' }
  await model.restart((_, key) => {
    const vpg = [first, second].find(each => key.startsWith(each))
    if (vpg === undefined || store.fate === 'works') return 'works'
    const hasPack = model.store.created.some(each => each.startsWith(`${vpg}/delta/`))
    return isHit(key, { exists: objects.has(key), hasPack }) ? store.fate : 'works'
  })
  const models = [
    model,
    new AgingModel(randomFrom(12), directory, 60_000, second, model),
    new AgingModel(randomFrom(13), directory, 60_000, healthy, model),
  ] as const
  for (const { definition, vpg } of models) await model.worker.createVpg({ ...definition, name: vpg.slice(0, 2) })
  return { model, models, store }
}

function count(model: AgingModel, name: keyof AgingNotices, vpg: VpgId): number {
  return model.notices.filter(each => each.name === name && (each.notice as { vpg: VpgId }).vpg === vpg).length
}

/** Loops run, and with them the clock. */
async function until(isSo: () => boolean): Promise<boolean> {
  for (let turn = 0; turn < 10_000 && !isSo(); turn++) await new Promise(resolve => setImmediate(resolve))
  return isSo()
}

/** Enough for a fold. */
function fill(model: AgingModel, { worker, log }: AgingModel): void {
  for (let round = 0; round < 30; round++) {
    model.write(1, 4)
    model.checkpoint()
  }
  worker.durable(log.mark)
}

const hits: Readonly<Record<string, IsHit>> = {
  'segment that is read': (key, { exists }) => exists && key.includes('/commit/'),
  'pack that is made': (key, { exists }) => !exists && key.includes('/delta/'),
  'page that is made': (key, { exists }) => !exists && key.includes('/page/'),
  'commit of a merge': (key, { exists, hasPack }) => !exists && hasPack && key.includes('/commit/'),
}

for (const fate of ['refused', 'fails-before'] as const) {
  for (const [what, isHit] of Object.entries(hits)) {
    for (const contentsSizeBytesMax of [Infinity, 0]) {
      const state = contentsSizeBytesMax === 0 ? 'asleep' : 'awake'
      t.test(`two VPGs, ${state}, of which every ${what} ${fate}: another one is merged`, async t => {
        const { model, models, store } = await site(t, isHit, contentsSizeBytesMax)
        const [one, two, three] = models
        for (const each of [one, two]) fill(each, model)
        store.fate = fate
        await model.worker.start({ durable: model.log.mark })
        t.ok(await until(() => [first, second].every(vpg => count(model, 'storeFailing', vpg) > 0)), 'they are held up')
        fill(three, model)
        t.ok(await until(() => count(model, 'folded', healthy) > 0), 'the other one is folded')
        t.strictSame([count(model, 'folded', first), count(model, 'folded', second)], [0, 0])
        store.fate = 'works'
        t.ok(await until(() => count(model, 'folded', first) > 0 && count(model, 'folded', second) > 0), 'they go on')
        for (const each of models) {
          const plan = await each.open(each.checkpoints.at(-1)!)
          t.equal(await each.difference(plan), undefined)
          await each.close(plan)
        }
        await model.worker.close()
        for (const name of ['damageFound', 'fenced', 'holeFound'] as const)
          for (const { vpg } of models) t.equal(count(model, name, vpg), 0, name)
      })
    }
  }
}

t.test(
  'of a VPG whose segments alone are refused nothing more is taken while the log is filling, and others go on',
  async t => {
    const directory = t.testdir()
    const model = new AgingModel(randomFrom(21), directory, 60_000, first)
    const { objects } = model.memory
    let isRefusing = false
    const isNewCommit = (key: string): boolean =>
      key.startsWith(`${first}/commit/`) && /\d$/.test(key) && !objects.has(key)
    await model.restart((_, key) => (isRefusing && isNewCommit(key) ? 'refused' : 'works'), {
      ...model.config,
      logSizeBytesPressure: 1,
    })
    const other = new AgingModel(randomFrom(22), directory, 60_000, healthy, model)
    for (const { definition, vpg } of [model, other])
      await model.worker.createVpg({ ...definition, name: vpg.slice(0, 2) })
    await model.worker.start({ durable: model.log.mark })
    isRefusing = true
    const told = (): (string | undefined)[] =>
      model.notices
        .filter(({ name }) => name === 'sealingStopped')
        .map(({ notice }) => notice as AgingNotices['sealingStopped'])
        .flatMap(({ vpg, sentence }) => (vpg === first ? [sentence] : ['of another']))
    fill(model, model)
    t.ok(
      await until(() => {
        other.write(1, 1)
        model.worker.durable(model.log.mark)
        return told().length > 0
      }),
    )
    t.match(told(), [/the store does not take its segments, though it takes others', .*refuses us/])
    const sealed = count(model, 'segmentCommitted', healthy)
    fill(other, model)
    t.ok(await until(() => count(model, 'segmentCommitted', healthy) > sealed))
    isRefusing = false
    t.ok(await until(() => told().length > 1))
    t.equal(told()[1], undefined)
    t.equal(told().length, 2)
    t.ok(count(model, 'segmentCommitted', first) > 0)
    await model.worker.close()
  },
)
