import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import { pause, until } from '../support/scenario-role.ts'
import { Sender } from '../support/scenario-sender.ts'
import { Scenario } from '../support/scenario-site.ts'
import { guestBytes, seededRandom } from '../support/wire-samples.ts'

// What is acknowledged is there: a sender that forgets each record as soon as it is acknowledged, and a VRA that dies all the time.

const seed = 20_261_123
const volume = { vpg: 'raw', agent: 'sender', volume: 'disk', sizeBytes: 1 * MiB }

async function makeScenario(t: Parameters<typeof Scenario.make>[0]): Promise<{ scenario: Scenario; sender: Sender }> {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  await scenario.createVpg({ agentId: 'sender', vpg: 'raw', volumes: { disk: volume.sizeBytes } })
  const sender = new Sender(scenario.agentsPort, volume, seededRandom(seed))
  t.teardown(() => sender.close())
  return { scenario, sender }
}

async function compare(t: Parameters<typeof Scenario.make>[0], scenario: Scenario, sender: Sender, checkpoint: string) {
  const counter = Number(checkpoint.split('.')[1])
  const exported = fs.readFileSync(await scenario.exported('raw', 'disk', checkpoint))
  const reference = sender.references.get(counter) ?? Buffer.alloc(0)
  t.ok(exported.equals(reference), `checkpoint ${checkpoint} equals the array`)
}

t.test(`every acknowledged record is there after many kills (seed ${seed})`, async t => {
  const { scenario, sender } = await makeScenario(t)
  const random = seededRandom(seed + 1)
  await sender.connect()
  for (let round = 0; round < 6; round++) {
    const ackedBefore = sender.acked
    const end = performance.now() + 100 + 600 * random()
    // Each kill has something to lose that was acknowledged, however slow the machine is.
    while (performance.now() < end || sender.acked === ackedBefore) {
      if (sender.unackedCount < 200) sender.write(20)
      await pause(1)
    }
    sender.mark()
    await scenario.vra?.kill()
    const vra = scenario.spawnVra()
    if (round % 2 === 1) {
      await pause(500 * random())
      await vra.kill()
      scenario.spawnVra()
    }
    await sender.connect()
  }
  await scenario.vra?.untilSaid(/"vraReady"/)
  await sender.untilAcked()
  t.same(sender.faults, [], 'no Ack and no Welcome ever fell behind what was acknowledged')
  t.same(
    sender.errors.filter(error => !['BUSY', 'CLOSING'].includes(error.code)),
    [],
  )

  const { checkpoints } = await until('all checkpoints listed', async () => {
    const list = await scenario.control.listCheckpoints({ vpg: 'raw', limit: 100, order: 'oldest-first' })
    return list.checkpoints.length === sender.references.size && list
  })
  for (const { checkpoint } of checkpoints) await compare(t, scenario, sender, checkpoint)
})

t.test('a payload that does not decompress costs the checkpoints from there, and nothing else', async t => {
  const { scenario, sender } = await makeScenario(t)
  const random = seededRandom(seed + 2)
  await scenario.control.createVpg({
    name: 'other',
    volumes: [{ name: 'disk', sizeBytes: 1 * MiB }],
    agents: ['sender'],
    historyMillis: 3_600_000,
    checkpointIntervalMillis: 1000,
  })
  const other = new Sender(scenario.agentsPort, { ...volume, vpg: 'other' }, seededRandom(seed + 3))
  t.teardown(() => other.close())
  await Promise.all([sender.connect(), other.connect()])
  for (let count = 0; count < 20; count++) sender.write(10)
  const good = sender.mark()
  const data = guestBytes(random, 16384)
  sender.writeUndecompressable([{ volume: 1, offsetBytes: 4096, lengthBytes: data.length, data }])
  const bad = sender.mark()
  sender.write(10)
  await sender.untilAcked()
  t.same(sender.errors, [], 'the record is acknowledged as any other')

  const vpg = await scenario.untilVpg('raw', 'a hole is found', ({ holes }) => holes.length > 0)
  t.equal(vpg.state, 'damaged')
  t.match(vpg.holes[0], { fromCheckpoint: `1.${bad}` })
  t.match(vpg.stateReason, /withdrawn/)
  const listed = await scenario.cli('checkpoint', 'list', 'raw', '--json')
  const recoverable = Object.fromEntries(
    JSON.parse(listed.stdout).checkpoints.map((c: { checkpoint: string; recoverable: boolean }) => [
      c.checkpoint,
      c.recoverable,
    ]),
  )
  t.same(recoverable, { [`1.${good}`]: true, [`1.${bad}`]: false })
  const file = path.join(scenario.directory, 'withdrawn.raw')
  const refused = await scenario.cli('export', 'raw', '--volume', 'disk', '--checkpoint', `1.${bad}`, '--to', file)
  t.equal(refused.status, 3, 'there is no such recoverable checkpoint')
  t.match(refused.stderr, /withdrawn/)
  t.same(
    fs.readdirSync(scenario.directory).filter(name => name.startsWith('withdrawn.raw')),
    [],
    'and no file',
  )
  await compare(t, scenario, sender, `1.${good}`)
  t.match(
    await scenario.control.findCheckpoint('raw', 'latest'),
    { checkpoint: `1.${good}` },
    'latest is the last good one',
  )

  other.write(20)
  const unharmed = other.mark()
  await other.untilAcked()
  const otherExport = fs.readFileSync(await scenario.exported('other', 'disk', 'latest'))
  t.ok(otherExport.equals(other.references.get(unharmed) ?? Buffer.alloc(0)), 'another VPG goes on')
  sender.write(10)
  await sender.untilAcked()
  t.same(sender.errors, [], 'and so does the stream itself')

  await scenario.vra?.kill()
  await scenario.startVra()
  t.match((await scenario.vpg('raw')).holes, [{ fromCheckpoint: `1.${bad}` }], 'a restart does not forget the hole')
  await compare(t, scenario, sender, `1.${good}`)
  await t.rejects(scenario.exported('raw', 'disk', `1.${bad}`), /withdrawn/)
})
