import t from 'tap'
import type { RecoveryFacts } from '../../src/control/service.ts'
import { missing } from '../support/nbd-tools.ts'
import { boot } from '../support/scenario-boot.ts'
import { play } from '../support/scenario-play.ts'
import { Machines, NbdStage, placeOf, type Mark } from '../support/scenario-recovery.ts'
import { freePort } from '../support/scenario-role.ts'
import { Scenario } from '../support/scenario-site.ts'

// The whole story (scenario-play.ts) with disks that are served over NBD, and home again into files; `npm run soak:recover` has it for the other targets.

t.test('over NBD, at once, and written to', async t => {
  const scenario = await Scenario.make(t, { more: [`live: { port: ${await freePort()} }`] })
  const machines = await Machines.start(scenario)
  const stage = new NbdStage(scenario)
  const first = async ({ tag }: Mark): Promise<void> => {
    const check = 'test -n "$VRA_NBD_app_root" && test "$VRA_VPG" = web'
    const drilled = await scenario.cli('drill', 'web', '--checkpoint', tag, '--check', check)
    t.equal(drilled.status, 0, drilled.stderr)
    const { proven } = (await scenario.vpg('web')).drills
    t.equal(proven?.checkpoint, (await scenario.control.findCheckpoint('web', tag)).checkpoint, 'it is proven')
  }
  const use = async (facts: RecoveryFacts, { tag, disks }: Mark): Promise<Mark> => {
    const written = Buffer.from(disks.get('app-root') ?? '')
    await t.test('a machine boots from it, and writes to it', { skip: missing('qemu-system-x86_64') }, async t => {
      const { hasRun, output } = await boot(placeOf(facts, 'app-root', 'nbd'))
      t.ok(hasRun, output)
      written.copy(written, 512, 0, 512)
    })
    const client = await stage.connect(facts, 'app-root')
    t.equal(client.sizeBytes, written.length)
    t.ok((await client.read(0, 1024)).equals(written.subarray(0, 1024)))
    for (const offsetBytes of [0, 3_146_240, written.length - 1024]) {
      const data = Buffer.alloc(1024, (offsetBytes % 251) + 1)
      await client.write(offsetBytes, data)
      data.copy(written, offsetBytes)
    }
    await client.close()
    return { tag, disks: new Map([...disks, ['app-root', written]]), acknowledged: 0 }
  }
  await play(t, { machines, stage, first, use })
})
