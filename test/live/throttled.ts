import * as path from 'node:path'
import t from 'tap'
import { newSpoolRoom } from '../../src/image/service.ts'
import { storeReadPatienceMillis } from '../../src/base/limits.ts'
import { MiB } from '../../src/base/units.ts'
import { LiveServer } from '../../src/live/live-server.ts'
import { newSharedLoad, openStore, type StoreConfig } from '../../src/store/store.ts'
import { planIn, sizeBytes, writes } from '../support/image-plan.ts'
import { NbdClient } from '../support/nbd-client.ts'
import { eventually } from '../support/nbd-tools.ts'
import { S3Simulator } from '../support/s3-sim.ts'

// A store that has too much to do, in the middle of a guest's reads: the guest waits, and is never told that its disk is bad.

const credentials = { accessKeyId: 'test', secretAccessKey: 'test' }
const readsAtOnce = 200
const triesOfOthers = 5

t.test('a guest waits while the store puts its reads off, and then has them all', async t => {
  process.env['AWS_ACCESS_KEY_ID'] = credentials.accessKeyId
  process.env['AWS_SECRET_ACCESS_KEY'] = credentials.secretAccessKey
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const directory = path.resolve(t.testdir({ data: {} }))
  const store: StoreConfig = {
    ...{ kind: 's3', bucket: 'bucket', prefix: 'a/', region: 'eu-central-1', endpoint: simulator.endpoint },
    ...{ forcePathStyle: true, checksums: 'when-supported', requestTimeoutMillis: 10_000 },
    ...{ serverSideEncryption: 'bucket-default', kmsKeyId: undefined },
    ...{ sharedLoad: newSharedLoad(), readPatienceMillis: storeReadPatienceMillis },
  }
  const plan = await planIn(directory, store, { credentials })
  const server = new LiveServer(() => undefined)
  t.teardown(() => server.close())
  await server.open({
    ...{ store, dataDirectory: path.join(directory, 'data'), listen: { host: '127.0.0.1', port: 0 } },
    cacheSizeBytes: 16 * MiB,
    spoolRoom: newSpoolRoom(),
  })
  const listen = await server.listen()
  const disk = { volume: 1, exportName: 'm-1/web/root', description: 'm-1', sizeBytes, files: undefined }
  const of = { id: 'm-1', plan, checkpoint: plan.checkpoint.ordinal, disks: [disk] }
  await server.attach({ ...of, scratchSizeBytesMax: 0, isMade: false, scratchId: undefined })
  const client = await NbdClient.open(listen, disk.exportName)

  // Another thread's view of the same bucket: what the daemon shows people.
  const other = await openStore(store, { credentials })
  t.teardown(() => other.close())
  let refusedCount = 0
  simulator.failWhere(({ operation }) => {
    if (operation !== 'GetObject') return undefined
    refusedCount++
    return { kind: 'refuse', status: 503, code: 'SlowDown' }
  })
  const reading = Promise.all(
    Array.from({ length: readsAtOnce }, async (_, index) => {
      const { offsetBytes, data } = writes[index % writes.length]!
      const found = await client.read(offsetBytes, 512)
      return found.equals(Buffer.from(data!.subarray(0, 512)))
    }),
  )
  reading.catch(() => undefined)
  const throttled = (): number => other.loadFacts?.throttledCounts.read ?? 0
  const endMillis = performance.now() + 120_000
  // More than the tries that others have.
  let waitingMax = 0
  while (throttled() <= triesOfOthers && performance.now() < endMillis) {
    await new Promise(resolve => setTimeout(resolve, 20))
    waitingMax = Math.max(waitingMax, (other.loadFacts?.waitingCount ?? 0) + (other.loadFacts?.underWayCount ?? 0))
  }
  t.ok(throttled() > triesOfOthers, `${throttled()} put off`)
  t.ok(waitingMax > 0 && waitingMax <= readsAtOnce, `${waitingMax} wait, of ${readsAtOnce} that guests ask for`)
  simulator.mend()
  t.ok((await reading).every(Boolean), 'every read has its bytes')
  await eventually('all are counted, and what was read ahead has ended, too', () => {
    const { waitingCount, underWayCount } = other.loadFacts ?? {}
    return throttled() === refusedCount && waitingCount === 0 && underWayCount === 0
  })
  await client.close()
})
