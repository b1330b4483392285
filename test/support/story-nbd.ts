import t from 'tap'
import type { RecoveryFacts } from '../../src/control/service.ts'
import { missing } from './nbd-tools.ts'
import { boot } from './scenario-boot.ts'
import { play } from './scenario-play.ts'
import { Machines, NbdStage, placeOf, type Mark } from './scenario-recovery.ts'
import { freePort } from './scenario-role.ts'
import { Scenario } from './scenario-site.ts'

// See scenario-play.ts; `npm run soak:recover`.

t.test('over NBD, at once, and written to', async t => {
  const scenario = await Scenario.make(t, { more: [`live: { port: ${await freePort()} }`] })
  const machines = await Machines.start(scenario)
  const stage = new NbdStage(scenario)
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
  await play(t, { machines, stage, use })
})
