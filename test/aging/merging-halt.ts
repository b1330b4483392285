import * as path from 'node:path'
import t, { type Test } from 'tap'
import type { AgingNotices } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// Damage keeps a VPG from being merged until it is mended, and no longer. Invariants: it is told once, and its end is; what is damaged is read seldom, and ever more
// so; nobody has to start anything again.

function told(model: AgingModel, name: keyof AgingNotices): unknown[] {
  return model.notices.filter(notice => notice.name === name).map(({ notice }) => notice)
}

async function writing(t: Pick<Test, 'testdir'>, seed: number, contentsSizeBytesMax: number) {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(seed), directory, 3_600_000)
  model.contentsSizeBytesMax = contentsSizeBytesMax
  const reads: string[] = []
  const scrub = { bytesPerSecond: 1e9, intervalMillis: 7 * 24 * 3_600_000, file: path.join(directory, 'scrub.json') }
  await model.restart(
    (_, key) => {
      reads.push(key)
      return 'works'
    },
    { ...model.config, scrub },
  )
  await model.worker.createVpg(model.definition)
  /** So much that a fold is due at the end of it. */
  const fill = async (): Promise<void> => {
    for (let count = 0; count < 40; count++) model.write(1, 8)
    model.checkpoint()
    model.clock.advance(11_000)
    await model.age()
  }
  for (let count = 0; count < 3; count++) await fill()
  return { model, reads, fill }
}

/** Segments that come from here on are damaged as soon as they are committed, and before anything merges them. */
function damageNext(model: AgingModel): { readonly mend: () => void } {
  const whole = new Map<string, Uint8Array>()
  const { create } = model.memory
  model.memory.create = async (key, body) => {
    await create.call(model.memory, key, body)
    if (!key.includes('/commit/') || Buffer.from(body).toString('ascii', 0, 4) === 'VRAM' || whole.size > 0) return
    whole.set(key, Uint8Array.from(body))
    const damaged = Uint8Array.from(body, (byte, at) => (at === 700 ? byte ^ 1 : byte))
    model.memory.objects.set(key, damaged)
  }
  const mend = (): void => {
    model.memory.create = create
    for (const [key, body] of whole) model.memory.objects.set(key, body)
  }
  return { mend }
}

t.test('a segment that is damaged is read ever more seldom, and folded when it is put back', async t => {
  const { model, reads, fill } = await writing(t, 1, Infinity)
  const { mend } = damageNext(model)
  await fill()
  t.equal(told(model, 'damageFound').length, 1)
  const folded = told(model, 'folded').length
  reads.length = 0
  for (let minute = 0; minute < 240; minute++) {
    model.clock.advance(60_000)
    await model.age()
  }
  const segments = reads.filter(key => key.includes('/commit/') && model.memory.objects.has(key))
  t.ok(segments.length > 0 && segments.length < 60, `${segments.length} reads in four hours`)
  t.equal(told(model, 'damageFound').length, 1, 'told once')
  mend()
  t.strictSame(told(model, 'damageMended'), [])
  t.equal(told(model, 'folded').length, folded)
  model.clock.advance(3_600_000)
  await model.age()
  t.equal(told(model, 'damageMended').length, 1)
  t.ok(told(model, 'folded').length > folded)
  t.equal(await model.difference(await model.open(model.checkpoints.at(-1)!)), undefined)
})

t.test('and at once when a scrub finds it whole', async t => {
  const { model, fill } = await writing(t, 2, Infinity)
  const { mend } = damageNext(model)
  await fill()
  const folded = told(model, 'folded').length
  mend()
  await model.age()
  t.equal(told(model, 'folded').length, folded, 'nobody has looked')
  while (await model.worker.scrubStep());
  await model.age()
  t.ok(told(model, 'folded').length > folded)
  t.equal(told(model, 'damageMended').length, 1)
})

t.test('a page that is put back is found by who sleeps for want of it, or who asks before', async t => {
  for (const isAsked of [false, true]) {
    const { model, fill } = await writing(t, 3, 0)
    const { vpg } = model
    const { ordinal } = model.checkpoints.at(-1)!.checkpoint
    const pages = [...model.memory.objects].filter(([key]) => key.includes('/page/'))
    for (const [key] of pages) model.memory.objects.delete(key)
    await t.rejects(model.worker.tag({ vpg, ordinal, name: 'kept' }), { code: 'BUSY', message: /page.* is missing/ })
    const folded = told(model, 'folded').length
    for (let count = 0; count < 20; count++)
      await t.rejects(model.worker.untag({ vpg, name: 'kept' }), { code: 'BUSY' })
    await fill()
    t.equal(told(model, 'folded').length, folded)
    t.equal(told(model, 'damageFound').length, 1)
    for (const [key, body] of pages) model.memory.objects.set(key, body)
    if (isAsked) await model.worker.tag({ vpg, ordinal, name: 'kept' })
    else model.clock.advance(60_000)
    await model.age()
    t.equal(told(model, 'damageMended').length, 1)
    t.ok(told(model, 'folded').length > folded)
  }
})
