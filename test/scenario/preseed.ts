import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { regionSizeBytes } from '../../src/base/limits.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import { until } from '../support/scenario-role.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'
import { Checked, fillDisk, syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'
import { guestBytes, seededRandom } from '../support/wire-samples.ts'

// A disk image that was carried to the recovery site: what it holds does not cross the link again.

const seed = 20_261_130
const sizeBytes = 48 * MiB

const manyRegionsBytes = 5 * regionSizeBytes

async function handedOver(t: Test) {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  const dataBytes = fillDisk(agent.disk('root'), seed)
  const image = agent.reference('root')
  await scenario.createVpg(agent.plan)
  return { scenario, agent, image, dataBytes }
}

/** Writes to the disk after the image was taken. */
function change(agent: AgentSite, places: readonly number[]): void {
  for (const at of places) writeAt(agent.disk('root'), at, Buffer.alloc(4 * KiB, 9))
}

function writeAt(file: string, offsetBytes: number, bytes: Uint8Array): void {
  const disk = fs.openSync(file, 'r+')
  fs.writeSync(disk, bytes, 0, bytes.length, offsetBytes)
  fs.closeSync(disk)
}

t.test('`vra preseed`: only what differs from the image is sent', async t => {
  const { scenario, agent, image, dataBytes } = await handedOver(t)
  const seeded = await scenario.cli('preseed', 'web', '--volume', 'root', '--from', image)
  t.equal(seeded.status, 0, seeded.stderr)
  t.match(seeded.stdout, /^state\tdone$/m)
  const before = await scenario.vpg('web')
  t.match(before.volumes[0]?.preseed, { state: 'ended', file: image, doneBytes: sizeBytes })
  t.equal(before.latestCheckpoint, undefined, 'it is no checkpoint')
  t.equal((await scenario.cli('export', 'web', '--volume', 'root', '--to', scenario.file('early'))).status, 3)
  fs.rmSync(image)

  const places = [4096, 20 * MiB, sizeBytes - 4096]
  change(agent, places)
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed, spanBytes: MiB })
  guest.start()
  await untilSynced(agent)
  await guest.rest()
  const [end] = syncEnds(agent)
  t.equal(end?.kind, 'initial')
  const mostBytes = 4 * MiB // the places, and what the guest has written meanwhile
  t.ok((end?.sentBytes ?? Infinity) <= mostBytes, `${end?.sentBytes} of ${dataBytes} bytes were sent`)
  const checked = new Checked(scenario, agent)
  await checked.tag('synced')
  await guest.runFor(200)
  await checked.tag('later')
  await checked.compareAll(t, 'after the preseed')
  const late = await scenario.cli('preseed', 'web', '--volume', 'root', '--from', agent.disk('root'))
  t.equal(late.status, 2)
  t.match(late.stderr, /includes "root": it is here already/)
})

t.test('an agent that is there waits, and compares when the image is read; a killed VRA goes on with it', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({
    agentId: 'host',
    vpg: 'web',
    volumes: { root: manyRegionsBytes, log: MiB },
  })
  const image = agent.disk('root') // nobody writes to it here
  const random = seededRandom(seed)
  for (let at = 0; at < manyRegionsBytes; at += regionSizeBytes) writeAt(image, at, guestBytes(random, 4 * MiB))
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilAgent(agent, 'it is connected', ({ link }) => link === 'connected')
  await scenario.control.changeVpg('web', { syncRateBytesPerSecond: MiB })
  const job = await scenario.control.startPreseed({ vpg: 'web', volume: 'root', file: image })
  t.equal(job.state, 'running')
  await t.rejects(scenario.control.startPreseed({ vpg: 'web', volume: 'root', file: image }), { code: 'BUSY' })
  await scenario.vra?.kill()
  await scenario.startVra()
  const [volume] = (await scenario.vpg('web')).volumes
  t.equal(volume?.preseed?.file, image, 'it is known after the kill')
  await until('the image is read', async () => (await scenario.vpg('web')).volumes[0]?.preseed?.state === 'ended')
  const [ended] = await scenario.control.preseeds()
  t.match(ended, { state: 'done', sizeBytes: manyRegionsBytes, doneBytes: manyRegionsBytes })
  await scenario.control.changeVpg('web', { syncRateBytesPerSecond: 0 })
  await untilSynced(agent)
  const checked = new Checked(scenario, agent)
  await checked.tag('synced')
  await checked.compareAll(t, 'after the killed preseed')
})

t.test('an image of another size is refused, by name; a cancelled one is compared as far as it came', async t => {
  const { scenario, agent, image } = await handedOver(t)
  fs.truncateSync(image, sizeBytes - MiB)
  const small = await scenario.cli('preseed', 'web', '--volume', 'root', '--from', image)
  t.equal(small.status, 2)
  t.match(small.stderr, /has 49283072 bytes \(47 MiB\), the volume "root" has 50331648 bytes \(48 MiB\)/)
  const own = await scenario.cli('preseed', 'web', '--volume', 'root', '--from', `${scenario.dataDirectory}/x`)
  t.match(own.stderr, /among the VRA's own files/)
  t.match((await scenario.cli('preseed', 'web', '--volume', 'root', '--from', '/nowhere')).stderr, /cannot be opened/)
  fs.copyFileSync(agent.disk('root'), image)
  const { id } = await scenario.control.startPreseed({ vpg: 'web', volume: 'root', file: image })
  const cancelled = await scenario.control.cancelPreseed(id)
  t.not(cancelled.state, 'running')
  t.equal((await scenario.vpg('web')).volumes[0]?.preseed?.state, 'ended')
  await agent.start()
  await untilSynced(agent)
  const checked = new Checked(scenario, agent)
  await checked.tag('synced')
  await checked.compareAll(t, 'after the cancelled preseed')
})
