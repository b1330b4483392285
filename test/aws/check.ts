import t from 'tap'
import { checkPermissions, probes } from '../../src/aws/check.ts'
import { callsUsed, policyDocument } from '../../src/aws/policy.ts'
import { ownKeys } from '../../src/aws/tags.ts'
import { AwsWorld, bootableModel, faultsOf, modelVpg } from '../support/aws-world.ts'

const { signal } = new AbortController()
const machine = { instanceType: 'm7i.large', subnet: 'subnet-1' }

/** AWS asks KMS for them in the name of whoever calls it: nobody tries them alone. */
function isOfKeys({ action }: { readonly action: string }): boolean {
  return action.startsWith('kms:')
}

/** What there is in the account, whatever state it is in. */
function inventory({ sim: { account } }: AwsWorld): string {
  const all = [account.snapshots, account.volumes, account.images, account.instances]
  return JSON.stringify(
    all.map(each => [...each.values()].map(({ id, tags }) => [id, ...tags])),
    undefined,
    1,
  )
}

t.test(
  'with the policy that is printed everything can be done, in every way, and undone; the check says so',
  async t => {
    const model = bootableModel()
    const world = await AwsWorld.start(model)
    t.teardown(() => world.close())
    const { policy, check } = {
      policy: policyDocument(world.config(), []),
      check: () => checkPermissions(world.config({ requestTimeoutMillis: 20_000 }), signal),
    }
    world.sim.policy = policy
    const key = `arn:aws:kms:${world.sim.region}:111122223333:key/0a1b`
    world.sim.account.kmsKeys.add(key)
    const before = await check()
    t.strictSame(
      before.filter(({ outcome }) => outcome === 'missing'),
      [],
    )
    t.match(before.find(({ action }) => action === 'ec2:DeleteSnapshot')?.sentence, /no snapshot with the owner's tag/)
    t.equal(inventory(world), '[\n [],\n [],\n [],\n []\n]')

    const tools = world.tools()
    t.teardown(() => tools.close())
    const standby = world.standbys(tools, { snapshotKeys: { ofAll: key, ofVolumes: {} } })
    const checkpoint = model.checkpoint()
    standby.engine.changed(modelVpg)
    await world.until(() => world.advances.length === 1)
    const swapped = { ...machine, start: 'root-swap', helperImage: world.sim.addStockImage('windows') }
    for (const [index, settings] of [swapped, machine].entries()) {
      const held = {
        record: world.record(checkpoint, { machine: settings, volumes: { kmsKey: key } }, `r-00000000000${index}`),
      }
      await world.recoveries(tools).prepare(world.context(held, signal))
      t.strictSame(faultsOf(world, held.record), [])
      if (settings === machine) break
      await world.recoveries(tools).remove(world.context(held, signal))
      t.strictSame(world.sim.account.tagged(ownKeys.recovery, held.record.id), [])
    }

    const there = inventory(world)
    const untried = (await check()).filter(({ outcome }) => outcome !== 'allowed').map(({ action }) => action)
    const ofKeys = callsUsed.filter(isOfKeys).map(({ action }) => action)
    t.strictSame(untried, [...ofKeys, 'iam:PassRole'], 'what needs something of its own to be tried on has it now')
    // Those that read are tried in the same way, all of them; one of them is below.
    for (const { action, isOptional } of callsUsed.filter(
      each => !each.action.startsWith('ec2:Describe') && !isOfKeys(each),
    )) {
      const without = policy.Statement.map(each => ({ ...each, Action: each.Action.filter(other => other !== action) }))
      world.sim.policy = { Statement: without }
      const missing = (await check()).filter(({ outcome }) => outcome === 'missing' || outcome === 'absent')
      t.strictSame(
        missing.map(each => [each.action, each.outcome]),
        [[action, isOptional === true ? 'absent' : 'missing']],
      )
    }
    t.equal(inventory(world), there, 'nothing has come of it')
    const withoutKeys = policy.Statement.filter(({ Action }) => !Action.some(action => action.startsWith('kms:')))
    world.sim.policy = { Statement: withoutKeys }
    const refused = { record: world.record(checkpoint, { machine, volumes: { kmsKey: key } }, 'r-000000000009') }
    await t.rejects(world.recoveries(tools).prepare(world.context(refused, signal)), { code: 'CLOUD_REFUSED' })
    world.sim.policy = undefined
    world.sim.denied = ['DescribeSubnets']
    t.match(
      (await check()).filter(({ outcome }) => outcome === 'missing'),
      [{ action: 'ec2:DescribeSubnets', why: 'plans', sentence: /UnauthorizedOperation/ }],
    )
    await standby.kill()
  },
)

t.test(
  'every call in the table has a way to be tried; credentials that nobody knows are no missing permission',
  async t => {
    t.strictSame(
      Object.keys(probes).sort(),
      callsUsed
        .filter(each => !isOfKeys(each))
        .map(({ action }) => action)
        .sort(),
    )
    const world = await AwsWorld.start(bootableModel(), { accessKeyId: 'another' })
    await t.rejects(checkPermissions(world.config({ requestTimeoutMillis: 20_000 }), signal), {
      code: 'CLOUD_REFUSED',
      message: /AuthFailure/,
    })
    await world.close()
  },
)
