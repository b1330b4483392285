import t from 'tap'
import { orderOf, RecoveryWorld } from '../support/recovery-world.ts'

// What a process does of recoveries that have ended before it came.

const { signal } = new AbortController()

t.test(
  'what one that was removed, perhaps elsewhere, has left on this host is looked for; nothing of one that was kept',
  async t => {
    const world = new RecoveryWorld()
    const first = world.start()
    const begin = async (): Promise<string> => {
      const { id } = (await first.start(orderOf('failover'), signal)).record
      t.ok(await world.until(() => world.record(id)?.state === 'ready', 0))
      return id
    }
    const removed = await begin()
    await first.decide(removed, 'rollback')
    t.ok(await world.until(() => world.record(removed)?.state === 'removed'))
    const kept = await begin()
    await first.decide(kept, 'commit')
    t.ok(await world.until(() => world.record(kept)?.state === 'committed'))
    t.strictSame(world.swept, [], 'the process that removed it has')
    await first.close()
    const second = world.start()
    t.strictSame(world.swept, [removed])
    await second.close()
  },
)
