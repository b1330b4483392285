import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { verifyVpg, type Finding } from '../../src/manifest/manifest.ts'
import { verifySegment } from '../../src/segment/segment.ts'
import { openStore, type StoreConfig } from '../../src/store/store.ts'
import { AgingModel, streams } from '../support/aging-model.ts'
import { strays } from '../support/aging-strays.ts'
import { randomFrom } from '../support/segment-records.ts'

// Aging over a store that is encrypted here. Invariants: all of it goes as without; another appliance with the key takes over; one without it, or with
// another, is refused at its start, and writes nothing.

t.test('a history ages, is verified and is taken over, encrypted; nobody without the key opens it', async t => {
  const directory = t.testdir({ key: '', wrong: '' })
  for (const name of ['key', 'wrong']) fs.writeFileSync(path.join(directory, name), randomBytes(32))
  for (const name of ['key', 'wrong']) fs.chmodSync(path.join(directory, name), 0o600)
  const place = { kind: 'directory', directory: path.join(directory, 'store') } as const
  const keyed = (name: string): StoreConfig => ({
    ...place,
    clientEncryption: { key: 'file', keyFile: path.join(directory, name) },
  })
  const model = new AgingModel(randomFrom(31), directory, 6_000)
  model.images = await openStore(keyed('key'))
  const restart = (config: StoreConfig, changes: Partial<typeof model.config> = {}): Promise<unknown> =>
    model.restart(undefined, { ...model.config, ...changes }, { openStore: () => openStore(config) })
  await restart(keyed('key'))
  await model.worker.createVpg(model.definition)
  for (let round = 0; round < 3; round++) {
    for (let index = 0; index < 24; index++) {
      model.write(streams[index % 2] ?? 1, 6)
      if (index % 4 === 3) model.checkpoint()
    }
    await model.age()
    model.clock.advance(70_000)
    await model.age()
  }
  for (const name of ['segmentCommitted', 'folded', 'regionRewritten', 'garbageRemoved'])
    t.ok(
      model.notices.some(notice => notice.name === name),
      `it came to ${name}`,
    )
  let wholeCount = 0
  const damage: Finding[] = []
  const report = { whole: () => void wholeCount++, damage: (finding: Finding) => void damage.push(finding) }
  const faultsOf: Parameters<typeof verifyVpg>[3] = async (store, { key, sizeBytes }, signal) => ({
    faults: (await verifySegment(store, key, sizeBytes, signal)).map(({ what: sentence, offsetBytes }) => ({
      sentence,
      offsetBytes,
    })),
  })
  await verifyVpg(model.images, model.vpg, report, faultsOf, new AbortController().signal)
  t.strictSame(damage, [])
  t.ok(wholeCount > 5, `${wholeCount} objects verified`)
  t.strictSame(await strays(model), [])
  const files = (): string[] => fs.readdirSync(place.directory, { recursive: true }).map(String).sort()
  const before = files()
  await model.worker.close()
  for (const config of [place, keyed('wrong')]) await t.rejects(restart(config), { code: 'CONFIG_INVALID' })
  t.strictSame(files(), before)
  await restart(keyed('key'), { applianceId: 'appliance-two', adopt: true })
  t.ok(model.notices.some(({ name }) => name === 'adopted'))
  const newest = model.checkpoints.at(-1)!
  t.equal(await model.difference(await model.open(newest)), undefined)
  t.notOk(model.notices.some(({ name }) => name === 'damageFound'))
})
