import { X509Certificate } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import t from 'tap'
import { createAuthority, issueCertificate } from '../../src/certs/certs.ts'

t.test('what the authority issues is valid under it, and under no other', async t => {
  const authority = await createAuthority({ name: 'an authority', validDays: 30 })
  const stranger = await createAuthority({ name: 'an authority', validDays: 30 })
  const issued = await issueCertificate(authority, {
    commonName: 'host-a, O=not a field',
    kind: 'client',
    hosts: [],
    validDays: 7,
  })
  const certificate = new X509Certificate(issued.certificatePem)
  t.ok(certificate.verify(new X509Certificate(authority.certificatePem).publicKey))
  t.notOk(certificate.verify(new X509Certificate(stranger.certificatePem).publicKey))
  t.equal(certificate.toLegacyObject().subject.CN, 'host-a, O=not a field', 'the name is what was asked for')
  t.equal(certificate.ca, false)
  const days = (Date.parse(certificate.validTo) - Date.now()) / 86_400_000
  t.ok(days > 6.9 && days < 7.1)
})

t.test('a server certificate names its hosts and addresses', async t => {
  const authority = await createAuthority({ name: 'an authority', validDays: 30 })
  const issued = await issueCertificate(authority, {
    commonName: 'vra',
    kind: 'server',
    hosts: ['vra.example', '127.0.0.1'],
    validDays: 7,
  })
  const certificate = new X509Certificate(issued.certificatePem)
  t.equal(certificate.checkHost('vra.example'), 'vra.example')
  t.equal(certificate.checkIP('127.0.0.1'), '127.0.0.1')
  t.equal(certificate.checkHost('other.example'), undefined)
})

t.test('openssl accepts the chain for its purposes only', async t => {
  try {
    execFileSync('openssl', ['version'])
  } catch {
    t.comment('skipped: openssl is not installed')
    return
  }
  const directory = t.testdir()
  const authority = await createAuthority({ name: 'an authority', validDays: 30 })
  const server = await issueCertificate(authority, { commonName: 'v', kind: 'server', hosts: ['v'], validDays: 7 })
  const client = await issueCertificate(authority, { commonName: 'a', kind: 'client', hosts: [], validDays: 7 })
  writeFileSync(`${directory}/server.crt`, server.certificatePem)
  writeFileSync(`${directory}/authority.crt`, authority.certificatePem)
  writeFileSync(`${directory}/client.crt`, client.certificatePem)
  const verify = (kind: string, purpose: string): string =>
    execFileSync(
      'openssl',
      [
        'verify',
        '-x509_strict',
        '-purpose',
        purpose,
        '-CAfile',
        `${directory}/authority.crt`,
        `${directory}/${kind}.crt`,
      ],
      { encoding: 'utf8', stdio: 'pipe' },
    )
  t.match(verify('server', 'sslserver'), /OK/)
  t.throws(() => verify('server', 'sslclient'))
  t.match(verify('client', 'sslclient'), /OK/)
  t.match(verify('client', 'sslserver'), /OK/, 'agents reach each other')
  t.notOk(new X509Certificate(client.certificatePem).checkHost('a'), 'its name is not the name of a host')
})

t.test('a key that is not PEM is refused', async t => {
  const authority = await createAuthority({ name: 'an authority', validDays: 30 })
  const broken = { ...authority, privateKeyPem: 'nothing' }
  const request = { commonName: 'a', kind: 'client', hosts: [], validDays: 7 } as const
  await t.rejects(issueCertificate(broken, request), { code: 'CONFIG_INVALID' })
})
