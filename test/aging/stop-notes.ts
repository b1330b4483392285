import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { unpacked } from '../../src/aging/aging.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import type { PackedVpg, StopNote, VpgMirrorStatus } from '../../src/aging/service.ts'
import { AgingModel } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// A start after a stop. Invariants: a VPG of which the store shows what was noted is opened without a page of its manifest, and is what it was; any
// other is read, and is what the store says.

/** A VPG with deltas and segments; `start` tells the keys that were read on the way. */
async function site(t: Pick<Test, 'testdir'>, seed: number) {
  const directory = t.testdir()
  const model = new AgingModel(randomFrom(seed), directory, 60_000)
  const config = { ...model.config, memoDirectory: path.join(directory, 'vpgs') }
  model.contentsSizeBytesMax = 0
  const opened: { vpgs: readonly PackedVpg[] } = { vpgs: [] }
  const start = async (
    notes: readonly StopNote[],
    changed: Partial<typeof config> = {},
  ): Promise<readonly string[]> => {
    const keys: string[] = []
    const noted = (_: number, key: string) => {
      keys.push(key)
      return 'works' as const
    }
    opened.vpgs = await model.restart(noted, { ...config, notes, ...changed })
    return [...keys]
  }
  await start([])
  await model.worker.createVpg(model.definition)
  while (told(model, 'folded').length < 1) {
    model.write(1, 8)
    model.checkpoint()
    model.clock.advance(11_000)
    await model.age()
  }
  return { model, config, start, opened }
}

function told(model: AgingModel, name: string): readonly { readonly notice: unknown }[] {
  return model.notices.filter(notice => notice.name === name)
}

/** Without what this process did, and what is not there. */
function plain(status: VpgMirrorStatus): unknown {
  return JSON.parse(JSON.stringify({ ...status, requests: 0 }))
}

function readsPages(keys: readonly string[]): boolean {
  return keys.some(key => key.includes('/page/'))
}

async function tagNewest(model: AgingModel, name: string): Promise<void> {
  await model.worker.tag({ vpg: model.vpg, ordinal: model.checkpoints.at(-1)!.checkpoint.ordinal, name })
}

t.test('a start after a stop reads no page, has all that was, and goes on', async t => {
  for (const contentsSizeBytesMax of [Infinity, 0]) {
    const { model, start } = await site(t, 1)
    const { vpg } = model
    model.contentsSizeBytesMax = contentsSizeBytesMax
    await start([])
    model.write(1, 2)
    model.clock.advance(11_000)
    await model.age()
    const before = await model.worker.status({ vpg })
    const notes = await model.worker.close()
    t.equal(notes.length, 1)
    const keys = await start(notes)
    t.notOk(readsPages(keys), keys.join())
    t.strictSame(plain(await model.worker.status({ vpg })), plain(before))
    const again = await model.worker.close()
    t.strictSame(again, notes, 'and again, when nothing has happened')
    await start(again)
    const folded = told(model, 'folded').length
    for (let index = 0; index < 60; index++) model.write(1, 8)
    model.checkpoint()
    await model.age()
    t.ok(told(model, 'folded').length > folded, 'a fold')
    for (const made of model.checkpoints.slice(-3)) t.equal(await model.difference(await model.open(made)), undefined)
    t.strictSame(told(model, 'damageFound'), [])
    t.ok(readsPages(await start([])), 'without notes it reads them')
  }
})

t.test(
  'a start after a kill reads what was committed after the note, where that is segments, and else all',
  async t => {
    const { model, start, opened } = await site(t, 5)
    const { vpg } = model
    await start([])
    await model.age()
    const segment = async (): Promise<void> => {
      model.write(1, 2)
      model.checkpoint()
      await sealed(model)
    }
    await segment()
    const notes = [newestNote(model)]
    t.strictSame(notes, await model.worker.close(), 'while it runs it tells what it would say at a stop')
    await start(notes)
    await segment()
    await segment()
    const before = await model.worker.status({ vpg })
    const checkpoints = model.checkpoints.slice(-2).map(({ checkpoint }) => checkpoint.ordinal)
    const keys = await start(notes)
    t.notOk(readsPages(keys), keys.join())
    t.strictSame(plain(await model.worker.status({ vpg })), plain(before))
    t.strictSame(
      opened.vpgs.map(({ indexedThrough, segments }) => [indexedThrough, segments.length]),
      [[(checkpoints[0] ?? 0) - 1, 2]],
    )
    const found = opened.vpgs.flatMap(each => unpacked(each).checkpoints)
    t.strictSame(
      found.slice(1).map(({ ordinal }) => ordinal),
      checkpoints,
    )
    for (const made of model.checkpoints.slice(-3)) t.equal(await model.difference(await model.open(made)), undefined)
    await start(notes)
    await tagNewest(model, 'later')
    await segment()
    t.ok(readsPages(await start(notes)), 'a manifest came between')
    t.strictSame(told(model, 'damageFound'), [])
  },
)

t.test('of a segment after the note that cannot be read a start says so', async t => {
  for (const damage of ['gone', 'cut', 'changed', 'of another version'] as const) {
    const { model, start, notes } = await asNoted(t)
    await start(notes)
    for (let count = 0; count < 2; count++) {
      model.write(1, 2)
      await sealed(model)
    }
    const key = [...model.memory.objects.keys()]
      .filter(each => each.includes('/commit/'))
      .sort()
      .at(-2)!
    const bytes = Buffer.from(model.memory.objects.get(key)!)
    if (damage === 'gone') model.memory.objects.delete(key)
    else model.memory.objects.set(key, damaged[damage](bytes))
    model.notices.length = 0
    await start(notes)
    t.match(told(model, 'damageFound'), [{ notice: { sentence: new RegExp(key) } }], damage)
    await t.rejects(model.worker.status({ vpg: model.vpg }), { code: 'UNKNOWN_VPG' })
  }
})

const damaged = {
  cut: (bytes: Buffer) => bytes.subarray(0, 40),
  changed: (bytes: Buffer) => bytes.fill(7, bytes.length - 100),
  'of another version': (bytes: Buffer) => {
    bytes.writeUInt8(9, 4)
    bytes.writeUInt32LE(crc32c(bytes.subarray(0, 124)), 124)
    return bytes
  },
}

t.test('a VPG that is damaged is noted as one to be read', async t => {
  const { model, start, notes } = await asNoted(t)
  const pages = [...model.memory.objects].filter(([key]) => key.includes('/page/'))
  for (const [key, body] of pages) model.memory.objects.set(key, Buffer.from(body).fill(7, 130))
  await start(notes)
  await model.age()
  t.equal(told(model, 'damageFound').length, 1, 'found at the first look')
  await t.rejects(model.open(model.checkpoints.at(-1)!), { code: 'OBJECT_CORRUPT' }, 'who reads is told')
  t.strictSame(newestNote(model), { vpg: model.vpg, text: '' })
})

async function sealed(model: AgingModel): Promise<void> {
  model.worker.durable(model.log.mark)
  await model.worker.seal({ vpg: model.vpg })
  await model.age()
}

function newestNote(model: AgingModel): StopNote {
  return told(model, 'noted').at(-1)!.notice as StopNote
}

t.test('a start that takes VPGs over goes on from the notes of those that are its own by then', async t => {
  const { model, start } = await site(t, 3)
  await start([])
  await model.age()
  const notes = await model.worker.close()
  const keys = await start(notes, { adopt: true })
  t.notOk(readsPages(keys), keys.join())
  const other = await start(notes, { adopt: true, applianceId: 'appliance-two' })
  t.ok(readsPages(other), 'another’s is read')
  t.equal(told(model, 'adopted').length, 1)
})

t.test('what is not what was noted is read', async t => {
  const changes: Record<string, (site: Awaited<ReturnType<typeof asNoted>>) => Promise<readonly string[]>> = {
    'a damaged note': async ({ start, notes }) =>
      await start(notes.map(note => ({ ...note, text: note.text.replace('"orders"', '"0rders"') }))),
    'a commit since': async ({ model, start, notes }) => {
      await start([])
      await tagNewest(model, 'later')
      return await start(notes)
    },
    'a commit that the memory does not know': async ({ model, config, start, notes }) => {
      const file = path.join(config.memoDirectory, `${model.vpg}.json`)
      const memory = fs.readFileSync(file)
      await start([])
      await tagNewest(model, 'later')
      fs.writeFileSync(file, memory)
      return await start(notes)
    },
    'no memory': async ({ config, start, notes }) => {
      fs.rmSync(config.memoDirectory, { recursive: true })
      return await start(notes)
    },
    'another commit of that number': async ({ model, start, notes, before }) => {
      model.memory.objects.clear()
      for (const [key, body] of before) model.memory.objects.set(key, body)
      await start([], { memoDirectory: path.join(t.testdirName, 'other') })
      await tagNewest(model, 'later')
      return await start(notes)
    },
  }
  for (const [name, change] of Object.entries(changes)) {
    const noted = await asNoted(t)
    const { model } = noted
    t.ok(readsPages(await change(noted)), name)
    const tags = await model.worker.close()
    t.equal(tags.length, 1, `${name}: served`)
    const isLater = tags[0]!.text.includes('"later"')
    t.equal(isLater, /commit/.test(name), `${name}: as the store says`)
  }
})

/** Stopped after its last commit; `before` is the store before that. */
async function asNoted(t: Pick<Test, 'testdir'>) {
  const found = await site(t, 2)
  const before = new Map(found.model.memory.objects)
  await tagNewest(found.model, 'noted')
  const notes = await found.model.worker.close()
  return { ...found, before, notes }
}

t.test('a VPG that another appliance has taken meanwhile is fenced, an older copy of the store named', async t => {
  for (const what of ['taken', 'older'] as const) {
    const { model, start, notes, before } = await asNoted(t)
    if (what === 'taken')
      await start([], { applianceId: 'appliance-two', adopt: true, memoDirectory: path.join(t.testdirName, 'two') })
    else {
      model.memory.objects.clear()
      for (const [key, body] of before) model.memory.objects.set(key, body)
    }
    const objects = [...model.memory.objects.keys()]
    model.notices.length = 0
    await start(notes)
    const found = told(model, what === 'taken' ? 'fenced' : 'damageFound').map(({ notice }) => notice)
    t.match(found, [{ sentence: what === 'taken' ? /belongs to the appliance appliance-two/ : /an older copy/ }])
    await t.rejects(model.worker.status({ vpg: model.vpg }), { code: 'UNKNOWN_VPG' })
    await model.age()
    t.strictSame([...model.memory.objects.keys()], objects, 'nothing was written')
  }
})

t.test('a store that stumbles is asked again', async t => {
  const { model, config, notes } = await asNoted(t)
  let failures = 3
  const keys: string[] = []
  await model.restart(
    (_, key) => {
      keys.push(key)
      return key.includes('/commit/') && failures-- > 0 ? 'fails-before' : 'works'
    },
    { ...config, notes },
  )
  t.ok(failures < 0)
  t.notOk(readsPages(keys))
  t.ok(await model.worker.status({ vpg: model.vpg }))
})

t.test('nothing is noted of a VPG that is not plain', async t => {
  const holed = await site(t, 3)
  holed.model.writeBad(1)
  await holed.model.age()
  t.strictSame(await holed.model.worker.close(), [{ vpg: holed.model.vpg, text: '' }], 'a hole')
  const deleted = await site(t, 4)
  await deleted.model.worker.deleteVpg({ vpg: deleted.model.vpg, isForced: false })
  t.strictSame(await deleted.model.worker.close(), [{ vpg: deleted.model.vpg, text: '' }], 'deleted')
})
