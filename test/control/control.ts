import { request as httpRequest } from 'node:http'
import t, { type Test } from 'tap'
import { Failure, failedWith, reactionTo, type FailureCode } from '../../src/base/failure.ts'
import { densitiesDefault } from '../../src/timeline/densities.ts'
import { GiB } from '../../src/base/units.ts'
import { ControlApi, ControlClient } from '../../src/control/control.ts'
import type { CreateVpgRequest } from '../../src/control/service.ts'
import { FakeVra, nowMicros, populated } from '../support/control-fake.ts'

async function open(
  t: Test,
  vra: FakeVra = populated(),
): Promise<{ vra: FakeVra; url: string; client: ControlClient; bugs: unknown[] }> {
  const bugs: unknown[] = []
  const metrics = async function* (): AsyncGenerator<string> {
    yield '# HELP vra_up x\n'
  }
  const api = await ControlApi.open({ host: '127.0.0.1', port: 0, vra, metrics, onBug: error => bugs.push(error) })
  t.teardown(() => api.close())
  return { vra, url: api.url, client: new ControlClient(api.url), bugs }
}

const vpg: CreateVpgRequest = {
  name: 'files',
  volumes: [{ name: 'root', sizeBytes: GiB }],
  agents: ['host9'],
  historyMillis: 3_600_000,
  checkpointIntervalMillis: 5000,
}

/** Sends exactly these headers: fetch would put its own. */
function rawRequest(url: string, method: string, headers: Record<string, string>, body = ''): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers, agent: false }, response => {
      response.resume()
      response.once('end', () => resolve(response.statusCode ?? 0))
    })
    request.once('error', reject)
    request.end(body)
  })
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'no failure',
    (error: unknown) => (error instanceof Failure ? error.code : String(error)),
  )
}

t.test('the client sees over HTTP what the daemon says', async t => {
  const { vra, client } = await open(t)
  const overWire = (value: unknown): unknown => JSON.parse(JSON.stringify(value))
  t.strictSame(await client.status(), overWire(await vra.status()))
  t.strictSame(await client.listVpgs(), overWire(await vra.listVpgs()))
  t.equal((await client.createVpg(vpg)).name, 'files')
  t.equal((await client.changeVpg('files', { historyMillis: 7_200_000 })).historyMillis, 7_200_000)
  const changed = await client.changeVpg('files', { paused: true, syncRateBytesPerSecond: 50_000_000 })
  t.match(changed, { paused: true, syncRateBytesPerSecond: 50_000_000 })
  await client.addVolume('files', { name: 'more', sizeBytes: 4096, agent: 'host9' })
  const grown = await client.growVolume('files', 'more', { sizeBytes: 8192 })
  t.match(grown.volumes.at(-1), { name: 'more', sizeBytes: 8192, agent: 'host9' })
  t.notOk((await client.removeVolume('files', 'more')).volumes.some(({ name }) => name === 'more'))
  await client.requestSync('files', { kind: 'delta' })
  await client.deleteVpg('files')
  t.equal(await codeOf(client.showVpg('files')), 'UNKNOWN_VPG')

  const tagged = await client.tagCheckpoint({ vpg: 'web', tag: 'before', checkpoint: '10m ago' })
  t.strictSame(tagged.tags, ['before'])
  t.strictSame(await client.findCheckpoint('web', 'before'), tagged)
  t.strictSame(
    (await client.listCheckpoints({ vpg: 'web', limit: 10, order: 'newest-first', tagged: true })).checkpoints,
    [tagged],
  )
  await client.untagCheckpoint('web', 'before')
  t.equal(await codeOf(client.findCheckpoint('web', 'before')), 'CHECKPOINT_MISSING')

  const job = await client.startExport({
    vpg: 'web',
    volume: 'root',
    checkpoint: 'latest',
    file: '/srv/a.img',
    overwrite: false,
  })
  t.equal((await client.export(job.id)).doneBytes, 10 * GiB)
  t.equal((await client.cancelExport(job.id)).state, 'cancelled')
  t.equal((await client.exports()).length, 1)
  const seed = await client.startPreseed({ vpg: 'web', volume: 'root', file: '/mnt/root.img' })
  t.equal((await client.preseed(seed.id)).state, 'done')
  t.equal((await client.cancelPreseed(seed.id)).state, 'cancelled')
  t.equal((await client.preseeds()).length, 1)
  const verify = await client.startVerify({ what: 'mirror', vpg: 'web' })
  t.equal((await client.verify(verify.id)).state, 'done')
  t.equal((await client.verifies()).length, 1)
  t.equal((await client.dump({ what: 'journal', limit: 10, after: '240' })).next, undefined)
})

t.test('a walk over pages meets every checkpoint once, in order, within its times', async t => {
  const { client } = await open(t)
  const seen: string[] = []
  const query = {
    vpg: 'web',
    limit: 1000,
    order: 'oldest-first',
    fromTimestampMicros: nowMicros - 7_200_000_000,
  } as const
  for (let after: string | undefined, more = true; more;) {
    const page = await client.listCheckpoints({ ...query, ...(after === undefined ? {} : { after }) })
    seen.push(...page.checkpoints.map(checkpoint => checkpoint.checkpoint))
    after = seen.at(-1)
    more = page.more
  }
  t.equal(seen.length, 1440)
  t.equal(new Set(seen).size, 1440)
  t.equal(seen.at(-1), (await client.findCheckpoint('web', 'latest')).checkpoint)
})

t.test('every failure keeps its code over HTTP, with the status of its reaction', async t => {
  const { vra, url, client } = await open(t)
  const byReaction = {
    refuse: [400, 403, 404, 409, 422],
    missing: [404],
    shed: [503],
    retry: [503],
    cancelled: [503],
    quarantine: [500],
    'stand-down': [409],
  }
  for (const code of Object.keys(reactionTo) as FailureCode[]) {
    vra.failNext = new Failure(code, `a sentence about ${code}`, { offsetBytes: 7 })
    const response = await fetch(`${url}/v1/status`)
    t.ok(byReaction[reactionTo[code]].includes(response.status), `${code} is ${response.status}`)
    t.equal(response.headers.has('retry-after'), response.status === 503, code)
    t.strictSame(await response.json(), { code, sentence: `a sentence about ${code}`, details: { offsetBytes: 7 } })
    vra.failNext = new Failure(code, `a sentence about ${code}`)
    await t.rejects(client.status(), { code, message: `a sentence about ${code}` })
  }
})

t.test('a bug is told to the daemon, and its insides to nobody', async t => {
  const { vra, url, client, bugs } = await open(t)
  vra.failNext = new Error('secret detail')
  const response = await fetch(`${url}/v1/status`)
  t.equal(response.status, 500)
  t.notMatch(await response.text(), /secret detail/)
  t.match(bugs, [{ message: 'secret detail' }])
  vra.failNext = new Error('secret detail')
  await t.rejects(client.status(), { message: /fault of its own/ })
})

t.test('requests that cannot be meant are refused with all that is wrong', async t => {
  const { client, url } = await open(t)
  const cases: [string, () => Promise<unknown>, RegExp][] = [
    [
      'an odd size',
      () => client.createVpg({ ...vpg, volumes: [{ name: 'a', sizeBytes: 1000 }] }),
      /volumes.0.sizeBytes .*must be a multiple of 512/,
    ],
    ['no volumes', () => client.createVpg({ ...vpg, volumes: [] }), /volumes must be 1 entry or more/],
    [
      'the same volume twice',
      () => client.createVpg({ ...vpg, volumes: [...vpg.volumes, ...vpg.volumes] }),
      /names a volume twice/,
    ],
    [
      'a bad name and a short history',
      () => client.createVpg({ ...vpg, name: '-x', historyMillis: 1 }),
      /name.*historyMillis .*must be/,
    ],
    [
      'a history and a retention',
      () => client.changeVpg('web', { historyMillis: 7_200_000, retention: densitiesDefault }),
      /not both/,
    ],
    [
      'a retention that begins thinned',
      () => client.changeVpg('web', { retention: [{ everyMillis: 60_000, forMillis: 3_600_000 }] }),
      /retention .*must begin with a time for which every checkpoint is kept/,
    ],
    ['a tag for no time', () => client.tagCheckpoint({ vpg: 'web', tag: 'x', keepMillis: 0 }), /keepMillis/],
    ['a change of nothing', () => client.changeVpg('web', {}), /changes nothing/],
    [
      'a page beyond the bound',
      () => client.listCheckpoints({ vpg: 'web', limit: 1001, order: 'newest-first' }),
      /limit must be/,
    ],
    [
      'a relative path',
      () => client.startExport({ vpg: 'web', volume: 'root', checkpoint: 'latest', file: 'a.img', overwrite: false }),
      /absolute path/,
    ],
    [
      'a relative path of an image',
      () => client.startPreseed({ vpg: 'web', volume: 'root', file: 'a.img' }),
      /absolute path/,
    ],
    [
      'a tag that looks like an id',
      () => client.tagCheckpoint({ vpg: 'web', tag: '3.1204' }),
      /tag must begin with a letter/,
    ],
    ['a tag named latest', () => client.tagCheckpoint({ vpg: 'web', tag: 'latest' }), /tag must/],
    ['a name that climbs', () => client.showVpg('../status'), /vpg must be letters/],
  ]
  for (const [what, request, sentence] of cases)
    await t.rejects(request(), { code: 'REQUEST_INVALID', message: sentence }, what)
  t.equal((await fetch(`${url}/v1/vpgs/web/checkpoints?from=yesterday`)).status, 400)
  t.equal((await fetch(`${url}/v1/vpgs/web/checkpoints?limt=5`)).status, 400, 'an unknown parameter')
  t.equal((await fetch(`${url}/v1/nothing`)).status, 404)
  const post = async (body: string, type: string): Promise<number> =>
    (await fetch(`${url}/v1/vpgs`, { method: 'POST', body, headers: { 'content-type': type } })).status
  t.equal(await post('{"name":', 'application/json'), 400)
  t.equal(await post(JSON.stringify(vpg), 'text/plain'), 415, 'what a form of any web page can send is not taken')
  t.equal(await post(JSON.stringify({ ...vpg, padding: 'x'.repeat(300_000) }), 'application/json'), 413)
})

t.test('what a web page could make a browser send is refused', async t => {
  const { url } = await open(t)
  const { port } = new URL(url)
  t.equal(await rawRequest(`${url}/v1/status`, 'GET', { host: `evil.example:${port}` }), 403, 'DNS rebinding')
  t.equal(await rawRequest(`${url}/v1/status`, 'GET', { host: `localhost:${port}` }), 200)
  const json = { 'content-type': 'application/json', host: `127.0.0.1:${port}` }
  t.equal(
    await rawRequest(`${url}/v1/vpgs`, 'POST', { ...json, origin: 'https://evil.example' }, JSON.stringify(vpg)),
    403,
  )
  t.equal(await rawRequest(`${url}/v1/vpgs`, 'POST', { ...json, origin: url }, JSON.stringify(vpg)), 201)
})

t.test('the OpenAPI document lists every route, and every reference in it leads somewhere', async t => {
  const { url } = await open(t)
  interface Document {
    openapi: string
    paths: Record<string, Record<string, { operationId: string; responses: Record<string, unknown> }>>
    components: { schemas: Record<string, unknown> }
  }
  const text = await (await fetch(`${url}/openapi.json`)).text()
  const document = JSON.parse(text) as Document
  t.match(document.openapi, /^3\.1/)
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => `${method} ${path}`),
  )
  t.strictSame(operations.sort(), [
    'delete /v1/exports/{id}',
    'delete /v1/mounts/{id}',
    'delete /v1/preseeds/{id}',
    'delete /v1/verifies/{id}',
    'delete /v1/vpgs/{vpg}',
    'delete /v1/vpgs/{vpg}/tags/{tag}',
    'delete /v1/vpgs/{vpg}/volumes/{volume}',
    'get /v1/drills',
    'get /v1/dumps/{what}',
    'get /v1/exports',
    'get /v1/exports/{id}',
    'get /v1/mounts',
    'get /v1/preseeds',
    'get /v1/preseeds/{id}',
    'get /v1/recoveries',
    'get /v1/recoveries/{id}',
    'get /v1/status',
    'get /v1/verifies',
    'get /v1/verifies/{id}',
    'get /v1/vpgs',
    'get /v1/vpgs/{vpg}',
    'get /v1/vpgs/{vpg}/checkpoints',
    'get /v1/vpgs/{vpg}/checkpoints/{checkpoint}',
    'get /v1/vpgs/{vpg}/timeline',
    'get /v1/vpgs/{vpg}/versions',
    'get /v1/vpgs/{vpg}/volumes/{volume}/diff',
    'patch /v1/vpgs/{vpg}',
    'patch /v1/vpgs/{vpg}/volumes/{volume}',
    'post /v1/drills',
    'post /v1/drills/{id}/report',
    'post /v1/exports',
    'post /v1/mounts',
    'post /v1/preseeds',
    'post /v1/recoveries',
    'post /v1/recoveries/plan',
    'post /v1/recoveries/{id}/{decision}',
    'post /v1/verifies',
    'post /v1/vpgs',
    'post /v1/vpgs/{vpg}/syncs',
    'post /v1/vpgs/{vpg}/tags',
    'post /v1/vpgs/{vpg}/volumes',
  ])
  const ids = Object.values(document.paths).flatMap(methods =>
    Object.values(methods).map(operation => operation.operationId),
  )
  t.equal(new Set(ids).size, operations.length, 'operation ids are unique')
  for (const [, reference = ''] of text.matchAll(/"\$ref":"([^"]*)"/g)) {
    const name = /^#\/components\/schemas\/(.+)$/.exec(reference)?.[1] ?? ''
    t.ok(Object.hasOwn(document.components.schemas, name), reference)
  }
  for (const operation of Object.values(document.paths).flatMap(methods => Object.values(methods)))
    t.ok('4XX' in operation.responses && '5XX' in operation.responses, operation.operationId)
})

t.test(
  'the status page says the facts without scripts, loads nothing from elsewhere, and escapes what it shows',
  async t => {
    const { vra, url } = await open(t)
    vra.add({ ...vpg, name: 'injected', agents: ['<script>alert(1)</script>'] }, 3, {
      state: 'needs-sync',
      stateReason: '<img src=x onerror=alert(1)>',
    })
    const response = await fetch(url)
    const page = await response.text()
    t.match(response.headers.get('content-security-policy'), /default-src 'none'; style-src 'sha256-/)
    t.notMatch(page, /<script>alert|<img src=x/)
    t.match(page, /&lt;script&gt;alert\(1\)/)
    for (const fact of ['web', 'needs sync', '3,412/s', '23 min 22 s', 'erp-database', 'no agent of lab1'])
      t.ok(page.includes(fact), fact)
    t.notMatch(page, /(src|href)="https?:/)
    t.ok(page.includes(await (await fetch(`${url}/facts`)).text()), 'the script fetches the same facts')
    const empty = await open(t, new FakeVra())
    t.match(await (await fetch(empty.url)).text(), /vra vpg create/, 'a first look says what to do')
  },
)

t.test('health and readiness differ: a recovering daemon is alive and not ready', async t => {
  const { vra, url } = await open(t)
  t.equal((await fetch(`${url}/readyz`)).status, 200)
  vra.ready = false
  t.equal((await fetch(`${url}/healthz`)).status, 200)
  t.equal((await fetch(`${url}/readyz`)).status, 503)
  t.match(await (await fetch(`${url}/metrics`)).text(), /vra_up/)
})

t.test('a port that is taken is refused in words; a daemon that is away is told as such', async t => {
  const { url, vra } = await open(t)
  const again = ControlApi.open({
    host: '127.0.0.1',
    port: Number(new URL(url).port),
    vra,
    metrics: async function* () {},
    onBug: () => undefined,
  })
  await t.rejects(again, { code: 'CONFIG_INVALID', message: /cannot listen/ })
  const gone = await ControlApi.open({
    host: '127.0.0.1',
    port: 0,
    vra,
    metrics: async function* () {},
    onBug: () => undefined,
  })
  await gone.close()
  const failure = await new ControlClient(gone.url).status().catch((error: unknown) => error)
  t.ok(failedWith(failure, 'PEER_LOST'))
})
