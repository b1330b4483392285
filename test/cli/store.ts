import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { S3Simulator, type SimulatorOptions } from '../support/s3-sim.ts'
import { runVra } from '../support/scenario-role.ts'

const environment = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' }

async function site(options: Partial<SimulatorOptions>) {
  const simulator = await S3Simulator.start(options)
  t.teardown(() => simulator.close().catch(() => undefined))
  const file = path.join(t.testdir(), 'vra.yaml')
  const store = `{ kind: s3, bucket: bucket, endpoint: '${simulator.endpoint}', forcePathStyle: true, serverSideEncryption: kms }`
  fs.writeFileSync(file, `store: ${store}\n`)
  return { simulator, check: (...more: string[]) => runVra(['store', 'check', '--config', file, ...more], environment) }
}

t.test('a check says what it found, and ends as the store is', async t => {
  const fit = await site({})
  const text = await fit.check()
  t.equal(text.status, 0, text.stderr)
  t.match(text.stdout, /^one-winner\tpassed: of 12 .* one wins$/m)
  t.match(text.stdout, /^encryption\tpassed: .*aws:kms/m)
  const json = await fit.check('--json')
  t.match(JSON.parse(json.stdout), { store: 's3://bucket/', fit: true })
  await fit.simulator.close()
  const away = await fit.check()
  t.equal(away.status, 4, away.stdout)

  const unfit = await site({ flaws: ['ignores-conditions'] })
  const found = await unfit.check('--json')
  t.equal(found.status, 2)
  t.match(found.stderr, /is not fit: create-once, one-winner/)
  t.match(JSON.parse(found.stdout), { fit: false })
  t.match((await unfit.check()).stdout, /^create-once\tfailed: .*\n\s*remedy\tuse a server that honours If-None-Match/m)
})
