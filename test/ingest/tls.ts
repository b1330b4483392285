import { connect as connectTls } from 'node:tls'
import t, { type Test } from 'tap'
import { createAuthority, issueCertificate, type Certificate } from '../../src/certs/certs.ts'
import { batchAt, hello, largeBatchAt, openBench, TestPeer, until, type Bench } from '../support/wire-ingest.ts'

const authority = await createAuthority({ name: 'the site', validDays: 1 })
const stranger = await createAuthority({ name: 'the site', validDays: 1 })
const issue = (by: Certificate, commonName: string, kind: 'server' | 'client'): Promise<Certificate> =>
  issueCertificate(by, { commonName, kind, hosts: kind === 'server' ? ['localhost'] : [], validDays: 1 })
const server = await issue(authority, 'vra', 'server')

async function openCertified(t: Test): Promise<Bench> {
  const tls = {
    certificate: server.certificatePem,
    privateKey: server.privateKeyPem,
    authority: authority.certificatePem,
  }
  return openBench(t, { automatic: true, tls })
}

function connect(
  bench: Bench,
  client: Certificate | undefined,
  maxVersion: 'TLSv1.2' | 'TLSv1.3' = 'TLSv1.3',
): TestPeer {
  return new TestPeer(
    connectTls({
      host: '127.0.0.1',
      servername: 'localhost',
      port: bench.ingest.port,
      ca: authority.certificatePem,
      maxVersion,
      ...(client === undefined ? {} : { cert: client.certificatePem, key: client.privateKeyPem }),
    }),
  )
}

t.test('an agent with a certificate of its name is served over TLS 1.3', async t => {
  const bench = await openCertified(t)
  const peer = connect(bench, await issue(authority, 'orders-host', 'client'))
  await peer.greet()
  peer.sendBytes(batchAt(1, 8))
  await until('an Ack', () => peer.acked === 8)
  peer.sendBytes(largeBatchAt(9))
  await until('an Ack', () => peer.acked === 16)
  t.ok(bench.journal.durable[0]?.frame.equals(batchAt(1, 8)))
  t.ok(bench.journal.durable[1]?.frame.equals(largeBatchAt(9)))
})

t.test('an agent is who its certificate says, whatever it says itself', async t => {
  const bench = await openCertified(t)
  const peer = connect(bench, await issue(authority, 'another-host', 'client'))
  peer.send(hello())
  t.equal(await peer.refusal(), 'IDENTITY_REFUSED')
  t.same(bench.events.refused, ['IDENTITY_REFUSED'])
})

t.test('no certificate, one of a stranger, one for servers, plain TCP or TLS 1.2 reaches no session', async t => {
  const bench = await openCertified(t)
  const peers = [
    connect(bench, undefined),
    connect(bench, await issue(stranger, 'orders-host', 'client')),
    connect(bench, await issue(authority, 'orders-host', 'server')),
    connect(bench, await issue(authority, 'orders-host', 'client'), 'TLSv1.2'),
    TestPeer.connect(bench.ingest.port),
  ]
  for (const peer of peers) peer.send(hello())
  for (const [index, peer] of peers.entries()) {
    await until(`peer ${index} is refused`, () => peer.closed)
    t.equal(peer.welcome, undefined, `peer ${index}`)
  }
  await until('all are counted', () => bench.events.refused.length === peers.length)
  const refusals = bench.ingest.refusals()
  t.match(refusals[0], { agent: undefined, code: 'IDENTITY_REFUSED', sentence: /certificate/ })
  t.equal(
    refusals.reduce((sum, { count }) => sum + count, 0),
    peers.length,
    'and told',
  )
  t.equal(bench.ingest.sessionCount, 0)
})

t.test('who is refused for its certificate is told by its address and why', async t => {
  const bench = await openCertified(t)
  const peer = connect(bench, await issue(stranger, 'orders-host', 'client'))
  peer.send(hello())
  await until('it is refused', () => bench.ingest.refusals().length > 0)
  const [refusal] = bench.ingest.refusals()
  t.match(refusal, { address: /^127\.0\.0\.1:[1-9]/, sentence: /not accepted: [A-Z_]*(CERT|ISSUER|SIGNATURE)[A-Z_]*$/ })
})

t.test('a certificate that is of no use is refused at the start', async t => {
  const tls = { certificate: 'x', privateKey: 'y', authority: 'z' }
  await t.rejects(openBench(t, { automatic: true, tls }), { code: 'CONFIG_INVALID' })
})
