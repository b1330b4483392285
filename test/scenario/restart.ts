import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import type { CheckpointFacts } from '../../src/control/service.ts'
import { Guest } from '../support/scenario-guest.ts'
import { diskSizeBytes, Scenario, type AgentSite } from '../support/scenario-site.ts'
import { seededRandom } from '../support/wire-samples.ts'

// Stopping and starting: an index that is gone or damaged gives the same answers, a clean stop loses nothing, a crashed agent says so.

const seed = 20_261_124

async function protectedSite(t: Parameters<typeof Scenario.make>[0]) {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: diskSizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  const references = new Map<string, string>()
  const writeAndTag = async (tag: string, guest: Guest): Promise<void> => {
    await guest.runFor(300)
    t.same(guest.failures, [])
    await scenario.tag('web', tag)
    references.set(tag, agent.reference('root'))
  }
  const compareAll = async (when: string): Promise<void> => {
    for (const [tag, reference] of references)
      t.equal(await scenario.differenceAt('web', 'root', tag, reference), undefined, `"${tag}" is right ${when}`)
  }
  return { scenario, agent, writeAndTag, compareAll }
}

async function allCheckpoints(scenario: Scenario): Promise<readonly CheckpointFacts[]> {
  const list = await scenario.control.listCheckpoints({ vpg: 'web', limit: 1000, order: 'oldest-first' })
  return list.checkpoints
}

function indexFiles(scenario: Scenario): string[] {
  return fs
    .readdirSync(scenario.dataDirectory)
    .filter(name => name.startsWith('journal-index.sqlite'))
    .map(name => path.join(scenario.dataDirectory, name))
}

t.test('an index that is deleted, or damaged, gives the same answers after a restart', async t => {
  const { scenario, agent, writeAndTag, compareAll } = await protectedSite(t)
  const guest = new Guest(await agent.client('root'), { seed })
  await writeAndTag('first', guest)
  await scenario.untilVpg('web', 'something is in a delta', ({ mirror }) => mirror.deltaCount > 0)
  await writeAndTag('second', guest)
  const random = seededRandom(seed)

  const harms: Readonly<Record<string, () => void>> = {
    deleted: () => indexFiles(scenario).forEach(file => fs.rmSync(file)),
    'with a changed page': () => {
      for (const file of indexFiles(scenario).filter(name => name.endsWith('.sqlite'))) {
        const bytes = fs.readFileSync(file)
        for (let at = 4096; at < bytes.length; at++) if (at % 4096 < 2048) bytes[at] = Math.floor(256 * random())
        fs.writeFileSync(file, bytes)
      }
    },
    'cut short': () => indexFiles(scenario).forEach(file => fs.truncateSync(file, fs.statSync(file).size >> 1)),
    'not an index at all': () => indexFiles(scenario).forEach(file => fs.writeFileSync(file, 'not a database\n')),
  }
  for (const [harm, doIt] of Object.entries(harms)) {
    const [checkpoints, { tags }] = [await allCheckpoints(scenario), await scenario.vpg('web')]
    t.equal(await scenario.vra?.stop(), 0, 'SIGTERM ends it with status 0')
    t.ok(indexFiles(scenario).length > 0)
    doIt()
    const vra = await scenario.startVra()
    t.match(vra.output, /"indexBegunAnew"/, `the index is ${harm}, and the log says that it was begun anew`)
    t.strictSame((await allCheckpoints(scenario)).slice(0, checkpoints.length), checkpoints, 'the same checkpoints')
    t.strictSame((await scenario.vpg('web')).tags, tags, 'the same tags')
    await compareAll(`with the index ${harm}`)
  }
  await scenario.untilConnected('web')
  await writeAndTag('afterwards', guest)
  await compareAll('in the end')
})

async function stopBoth(scenario: Scenario, agent: AgentSite): Promise<readonly unknown[]> {
  return Promise.all([scenario.vra?.stop(), agent.process?.stop()])
}

t.test(
  'SIGTERM stops both roles, and a start continues exactly; a crashed agent sends what the VRA may lack',
  async t => {
    const { scenario, agent, writeAndTag, compareAll } = await protectedSite(t)
    await writeAndTag('one', new Guest(await agent.client('root'), { seed: seed + 1 }))
    t.same(await stopBoth(scenario, agent), [0, 0], 'both at once')
    await Promise.all([scenario.startVra(), agent.start()])
    const vpg = await scenario.untilConnected('web')
    t.equal(vpg.state, 'protected', 'nothing needs a sync')
    await writeAndTag('two', new Guest(await agent.client('root'), { seed: seed + 2 }))
    await compareAll('after a clean restart of both')

    t.equal(await agent.process?.stop(), 0, 'the agent first')
    t.match(await scenario.untilVpg('web', 'the agent is away', ({ state }) => state !== 'protected'), {
      state: 'waiting-for-agent',
    })
    t.equal(await scenario.vra?.stop(), 0)
    await scenario.startVra()
    await agent.start()
    await scenario.untilConnected('web')
    const guest = new Guest(await agent.client('root'), { seed: seed + 3 })
    await writeAndTag('three', guest)
    await scenario.untilProtected('web')

    guest.start()
    await scenario.untilVpg('web', 'writes arrive', ({ writesPerSecond }) => writesPerSecond > 0)
    await agent.process?.kill()
    await guest.rest()
    await agent.start()
    await scenario.untilProtected('web')
    await compareAll('after the kill of the agent')
    const again = await agent.client('root')
    await again.write(0, Buffer.alloc(4096, 7))
    t.same((await again.read(0, 4096))[9], 7, 'its guests go on')
    await scenario.tag('web', 'after-the-kill')
    t.equal(await scenario.differenceAt('web', 'root', 'after-the-kill', agent.disk('root')), undefined)
  },
)
