import t from 'tap'
import { realDisk, type Disk } from '../../src/disk/disk.ts'
import { Site } from '../support/agent-site.ts'
import { eventually } from '../support/nbd-tools.ts'

t.test('guests write on while the state directory is full, and the link comes back when there is room', async t => {
  let full = false
  const disk: Disk = {
    ...realDisk,
    open: (file, mode) => {
      if (full && mode === 'create')
        throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
      return realDisk.open(file, mode)
    },
  }
  const site = await Site.create(t.testdir(), ['a'], 1024 * 1024)
  const agent = await site.start({}, { disk })
  await site.untilExact(agent)
  const client = await site.client(agent, 'a')
  await client.write(0, Buffer.alloc(4096, 1))
  await eventually('the first write is acknowledged', () => agent.status().queuedRecords === 0)
  full = true
  site.vra.cut()
  await eventually('a session fails', () => site.told.includes('link: DISK_FAILED'))
  await client.write(4096, Buffer.alloc(4096, 2))
  t.ok((await client.read(4096, 4096)).equals(Buffer.alloc(4096, 2)), 'the guest has its disk')
  full = false
  await eventually(
    'the second write is acknowledged',
    () => agent.status().link === 'connected' && agent.status().queuedRecords === 0,
  )
  await client.close()
  await agent.close()
  await site.vra.kill()
  t.same(site.differences(), [])
  t.same(site.vra.faults, [])
})
