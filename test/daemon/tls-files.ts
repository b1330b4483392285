import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { createAuthority, issueCertificate } from '../../src/certs/certs.ts'
import type { Log } from '../../src/daemon/log.ts'
import { certificateEndSeconds } from '../../src/daemon/tls-files.ts'
import { Metrics } from '../../src/metrics/metrics.ts'
import { joined } from '../support/joined.ts'

t.test('the end of a certificate is measured, and told when it is near', async t => {
  const directory = t.testdir()
  const authority = await createAuthority({ name: 'an authority', validDays: 300 })
  const told: unknown[] = []
  const log = { warn: (facts: unknown) => void told.push(facts) } as unknown as Log
  const filesFor = async (validDays: number) => {
    const own = await issueCertificate(authority, { commonName: 'vra', kind: 'server', hosts: ['vra'], validDays })
    const write = (name: string, text: string): string => {
      const file = path.join(directory, name)
      fs.writeFileSync(file, text)
      return file
    }
    return {
      certificateFile: write('own.crt', own.certificatePem),
      privateKeyFile: write('own.key', own.privateKeyPem),
      authorityFile: write('authority.crt', authority.certificatePem),
    }
  }
  const daysUntil = (seconds = 0): number => Math.round((seconds - Date.now() / 1000) / 86_400)
  t.equal(daysUntil(certificateEndSeconds(await filesFor(90), log)), 90)
  t.same(told, [])
  t.equal(daysUntil(certificateEndSeconds(await filesFor(400), log)), 300, 'the authority ends first')
  const near = certificateEndSeconds(await filesFor(5), log)
  t.match(told, [{ file: path.join(directory, 'own.crt') }])
  t.equal(certificateEndSeconds(undefined, log), undefined)

  const metrics = new Metrics({
    version: '1',
    certificateEndSeconds: near,
    facts: () => Promise.reject(new Error('none')),
  })
  t.match(await joined(metrics.render()), new RegExp(`^vra_certificate_not_after_seconds ${near}$`, 'm'))
  await metrics.close()

  const files = await filesFor(5)
  fs.writeFileSync(files.authorityFile, 'no certificate')
  t.throws(() => certificateEndSeconds(files, log), { code: 'CONFIG_INVALID', message: /authority\.crt/ })
})
