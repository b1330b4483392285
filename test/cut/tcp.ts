import * as net from 'node:net'
import t, { type Test } from 'tap'
import { createAuthority, issueCertificate, type Certificate } from '../../src/certs/certs.ts'
import { systemClock } from '../../src/base/clock.ts'
import { Cut, parseAddress, silentCutEvents, TcpNetwork, type PeerTls } from '../../src/cut/cut.ts'
import { encodeFrame } from '../../src/wire/wire.ts'
import { ListedStream, siteVpg } from '../support/cut-site.ts'
import { until } from '../support/wire-ingest.ts'

const authority = await createAuthority({ name: 'the site', validDays: 1 })
const stranger = await createAuthority({ name: 'the site', validDays: 1 })

async function certified(name: string, by: Certificate = authority): Promise<PeerTls> {
  const own = await issueCertificate(by, { commonName: name, kind: 'client', hosts: [], validDays: 1 })
  return {
    certificateAuthority: authority.certificatePem,
    certificate: own.certificatePem,
    privateKey: own.privateKeyPem,
  }
}

interface Pair {
  readonly cuts: readonly [Cut, Cut]
  readonly streams: readonly [ListedStream, ListedStream]
  readonly refused: string[]
}

/** Agents a, who coordinates, and b over loopback, each with its certificate or none. */
async function openPair(t: Test, tls: readonly [PeerTls | undefined, PeerTls | undefined]): Promise<Pair> {
  const streams = [new ListedStream(1), new ListedStream(2)] as const
  const refused: string[] = []
  const open = (index: 0 | 1): Promise<Cut> =>
    Cut.open({
      agent: index === 0 ? 'a' : 'b',
      stream: streams[index],
      clock: systemClock,
      events: { ...silentCutEvents, peerRefused: ({ sentence }) => refused.push(sentence) },
      network: new TcpNetwork(tls[index]),
      listen: { host: '127.0.0.1', port: 0 },
      holdTimeoutMillis: 5_000,
      saved: { highestTerm: 0, coordinator: '', highestCounter: 0 },
      saveTerm: () => undefined,
    })
  const cuts = [await open(0), await open(1)] as const
  t.teardown(async () => {
    for (const cut of cuts) await cut.close()
  })
  const participants = cuts.map((cut, index) => ({
    stream: index + 1,
    agent: index === 0 ? 'a' : 'b',
    peerAddress: `127.0.0.1:${cut.port}`,
    volumes: [index + 1],
  }))
  const coordinator = { agent: 'a', term: 1, counter: 0, checkpointIntervalMillis: 1_000, participants }
  cuts.forEach((cut, index) => cut.appoint({ vpg: siteVpg, stream: index + 1, coordinator }))
  return { cuts, streams, refused }
}

t.test('plain TCP: markers in both streams', async t => {
  const { cuts, streams } = await openPair(t, [undefined, undefined])
  await until('b is reached', () => cuts[0].whyNoCheckpoints() === '')
  t.match(await cuts[0].checkpoint(0), { counter: 1, failure: undefined })
  t.match(await cuts[0].checkpoint(0), { counter: 2, failure: undefined })
  for (const stream of streams) t.same(stream.markers, ['1.1', '1.2'])
})

t.test('TLS: agents with certificates of their names make checkpoints', async t => {
  const { cuts, streams } = await openPair(t, [await certified('a'), await certified('b')])
  await until('b is reached', () => cuts[0].whyNoCheckpoints() === '')
  t.match(await cuts[0].checkpoint(0), { failure: undefined })
  for (const stream of streams) t.same(stream.markers, ['1.1'])
})

t.test('an agent with the certificate of another is refused on either side, and said so', async t => {
  const server = await openPair(t, [await certified('a'), await certified('mallory')])
  await until('a refuses', () => /certificate says "mallory"/.test(server.cuts[0].whyNoCheckpoints()))
  const client = await openPair(t, [await certified('mallory'), await certified('b')])
  await until('b refuses', () => client.refused.some(sentence => /certificate says "mallory"/.test(sentence)))
  t.match(client.cuts[0].whyNoCheckpoints(), /not reached/)
})

t.test('no certificate, or one of a stranger, reaches nobody', async t => {
  for (const tls of [undefined, await certified('a', stranger)]) {
    const { cuts } = await openPair(t, [tls, await certified('b')])
    await until('a is told', () => /not reached: (?!not connected)/.test(cuts[0].whyNoCheckpoints()))
    t.match((await cuts[0].checkpoint(0))?.failure, { reason: 'unreachable' })
  }
})

t.test('who does not speak the protocol, or is of another VPG, costs only its connection', async t => {
  const { cuts, refused } = await openPair(t, [undefined, undefined])
  const hello = { type: 'peer-hello', vpg: siteVpg, agent: 'a', stream: 1, term: 1 } as const
  const attempts = [
    Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    encodeFrame({ type: 'hold', term: 1, counter: 9, timeoutMillis: 1000 }),
    encodeFrame({ ...hello, agent: 'z' }),
    encodeFrame({ ...hello, stream: 5 }),
    encodeFrame({ ...hello, vpg: 'f'.repeat(32) as typeof siteVpg }),
  ]
  for (const bytes of attempts) {
    const socket = net.connect({ host: '127.0.0.1', port: cuts[1].port! })
    socket.on('error', () => undefined)
    socket.resume().end(bytes)
    const before = refused.length
    await until('it is refused', () => refused.length > before)
  }
  await until('b is reached', () => cuts[0].whyNoCheckpoints() === '')
  t.match(await cuts[0].checkpoint(0), { failure: undefined })
})

t.test('addresses are host:port', async t => {
  t.same(parseAddress('host-1.lan:7423'), { host: 'host-1.lan', port: 7423 })
  t.same(parseAddress('[fd00::1]:80'), { host: 'fd00::1', port: 80 })
  for (const wrong of ['host', 'host:0', 'host:70000', 'fd00::1:80', ':80', 'a b:80', ''])
    t.throws(() => parseAddress(wrong), { code: 'CONFIG_INVALID' }, wrong)
})

t.test('an agent that ends does not wait for peers that say nothing, or go on talking', async t => {
  for (const tls of [undefined, await certified('a')]) {
    const network = new TcpNetwork(tls)
    const listener = await network.listen({ host: '127.0.0.1', port: 0 }, connection => {
      connection.attach({ opened: () => connection.close('flush'), received: () => undefined, closed: () => undefined })
    })
    // Neither a handshake nor an end of its own; and one that keeps its side open and sends for ever.
    const silent = net.connect({ port: listener.port, allowHalfOpen: true })
    const talking = net.connect({ port: listener.port, allowHalfOpen: true })
    for (const socket of [silent, talking]) socket.on('error', () => undefined).resume()
    await until('both are there', () => silent.readyState !== 'opening' && talking.readyState !== 'opening')
    const timer = setInterval(() => talking.write('x'), 50)
    t.teardown(() => clearInterval(timer))
    await listener.close()
    clearInterval(timer)
    for (const socket of [silent, talking]) socket.destroy()
    t.pass(tls === undefined ? 'TCP' : 'TLS')
  }
})
