import t, { type Test } from 'tap'
import { ControlClient } from '../../src/control/control.ts'
import type { RecoveryFacts, RecoveryRequest } from '../../src/control/service.ts'
import { nextInWords, recoveryInWords } from '../../src/control/words.ts'
import { nowMicros } from '../support/control-fake.ts'
import { openControl } from '../support/control-open.ts'

async function open(t: Test) {
  const { vra, url } = await openControl(t)
  const [vpg = ''] = [...vra.vpgs.keys()]
  const request: RecoveryRequest = {
    ...{ vpg, kind: 'failover', checkpoint: 'latest', target: 'raw', settings: { directory: '/srv/look' } },
    commitPolicy: { kind: 'none', afterMillis: 3_600_000 },
  }
  return { vra, url, client: new ControlClient(url), request }
}

t.test('a recovery is planned, begun, looked at and decided by the API', async t => {
  const { client, vra, request } = await open(t)
  const plan = await client.planRecovery({ ...request, volumes: ['root'] })
  t.match(plan, { kind: 'failover', vms: [{ name: 'host1' }], settings: { directory: '/srv/look' } })
  t.equal((await client.recoveries()).length, 0)
  const { id } = await client.startRecovery({ ...request, checkpoint: plan.checkpoint })
  t.match(await client.recovery(id), { state: 'ready', things: [{ place: '/srv/look/host1-root.raw' }] })
  t.match(await client.decideRecovery(id, 'commit'), { state: 'committed' })
  await t.rejects(client.decideRecovery(id, 'commit'), { code: 'REQUEST_INVALID' })
  await t.rejects(client.recovery('r-9'), { code: 'NOT_FOUND' })
  t.match(vra.recoveryRequests[0], { volumes: ['root'] })
})

t.test('the request is checked, and has defaults that change nothing by themselves', async t => {
  const { url, vra, request } = await open(t)
  const post = async (body: object) => {
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${url}/v1/recoveries/plan`, { method: 'POST', headers, body: JSON.stringify(body) })
    return { status: response.status, answer: (await response.json()) as { sentence: string } }
  }
  const { vpg } = request
  t.equal((await post({ vpg, kind: 'test', target: 'raw' })).status, 200)
  t.match(vra.recoveryRequests[0], {
    checkpoint: 'latest',
    settings: {},
    commitPolicy: { kind: 'none', afterMillis: 3_600_000 },
  })
  for (const wrong of [
    { vpg, kind: 'restore', target: 'raw' },
    { vpg, kind: 'test', target: 'tape' },
    { vpg, kind: 'test', target: 'raw', commitPolicy: { kind: 'commit', afterMillis: -1 } },
    { vpg, kind: 'test', target: 'raw', force: true },
  ])
    t.equal((await post(wrong)).status, 400)
  const late = await post({ vpg, kind: 'test', target: 'raw', commitPolicy: { kind: 'commit', afterMillis: 1e12 } })
  t.match(late.answer.sentence, /--after/)
})

t.test('the status page and the words say what goes on, and what can be done', async t => {
  const { client, url, vra, request } = await open(t)
  const begun = await client.startRecovery(request)
  const show = (recovery: RecoveryFacts): void => {
    const vpg = vra.vpgs.get(request.vpg)
    if (vpg !== undefined) vpg.status = { ...vpg.status, recoveries: [recovery] }
  }
  show({ ...begun, doneBytes: begun.totalBytes / 2, trouble: 'the store is <away>' })
  const page = await (await fetch(url)).text()
  t.match(page, /<h2>Recoveries<\/h2>/)
  t.match(page, /preparing 50 %/)
  t.match(page, /the store is &lt;away&gt;/)
  const waiting: RecoveryFacts = {
    ...begun,
    ...{ state: 'ready', readyAtMicros: nowMicros - 60e6, policyAtMicros: nowMicros + 120e6 },
    commitPolicy: { kind: 'rollback', afterMillis: 180_000 },
  }
  t.match(
    recoveryInWords(waiting, nowMicros),
    /ready 1 min ago, will be rolled back in 2 min unless you say otherwise$/,
  )
  t.match(
    recoveryInWords({ ...waiting, isPolicyPutOff: true }, nowMicros),
    /rolled back in 2 min unless you say otherwise \(the VRA was not running/,
  )
  t.match(recoveryInWords({ ...waiting, kind: 'test' }, nowMicros), /will be stopped in 2 min/)
  const ofCheck = { outcome: undefined, exitStatus: undefined, output: undefined, checkMillis: undefined }
  const drill = { by: 'person', check: 'fsck', checkedBy: 'client', ...ofCheck } as const
  const drilled: RecoveryFacts = { ...waiting, kind: 'test', drill }
  t.match(recoveryInWords(drilled, nowMicros), /^drill r-1 to .*, being checked, ready 1 min ago$/)
  t.match(nextInWords(waiting), /commit r-1/)
  t.match(nextInWords({ ...waiting, kind: 'test' }), /recover stop r-1/)
  t.equal(nextInWords({ ...waiting, state: 'removing' }), undefined)
})
