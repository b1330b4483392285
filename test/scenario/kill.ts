import t from 'tap'
import { pause, until } from '../support/scenario-role.ts'
import { Guest } from '../support/scenario-guest.ts'
import { diskSizeBytes, Scenario } from '../support/scenario-site.ts'
import { seededRandom } from '../support/wire-samples.ts'

// The VRA dies while guests write: they never notice, and nothing that was acknowledged or checkpointed is lost or changed.

const seed = 20_261_122

t.test(`the VRA is killed again and again under load (seed ${seed})`, async t => {
  const random = seededRandom(seed)
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: diskSizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed })
  const references = new Map<string, string>()
  const keep = async (tag: string): Promise<void> => {
    await guest.rest()
    await scenario.tag('web', tag)
    references.set(tag, agent.reference('root'))
  }

  for (let round = 1; round <= 6; round++) {
    const before = guest.writeCount
    guest.start()
    await pause(200 + 1300 * random())
    await until('the guest has written in this round', () => guest.writeCount > before)
    await scenario.vra?.kill()
    await pause(300 * random())
    // Killed while it recovers, now and then.
    if (round % 3 === 0) {
      const vra = scenario.spawnVra()
      await pause(400 * random())
      await vra.kill()
    }
    await scenario.startVra()
    if (round % 2 === 0) await keep(`round-${round}`)
  }
  guest.start()
  await pause(500)
  await keep('end')

  t.same(guest.failures, [], 'no request of the guest failed')
  t.ok(agent.process?.isRunning, 'the agent is the one that was started')
  await scenario.untilProtected('web')
  for (const [tag, reference] of references)
    t.equal(await scenario.differenceAt('web', 'root', tag, reference), undefined, `"${tag}" is equal to the last byte`)
  t.equal(await scenario.differenceAt('web', 'root', 'end', agent.disk('root')), undefined, 'the disk itself as well')
})
