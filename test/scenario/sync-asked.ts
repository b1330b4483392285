import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'
import { agentStatus, Checked, fillDisk, syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'
import { guestBytes, seededRandom } from '../support/wire-samples.ts'

// What an agent cannot know is compared by hashes, and what people ask for on the command line is done.

const seed = 20_261_128
const sizeBytes = 32 * MiB
const comparedBytes = 64 * KiB

async function syncedSite(t: Test) {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  const dataBytes = fillDisk(agent.disk('root'), seed)
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent)
  const checked = new Checked(scenario, agent)
  const guest = new Guest(await agent.client('root'), { seed })
  await guest.runFor(200)
  await checked.tag('before')
  return { scenario, agent, checked, guest, dataBytes }
}

/** Writes to the disk itself, as somebody does who does not know of the agent. */
function writeBehind(agent: AgentSite, places: readonly number[]): void {
  const disk = fs.openSync(agent.disk('root'), 'r+')
  const bytes = guestBytes(seededRandom(places.length), 4 * KiB)
  for (const at of places) fs.writeSync(disk, bytes, 0, bytes.length, at)
  fs.closeSync(disk)
}

t.test('a disk that was changed while its agent was stopped: the blocks that differ are sent', async t => {
  const { scenario, agent, checked } = await syncedSite(t)
  t.equal(await agent.process?.stop(), 0)
  const places = [4096, 5 * MiB + 4096, 9 * MiB, sizeBytes - 4096]
  writeBehind(agent, places)
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed: seed + 1, spanBytes: MiB, pauseMillis: 20 })
  guest.start()
  await untilSynced(agent)
  await guest.rest()
  t.same(guest.failures, [])
  const [end] = syncEnds(agent)
  t.equal(end?.kind, 'delta')
  const mostBytes = MiB + places.length * comparedBytes // what the guest has just written may be sent too
  t.ok((end?.sentBytes ?? 0) >= comparedBytes, 'something differed')
  t.ok((end?.sentBytes ?? Infinity) <= mostBytes, `${end?.sentBytes} bytes were sent of a disk of ${sizeBytes}`)
  await checked.tag('after')
  await checked.compareAll(t, 'after the delta synchronisation')
  await scenario.untilProtected('web')
})

t.test('`vra sync`: --delta finds what was changed behind a running agent, --full sends all', async t => {
  const { scenario, agent, checked, dataBytes } = await syncedSite(t)
  const ask = async (...argv: string[]) => {
    const before = syncEnds(agent).length
    const asked = await scenario.cli('sync', 'web', ...argv)
    t.equal(asked.status, 0, asked.stderr)
    await untilAgent(agent, 'it has synchronised', () => syncEnds(agent).length > before)
    await untilSynced(agent)
    return syncEnds(agent).at(-1)
  }
  t.match(await ask('--delta'), { kind: 'delta', sentBytes: 0, doneBytes: sizeBytes }, 'nothing differs')
  await checked.tag('same')
  writeBehind(agent, [3 * MiB])
  t.match(await ask('--delta', '--volume', 'root'), { kind: 'delta', sentBytes: comparedBytes })
  await checked.tag('compared')
  const full = await ask('--full')
  t.equal(full?.kind, 'full')
  t.ok((full?.sentBytes ?? 0) >= dataBytes / 2 && (full?.doneBytes ?? 0) === sizeBytes, `${full?.sentBytes} bytes`)
  await checked.tag('full')
  await checked.compareAll(t, 'after each of them')
  t.equal((await agentStatus(agent)).stream, 'exact')
})
