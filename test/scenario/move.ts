import * as fs from 'node:fs'
import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { RecoveryFacts, RecoveryState } from '../../src/control/service.ts'
import { firstDifference } from '../../src/demo/compare.ts'
import { Guest } from '../support/scenario-guest.ts'
import { until } from '../support/scenario-role.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'
import { agentStatus, fillDisk, syncEnds, untilAgent, untilSynced } from '../support/scenario-sync.ts'

// Machines that move: there, back again because somebody changed their mind, there for good, and home. At every step what runs is what ran
// before, to the last byte that a guest was answered.

const seed = 20_261_126
const sizeBytes = 24 * MiB

t.test('a move loses nothing; what was moved is protected where it runs, and moves home', async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const home = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  fillDisk(home.disk('root'), seed)
  await scenario.createVpg(home.plan)
  await home.start()
  await untilSynced(home)
  const guest = new Guest(await home.client('root'), { seed })
  guest.start()
  await scenario.tag('web', 'before')

  // A test beside the running machines, while they write.
  const test = await begin(scenario, 'test', 'before')
  const shown = await untilState(scenario, test, 'ready')
  t.equal(shown.things.length, 1)
  const exported = await scenario.exported('web', 'root', 'before')
  t.equal(await firstDifference(placeOf(shown), exported), undefined, 'a test is the checkpoint')
  await scenario.control.decideRecovery(test.id, 'stop')
  await untilState(scenario, test, 'removed')
  t.notOk(fs.existsSync(placeOf(shown)), 'nothing of it is left')
  t.same(guest.failures, [], 'the machines did not feel it')

  // Moved, while they write: writes end, none that was answered is lost.
  const first = await begin(scenario, 'move', 'latest')
  const moved = await untilState(scenario, first, 'ready')
  await guest.rest()
  t.match(guest.failures[0], /failed: 1$/, 'guests are refused from some moment on')
  t.equal(await firstDifference(placeOf(moved), home.disk('root')), undefined, 'what was moved is what was there')
  t.match((await scenario.vpg('web')).quiescedBy, first.id)

  // Not yet: all as it was.
  await scenario.control.decideRecovery(first.id, 'rollback')
  await untilState(scenario, first, 'removed')
  await untilAgent(home, 'guests write again', ({ quiescedBy }) => quiescedBy === '')
  const again = new Guest(await home.client('root'), { seed: seed + 1 })
  await again.runFor(200)
  t.same(again.failures, [])

  // For good.
  const second = await begin(scenario, 'move', 'latest')
  const there = await untilState(scenario, second, 'ready')
  t.equal(await firstDifference(placeOf(there), home.disk('root')), undefined)
  await scenario.control.decideRecovery(second.id, 'commit')
  await untilState(scenario, second, 'committed')
  t.equal((await scenario.vpg('web')).incarnation, 2)
  const refused = await untilAgent(home, 'the old disks are refused', ({ refusal }) => refusal !== undefined)
  t.match(refused.refusal, { code: 'IDENTITY_REFUSED', sentence: /incarnation 2/ })
  t.equal(refused.quiescedBy, second.id, 'and stay as they are')
  await home.process?.stop()

  // Protected where it runs: only what differs is sent, which is nothing.
  const away = await runOn(scenario, placeOf(there), 'away')
  await untilSynced(away)
  const [sync] = syncEnds(away)
  t.equal(sync?.kind, 'delta')
  t.equal(sync?.sentBytes, 0, 'the VRA has it all')
  const abroad = new Guest(await away.client('root'), { seed: seed + 2 })
  await abroad.runFor(300)
  t.same(abroad.failures, [])
  await scenario.tag('web', 'abroad')
  t.equal(await scenario.differenceAt('web', 'root', 'abroad', away.reference('root')), undefined)
  t.equal((await scenario.control.findCheckpoint('web', 'before')).tags?.[0], 'before', 'history goes on')

  // Home.
  const third = await begin(scenario, 'move', 'latest')
  const back = await untilState(scenario, third, 'ready')
  t.equal(await firstDifference(placeOf(back), away.disk('root')), undefined)
  await scenario.control.decideRecovery(third.id, 'commit')
  await untilState(scenario, third, 'committed')
  await away.process?.stop()
  const again3 = await runOn(scenario, placeOf(back), 'home')
  await untilSynced(again3)
  t.match(await agentStatus(again3), { link: 'connected', quiescedBy: '' })
  const last = new Guest(await again3.client('root'), { seed: seed + 3 })
  await last.runFor(100)
  await scenario.tag('web', 'home')
  t.equal(await scenario.differenceAt('web', 'root', 'home', again3.reference('root')), undefined)
})

async function begin(scenario: Scenario, kind: 'test' | 'move', checkpoint: string): Promise<RecoveryFacts> {
  const directory = scenario.file(kind)
  fs.mkdirSync(directory)
  return scenario.control.startRecovery({
    ...{ vpg: 'web', kind, checkpoint, target: 'raw', settings: { directory } },
    commitPolicy: { kind: 'none', afterMillis: 60_000 },
  })
}

function untilState(scenario: Scenario, { id }: RecoveryFacts, state: RecoveryState): Promise<RecoveryFacts> {
  return until(`recovery ${id} is ${state}`, async () => {
    const facts = await scenario.control.recovery(id)
    if (facts.failure !== undefined && state !== 'removed') throw new Error(facts.failure.sentence)
    return facts.state === state && facts
  })
}

function placeOf({ things }: RecoveryFacts): string {
  return things.find(({ volume }) => volume === 'root')?.place ?? ''
}

/** An agent of the same name where the recovered machine runs, which knows nothing yet. */
async function runOn(scenario: Scenario, disk: string, fresh: string): Promise<AgentSite> {
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes }, fresh })
  fs.rmSync(agent.disk('root'))
  fs.renameSync(disk, agent.disk('root'))
  await agent.start()
  return agent
}
