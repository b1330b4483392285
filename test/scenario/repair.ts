import * as path from 'node:path'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import { Guest } from '../support/scenario-guest.ts'
import { flipByte, nothingAges } from '../support/scenario-damage.ts'
import { Scenario } from '../support/scenario-site.ts'
import { Checked, fillDisk, syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'

const seed = 20_261_211

t.test('a record that rots before it is in a segment is repaired from the disk, without anybody', async t => {
  const scenario = await Scenario.make(t, { aging: nothingAges })
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: 8 * MiB } })
  fillDisk(agent.disk('root'), seed)
  await scenario.createVpg(agent.plan)
  await agent.start()
  await untilSynced(agent)
  const checked = new Checked(scenario, agent)
  await checked.tag('before')
  const guest = new Guest(await agent.client('root'), { seed, spanBytes: 4 * MiB })
  await guest.runFor(100)
  await scenario.tag('web', 'spoilt')
  await guest.runFor(100)
  await scenario.tag('web', 'behind-it')

  const { lines } = await scenario.control.dump({ what: 'journal', limit: 1000 })
  const batches = lines.filter(({ type, kind }) => type === 'record' && kind === 'batch')
  const record = batches.at(-Math.ceil(batches.length / 4))
  if (record === undefined) return t.fail('no batch in the log')
  await scenario.vra?.kill()
  const log = path.join(scenario.dataDirectory, 'log/0000000000000001.log')
  flipByte(log, Number(record['offsetBytes']) + Number(record['sizeBytes']) - 40)

  const before = syncEnds(agent).length
  await scenario.startVra()
  await untilAgent(agent, 'it has compared', () => syncEnds(agent).length > before)
  t.match(syncEnds(agent).at(-1), { volume: 'root', kind: 'delta' })
  const repaired = await scenario.untilVpg('web', 'it is repaired', ({ state, holes }) => {
    return state === 'protected' && holes.length === 0
  })
  t.equal(repaired.noCheckpointsBecause, undefined)
  await checked.tag('after')
  await checked.compareAll(t, 'after the repair')
  await t.rejects(scenario.exported('web', 'root', 'behind-it'), /withdrawn/)
})
