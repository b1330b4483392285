import * as path from 'node:path'
import t from 'tap'
import { isAllowed } from '../support/aws-sim/policy.ts'
import { newSpoolRoom } from '../../src/image/service.ts'
import { AwsTarget } from '../../src/aws/aws.ts'
import { memoryOf } from '../../src/aws/memory.ts'
import { callsUsed, policyDocument } from '../../src/aws/policy.ts'
import { ownKeys } from '../../src/aws/tags.ts'
import { AwsWorld, Model } from '../support/aws-world.ts'
import { planIn, writes } from '../support/image-plan.ts'

const { signal } = new AbortController()

t.test('through the threads a volume of a store becomes one of AWS, and what is remembered outlives them', async t => {
  const directory = path.resolve(t.testdir())
  const plan = await planIn(directory)
  const world = await AwsWorld.start(new Model({ 1: 512 }), { nowMillis: () => performance.now() * 50 })
  t.teardown(() => world.close())
  const store = { kind: 'directory', directory: path.join(directory, 'store') } as const
  const target = new AwsTarget({
    config: world.config({ putThreads: 2, requestTimeoutMillis: 20_000 }),
    image: { store, dataDirectory: directory, cacheSizeBytes: 2 ** 20 } as never,
    spoolRoom: newSpoolRoom(),
    openImage: () => Promise.resolve(plan),
    closeImage: () => Promise.resolve(),
    standbyOf: () => undefined,
    suspendStandby: () => Promise.resolve(() => undefined),
    told: () => undefined,
  })
  t.teardown(() => target.close())
  const settings = { availabilityZone: 'eu-central-1a', machine: { start: 'nothing' } }
  const held = { record: world.record(plan.checkpoint, settings) }
  const definition = { ...world.model.definition(), volumes: [{ number: 1, name: 'disk1', sizeBytes: 1, stream: 1 }] }
  let toldBytes = 0
  const context = { ...world.context(held, signal), definition }
  Object.defineProperty(context, 'record', { get: () => held.record })
  context.openPlan = () => Promise.resolve(plan)
  context.progress = (_volume, doneBytes) => (toldBytes = Math.max(toldBytes, doneBytes))
  await target.prepare(context)
  const { volume = '' } = memoryOf(held.record.memory).volumes[1] ?? {}
  const { blocks, sizeGiB } = world.sim.account.volumes.get(volume)!
  t.equal(sizeGiB, 4)
  for (const { offsetBytes, data } of writes) {
    const found = Buffer.concat(
      [0, 1].map(more => blocks.get(Math.floor(offsetBytes / 524_288) + more) ?? Buffer.alloc(524_288)),
    ).subarray(offsetBytes % 524_288)
    t.ok(found.subarray(0, data!.length).equals(data!), `at ${offsetBytes}`)
  }
  t.ok(toldBytes > 0)
  t.match(target.things(held.record, definition), [{ kind: 'ebs-volume', place: volume }, { kind: 'ebs-snapshot' }])
  await target.remove(context)
  t.strictSame(world.sim.account.tagged(ownKeys.recovery, held.record.id), [])
  for (const call of new Set(world.sim.calls))
    t.ok(
      callsUsed.some(({ action }) => action.endsWith(`:${call}`)),
      `${call} is in the table of calls`,
    )
})

t.test(
  'every call that is in the table is allowed by one statement, and writing to what is there only by its tag',
  t => {
    const tagKeys = { ec2: 'E', ebs: 'B', vpc: 'V', s3: 'S' }
    const { Statement } = policyDocument({ region: 'eu-central-1', siteId: 'site-7', tagKeys }, [])
    for (const { action, scope, key } of callsUsed) {
      const allowing = Statement.filter(({ Action }) => Action.includes(action))
      t.equal(allowing.length, scope === 'tagging' ? 3 : scope === 'attaching' ? 2 : 1, action)
      if (scope === 'tagging')
        for (const { Condition } of allowing) t.match(JSON.stringify(Condition), /ec2:CreateAction|aws:ResourceTag/)
      const condition = JSON.stringify(allowing[0]?.Condition)
      if (scope === 'own') t.match(condition, `"aws:ResourceTag/${key === 'ec2' ? 'E' : 'B'}":"site-7"`)
      if (scope === 'attaching')
        t.strictSame(
          allowing.map(({ Resource, Condition }) => [
            Resource,
            /aws:ResourceTag.[BE]/.exec(JSON.stringify(Condition))?.[0],
          ]),
          [
            ['arn:aws:ec2:eu-central-1:*:volume/*', 'aws:ResourceTag/B'],
            ['arn:aws:ec2:eu-central-1:*:instance/*', 'aws:ResourceTag/E'],
          ],
        )
      if (scope === 'making') t.match(condition, '"aws:RequestTag/B":"site-7"')
    }
    const attached = (volume: string, instance: string): boolean =>
      isAllowed(
        { Statement },
        {
          ...{ action: 'ec2:AttachVolume', region: 'eu-central-1', requestTags: new Map() },
          resources: [
            { id: 'vol-1', tags: new Map([['B', volume]]) },
            { id: 'i-1', tags: new Map([['E', instance]]) },
          ],
        },
      )
    t.ok(attached('site-7', 'site-7'))
    t.notOk(attached('site-7', 'another'), "nothing is attached to somebody else's machine")
    t.notOk(attached('another', 'site-7'), "nor somebody else's volume")
    t.notMatch(JSON.stringify(Statement), /PassRole/, 'no machine can be given a role that nobody has named')
    const given = policyDocument({ region: 'eu-central-1', siteId: 'site-7', tagKeys }, [
      'web',
      'arn:aws:iam::1:role/db',
    ])
    t.match(given.Statement.at(-1), {
      Action: ['iam:PassRole'],
      Resource: ['arn:aws:iam::*:role/web', 'arn:aws:iam::1:role/db'],
    })
    t.end()
  },
)
