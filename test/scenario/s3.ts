import t from 'tap'
import { pause, until } from '../support/scenario-role.ts'
import { Scrape } from '../support/scenario-metrics.ts'
import { Guest } from '../support/scenario-guest.ts'
import { diskSizeBytes, Scenario } from '../support/scenario-site.ts'
import { S3Simulator, type Fault, type Operation } from '../support/s3-sim.ts'
import { below, seededRandom } from '../support/wire-samples.ts'

// The whole path with an S3 store that misbehaves now and then.

const seed = 20_261_128
const faults: readonly (readonly [Operation, Fault])[] = [
  ['PutObject', { kind: 'refuse', status: 503, code: 'SlowDown' }],
  ['PutObject', { kind: 'lose-response' }],
  ['PutObject', { kind: 'cut' }],
  ['PutObject', { kind: 'hang' }],
  ['GetObject', { kind: 'truncate-body', sentBytes: 100 }],
  ['GetObject', { kind: 'shorten-body', sentBytes: 50 }],
  ['GetObject', { kind: 'refuse', status: 500, code: 'InternalError' }],
  ['ListObjectsV2', { kind: 'refuse', status: 503, code: 'SlowDown' }],
  ['ListObjectsV2', { kind: 'cut' }],
]

t.test(`an S3 store with faults: slower, never wrong (seed ${seed})`, async t => {
  const random = seededRandom(seed)
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const scenario = await Scenario.make(t, {
    store: `{ kind: s3, bucket: bucket, prefix: vra/, endpoint: '${simulator.endpoint}', forcePathStyle: true, requestTimeoutMillis: 1000 }`,
    environment: { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
  })
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: diskSizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed })
  const references = new Map<string, string>()
  for (let round = 1; round <= 3; round++) {
    guest.start()
    for (let count = 0; count < 5; count++) {
      const [operation, fault] = faults[below(random, faults.length)] ?? faults[0]!
      simulator.failNext(operation, fault)
      await pause(150)
    }
    if (round === 2) {
      await scenario.vra?.kill()
      await scenario.startVra()
    }
    await guest.rest()
    await scenario.tag('web', `round-${round}`)
    references.set(`round-${round}`, agent.reference('root'))
  }

  // The store has too much to do: what is written is acknowledged all the same, few requests wait, and people are told.
  simulator.failWhere(() => ({ kind: 'refuse', status: 503, code: 'SlowDown' }))
  const durable = async (): Promise<number> => (await scenario.vpg('web')).agents[0]?.durable.sequence ?? 0
  const before = await durable()
  await guest.runFor(500)
  const queues = await until('the store puts us off', async () => {
    const status = await scenario.control.status()
    return (status.queues?.load?.throttledCounts.create ?? 0) >= 2 && status.queues
  })
  await until('it is acknowledged', async () => (await durable()) >= before + 200)
  t.ok((queues.load?.waitingCount ?? 99) + (queues.load?.underWayCount ?? 99) <= 16, JSON.stringify(queues))
  t.ok(queues.unsealedRecordCount <= queues.unsealedRecordCountMax)
  t.match((await scenario.cli('status')).stdout, /store says\s+"slow down" to \d+ requests/)
  t.match((await Scrape.of(scenario.controlUrl)).text, /^vra_store_throttled_total\{operation="create"\} [1-9]/m)
  t.match((await scenario.cli('vpg', 'show', 'web')).stdout, /store\s+fails: .*SlowDown/)
  simulator.mend()
  await scenario.tag('web', 'throttled')
  references.set('throttled', agent.reference('root'))

  t.same(guest.failures, [])
  await scenario.untilVpg('web', 'a delta', ({ mirror }) => mirror.deltaCount > 0)
  for (const [operation, fault] of faults) if (operation === 'GetObject') simulator.failNext(operation, fault)
  for (const [tag, reference] of references)
    t.equal(await scenario.differenceAt('web', 'root', tag, reference), undefined, `"${tag}" is right`)
  await scenario.vra?.stop()
  await scenario.startVra()
  for (const [tag, reference] of references)
    t.equal(await scenario.differenceAt('web', 'root', tag, reference), undefined, `"${tag}" is right after a restart`)
  const verify = await scenario.cli('mirror', 'verify')
  t.equal(verify.status, 0, verify.stdout + verify.stderr)
  t.ok(simulator.requestCounts.PutObject > 10)
})
