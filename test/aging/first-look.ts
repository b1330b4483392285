import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import type { StopNote } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import { strays } from '../support/aging-strays.ts'
import { randomFrom } from '../support/segment-records.ts'

// A process looks once through all that the store has of a VPG for what a former one has left. Invariants: it does so wherever something may be left,
// and not where the former one has said that nothing is; and whatever is left is garbage in the end.

/** A VPG that sleeps, with deltas and nothing to do. `start` begins another process, and tells whether it looks through the VPG. */
async function site(t: Pick<Test, 'testdir'>, seed: number) {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(seed), directory, 60_000)
  const config = { ...model.config, memoDirectory: path.join(directory, 'vpgs') }
  model.contentsSizeBytesMax = 0
  const start = async (notes: readonly StopNote[], changed: Partial<typeof config> = {}): Promise<boolean> => {
    let isLooked = false
    const fateOf = (_: number, key: string) => {
      isLooked ||= key === `${model.vpg}/`
      return 'works' as const
    }
    await model.restart(fateOf, { ...config, notes, ...changed })
    await model.age()
    return isLooked
  }
  await start([])
  await model.worker.createVpg(model.definition)
  while (told(model, 'folded').length < 1) {
    model.write(1, 8)
    model.checkpoint()
    model.clock.advance(11_000)
    await model.age()
  }
  await start([])
  const memory = path.join(config.memoDirectory, `${model.vpg}.json`)
  return { model, config, start, memory }
}

function told(model: AgingModel, name: string): readonly { readonly notice: unknown }[] {
  return model.notices.filter(notice => notice.name === name)
}

/** As a killed process leaves it. */
function newestNote(model: AgingModel): StopNote {
  return told(model, 'noted').at(-1)!.notice as StopNote
}

async function sealSomething(model: AgingModel): Promise<void> {
  model.write(1, 2)
  model.worker.durable(model.log.mark)
  await model.worker.seal({ vpg: model.vpg })
  await model.age()
}

async function tagNewest(model: AgingModel, name: string): Promise<void> {
  await model.worker.tag({ vpg: model.vpg, ordinal: model.checkpoints.at(-1)!.checkpoint.ordinal, name })
}

t.test('a VPG of which a former process has left nothing is not looked through until something is due', async t => {
  for (const end of ['stopped', 'killed'] as const) {
    const { model, start } = await site(t, 1)
    const notes = end === 'stopped' ? await model.worker.close() : [newestNote(model)]
    t.notOk(await start(notes), end)
    await sealSomething(model)
    t.notOk(await start([newestNote(model)]), 'segments leave nothing behind')
    const folded = told(model, 'folded').length
    for (let index = 0; index < 60; index++) model.write(1, 8)
    model.checkpoint()
    await model.age()
    t.ok(told(model, 'folded').length > folded, 'a fold')
    t.notOk(await start([newestNote(model)]), 'and when that is done, nothing again')
    t.strictSame(await strays(model), [])
    for (const made of model.checkpoints.slice(-3)) t.equal(await model.difference(await model.open(made)), undefined)
    t.strictSame(told(model, 'damageFound'), [])
  }
})

const works: Readonly<Record<string, (model: AgingModel) => Promise<void>>> = {
  'a fold': async model => {
    for (let index = 0; index < 60; index++) model.write(1, 8)
    model.checkpoint()
    await model.age()
  },
  // Of which nothing is due afterwards. So long a part of a manifest has a page of its own.
  'a decision': model => tagNewest(model, 'x'.repeat(5_000)),
}

t.test('whatever a process has made before it was killed, the next one knows of all that it left', async t => {
  for (const [name, work] of Object.entries(works)) {
    let strayCount = 0
    for (let deadAfter = 1, isDead = true; isDead && deadAfter <= 5; deadAfter++) {
      const { model, config, start } = await site(t, 2)
      let madeCount = 0
      isDead = false
      const isMade = (key: string): boolean => /\/(page|delta|base)\//.test(key) && !model.memory.objects.has(key)
      await model.restart(
        (_, key) => {
          if (isMade(key)) madeCount++
          isDead ||= madeCount === deadAfter
          return isDead ? 'dies-after' : 'works'
        },
        { ...config, notes: [newestNote(model)] },
      )
      await work(model).catch(() => undefined)
      strayCount += (await strays(model)).length
      await start([newestNote(model)])
      t.strictSame(await strays(model), [], `${name}, killed after object ${deadAfter}`)
      t.strictSame(told(model, 'damageFound'), [])
    }
    t.ok(strayCount > 0, `${name}: some were left`)
  }
})

t.test('what is said of another state of the VPG is not believed', async t => {
  const older = await site(t, 3)
  const memory = fs.readFileSync(older.memory)
  const notes = [newestNote(older.model)]
  await sealSomething(older.model)
  fs.writeFileSync(older.memory, memory)
  t.ok(await older.start(notes), 'a disk that was put back, of before a segment')
  t.notOk(await older.start([newestNote(older.model)]))

  const taken = await site(t, 5)
  const own = [newestNote(taken.model)]
  await taken.start([], {
    applianceId: 'appliance-two',
    adopt: true,
    memoDirectory: path.join(t.testdirName, 'of-two'),
  })
  await taken.start(own, { adopt: true })
  t.ok(taken.model.notices.some(({ name }) => name === 'adopted'))
  t.strictSame(await strays(taken.model), [], 'after an adoption and back')
})

t.test('a reader’s pin that a killed process has left is looked after', async t => {
  const { model, start } = await site(t, 6)
  await model.open(model.checkpoints.at(-1)!)
  await model.age()
  t.ok(await start([newestNote(model)]))
  t.notOk(await start([newestNote(model)]), 'and gone')
})
