import t from 'tap'
import { dumpVpg, verifyVpg, type Finding } from '../../src/manifest/manifest.ts'
import { verifySegment } from '../../src/segment/segment.ts'
import { AgingModel, streams } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

const never = new AbortController().signal

async function verified(model: AgingModel): Promise<{ whole: string[]; damage: Finding[] }> {
  const whole: string[] = []
  const damage: Finding[] = []
  const report = {
    whole: ({ key }: { readonly key: string }) => void whole.push(key),
    damage: (finding: Finding) => void damage.push(finding),
  }
  const faultsOf: Parameters<typeof verifyVpg>[3] = async (store, { key, sizeBytes }, signal) => ({
    faults: (await verifySegment(store, key, sizeBytes, signal)).map(({ what, offsetBytes }) => ({
      offsetBytes,
      sentence: what,
    })),
  })
  await verifyVpg(model.memory, model.vpg, report, faultsOf, never)
  return { whole, damage }
}

t.test(
  'verify reads everything that the manifest refers to, and names each damaged object and what that costs',
  async t => {
    const model = new AgingModel(randomFrom(3), t.testdir(), 5000)
    await model.worker.open(model.config)
    await model.worker.follow({ durable: model.log.mark })
    await model.worker.createVpg(model.definition)
    for (let index = 0; index < 60; index++) {
      model.write(streams[index % 2] ?? 1, 8)
      if (index % 4 === 3) model.checkpoint()
      if (index % 20 === 19) await model.age()
    }
    await model.worker.seal({ vpg: model.vpg })
    await model.age()
    const { whole, damage } = await verified(model)
    t.strictSame(damage, [], 'all is whole')
    for (const kind of ['/commit/', '/delta/', '/base/', '/page/']) {
      t.ok(
        whole.some(key => key.includes(kind)),
        `${kind} was read`,
      )
    }
    const newest = [...model.memory.objects.keys()]
      .filter(key => key.includes('/commit/'))
      .sort()
      .at(-1)
    for (const key of new Set(whole)) {
      const body = model.memory.objects.get(key)
      if (body === undefined) continue
      const middle = Math.floor(body.length / 2)
      body[middle] = (body[middle] ?? 0) ^ 0x10
      const found = await verified(model)
      const named = found.damage.some(
        ({ key: damaged, affects, offsetBytes }) =>
          damaged === key && affects.length > 0 && offsetBytes !== undefined && offsetBytes < body.length,
      )
      if (!named) t.fail(`${key}: ${JSON.stringify(found.damage)}`)
      body[middle] = (body[middle] ?? 0) ^ 0x10
      model.memory.objects.delete(key)
      // Without the newest number the store looks as it did before it: nothing there can say that there was one.
      const missed = await verified(model)
      if (missed.damage.length === 0 && key !== newest) t.fail(`${key} is missing and nobody says so`)
      model.memory.objects.set(key, body)
    }
    const lines: string[] = []
    for await (const line of dumpVpg(model.memory, model.vpg, never)) lines.push(line)
    for (const word of ['vpg', 'root', 'volume', 'stream', 'offloaded', 'history', 'delta', 'region', 'garbage']) {
      t.ok(
        lines.some(line => line.startsWith(word)),
        `the dump has a line "${word}"`,
      )
    }
  },
)

t.test('what leaves the manifest while it is verified, and is removed, is not damaged', async t => {
  for (const kind of ['/commit/', '/delta/', '/base/']) {
    const model = new AgingModel(randomFrom(5), t.testdir(), 5000)
    await model.worker.open(model.config)
    await model.worker.follow({ durable: model.log.mark })
    await model.worker.createVpg(model.definition)
    const live = async (): Promise<void> => {
      for (let index = 0; index < 60; index++) {
        model.write(streams[index % 2] ?? 1, 8)
        if (index % 4 === 3) model.checkpoint()
        if (index % 20 === 19) await model.age()
      }
    }
    await live()
    model.write(1, 4)
    await model.worker.seal({ vpg: model.vpg })
    const doomed = (await verified(model)).whole.filter(key => key.includes(kind)).at(-1) ?? ''
    t.ok(model.memory.objects.has(doomed), `${kind} is referred to`)
    const readRange = model.memory.readRange.bind(model.memory)
    let isRemoved = false
    model.memory.readRange = async (key, range, signal) => {
      if (key === doomed && !isRemoved) {
        isRemoved = true
        model.memory.readRange = readRange
        while (model.memory.objects.has(doomed)) {
          await live()
          model.clock.advance(model.config.garbageGraceMillis * 2)
          await model.age()
        }
      }
      return await readRange(key, range, signal)
    }
    const { damage } = await verified(model)
    t.ok(isRemoved, `${doomed} was removed before it could be read`)
    t.strictSame(damage, [], kind)
  }
})

t.test('a VPG that is deleted and gone when it is its turn is not damaged', async t => {
  const model = new AgingModel(randomFrom(6), t.testdir(), 5000)
  await model.worker.open(model.config)
  await model.worker.createVpg(model.definition)
  model.memory.objects.clear()
  t.strictSame((await verified(model)).damage, [])
})
