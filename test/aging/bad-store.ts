import t, { type Test } from 'tap'
import type { AgingNotices } from '../../src/aging/service.ts'
import { commitKey } from '../../src/manifest/manifest.ts'
import type { ListedObject, ObjectStore } from '../../src/store/object-store.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import { AgingModel, streams } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// What is in the store is not what this appliance left there. Invariants: it is named and refused; nothing is overwritten, and nothing removed.

async function aged(t: Test): Promise<AgingModel> {
  const model = new AgingModel(randomFrom(5), t.testdir(), 60_000)
  await model.restart()
  await model.worker.createVpg(model.definition)
  for (let index = 0; index < 40; index++) {
    model.write(streams[index % 2] ?? 1, 6)
    if (index % 4 === 3) model.checkpoint()
  }
  await model.age()
  await model.worker.seal({ vpg: model.vpg })
  return model
}

function newest(model: AgingModel, isOne: (key: string) => boolean): string {
  const key = [...model.memory.objects.keys()].filter(isOne).sort().at(-1)
  if (key === undefined) throw new Error('there is none')
  return key
}

function isRoot(model: AgingModel, key: string): boolean {
  return key.includes('/commit/') && Buffer.from(model.memory.objects.get(key) ?? []).toString('ascii', 0, 4) === 'VRAM'
}

/** The header with other bytes in it, and a checksum that is right. */
function withHeader(object: Uint8Array, change: (header: Buffer) => void): Uint8Array {
  const copy = Buffer.from(object)
  change(copy)
  copy.writeUInt32LE(crc32c(copy.subarray(0, 124)), 124)
  return copy
}

type Change = (model: AgingModel) => void

function onNewestRoot(change: (root: Uint8Array) => Uint8Array | undefined): Change {
  return model => {
    const key = newest(model, each => isRoot(model, each))
    const changed = change(model.memory.objects.get(key)!)
    if (changed === undefined) model.memory.objects.delete(key)
    else model.memory.objects.set(key, changed)
  }
}

const bad: Readonly<Record<string, { readonly change: Change; readonly said: RegExp }>> = {
  'of another format version': {
    change: onNewestRoot(root => withHeader(root, header => header.writeUInt8(9, 4))),
    said: /format version 9; this program reads version 1/,
  },
  'of another VPG': {
    change: onNewestRoot(root => withHeader(root, header => header.write('ab'.repeat(16), 8, 'hex'))),
    said: /is commit \d+ of VPG abab/,
  },
  'of another owner': {
    change: onNewestRoot(root => withHeader(root, header => header.fill(0, 56, 120).write('somebody', 56, 'ascii'))),
    said: /belongs to the appliance somebody/,
  },
  'with a manifest that is damaged': {
    change: onNewestRoot(root => Uint8Array.from(root, (byte, at) => (at === 200 ? byte ^ 1 : byte))),
    said: /damaged body/,
  },
  'with a manifest that is truncated': { change: onNewestRoot(root => root.slice(0, 300)), said: /body of 172 bytes/ },
  'with a page that is missing': {
    change: model => {
      for (const key of model.memory.objects.keys()) if (key.includes('/page/')) model.memory.objects.delete(key)
    },
    said: /is missing, although the manifest refers to it/,
  },
  'with a segment that is truncated': {
    change: model => {
      const last = newest(model, each => each.includes('/commit/') && !isRoot(model, each))
      model.memory.objects.set(last, model.memory.objects.get(last)!.slice(0, -9))
    },
    said: /commit\/\d+.*(trailer|VRAS|damaged|checksum)/,
  },
}

for (const [what, { change, said }] of Object.entries(bad)) {
  t.test(`a bucket ${what} is refused by name, and left as it is`, async t => {
    const model = await aged(t)
    change(model)
    const before = new Map(model.memory.objects)
    const from = model.notices.length
    await model.restart()
    await model.age()
    const told = model.notices.slice(from).filter(({ name }) => name === 'damageFound')
    t.match((told[0]?.notice as AgingNotices['damageFound']).sentence, said)
    t.strictSame([...model.memory.objects], [...before])
  })
}

/** Shows what it holds but for some. */
class LyingStore implements ObjectStore {
  readonly #inner: ObjectStore
  readonly #hides: (key: string, prefix: string) => boolean

  constructor(inner: ObjectStore, hides: (key: string, prefix: string) => boolean) {
    this.#inner = inner
    this.#hides = hides
  }

  create: ObjectStore['create'] = (key, body, signal) => this.#inner.create(key, body, signal)
  readRange: ObjectStore['readRange'] = (key, range, signal) => this.#inner.readRange(key, range, signal)
  remove: ObjectStore['remove'] = (key, signal) => this.#inner.remove(key, signal)
  close: ObjectStore['close'] = async () => undefined

  async *list(prefix: string, after: string | undefined, signal: AbortSignal): AsyncGenerator<ListedObject> {
    for await (const object of this.#inner.list(prefix, after, signal))
      if (!this.#hides(object.key, prefix)) yield object
  }
}

async function under(model: AgingModel, hides: (key: string, prefix: string) => boolean): Promise<void> {
  const store = new LyingStore(model.memory, hides)
  await model.restart(undefined, model.config, { openStore: async () => store })
}

t.test('a listing without the commits is not believed to say that there is no VPG', async t => {
  const model = await aged(t)
  const before = new Map(model.memory.objects)
  const from = model.notices.length
  await under(model, key => key.includes('/commit/'))
  await model.age()
  const told = model.notices.slice(from).find(({ name }) => name === 'damageFound')
  t.match((told?.notice as AgingNotices['damageFound']).sentence, /lists no commit of VPG .*its listing lies/)
  t.strictSame([...model.memory.objects], [...before])
})

t.test('nor is one of commits alone that is empty where the other is not', async t => {
  const model = await aged(t)
  const before = new Map(model.memory.objects)
  await under(model, (key, prefix) => key.includes('/commit/') && prefix.endsWith('/commit/'))
  await model.age()
  t.strictSame([...model.memory.objects], [...before])
})

t.test('a listing that lacks the newest commits: what they are is not written over, and the VPG stops', async t => {
  const model = await aged(t)
  const last = newest(model, key => key.includes('/commit/'))
  const before = new Map(model.memory.objects)
  const from = model.notices.length
  await under(model, key => key === last)
  model.write(1, 4)
  await model.worker.seal({ vpg: model.vpg }).catch(() => undefined)
  await model.age().catch(() => undefined)
  t.ok(model.notices.slice(from).some(({ name }) => name === 'fenced'))
  for (const [key, body] of before) t.equal(model.memory.objects.get(key), body, key)
})

t.test('a listing that lacks one in the middle is found out', async t => {
  const model = await aged(t)
  for (let index = 0; index < 3; index++) {
    model.write(1, 4)
    model.worker.durable(model.log.mark)
    await model.worker.seal({ vpg: model.vpg })
  }
  const last = newest(model, key => key.includes('/commit/'))
  const one = commitKey(model.vpg, Number(last.slice(-16)) - 1)
  const from = model.notices.length
  await under(model, key => key === one)
  const told = model.notices.slice(from).find(({ name }) => name === 'damageFound')
  t.match((told?.notice as AgingNotices['damageFound']).sentence, new RegExp(`${one} is missing, although later`))
})

t.test('a wall clock that jumps ends no grace and makes none endless', async t => {
  const day = 86_400_000
  for (const jumpMillis of [3650 * day, -3650 * day]) {
    const model = await aged(t)
    await model.age()
    const removed = (): number => model.notices.filter(({ name }) => name === 'garbageRemoved').length
    const before = removed()
    model.clock.jump(jumpMillis)
    for (let index = 0; index < 10; index++) model.write(1, 6)
    model.checkpoint()
    await model.age()
    t.equal(removed(), before, `nothing is removed before its time, ${jumpMillis > 0 ? 'ahead' : 'back'}`)
    model.clock.advance(70_000)
    await model.age()
    t.ok(removed() > before, 'and it is when that is over')
    const newestCheckpoint = model.checkpoints.at(-1)!
    t.equal(await model.difference(await model.open(newestCheckpoint)), undefined)
  }
})
