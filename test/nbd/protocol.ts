import { randomBytes } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { nbdLimitsDefault, NbdServer, silentNbdEvents } from '../../src/nbd/nbd.ts'
import { connectTo, flag, nameBytes, nbd, NbdClient, optionBytes, requestBytes } from '../support/nbd-client.ts'
import { MemoryExport } from '../support/nbd-memory-export.ts'
import { eventually } from '../support/nbd-tools.ts'
import { seededRandom } from '../support/agent-site.ts'

// The protocol's rules, one request at a time, and what happens to a client that breaks them.

const KiB = 1024
const MiB = 1024 * KiB
const [EPERM, EIO, EINVAL, ENOSPC] = [1, 5, 22, 28]

async function serve(t: Test, ...exports: MemoryExport[]): Promise<NbdServer> {
  const server = await NbdServer.open({
    listen: { host: '127.0.0.1', port: 0 },
    exports,
    limits: { handshakeTimeoutMillis: 3_000, closeTimeoutMillis: 1_000 },
  })
  t.teardown(() => server.close())
  return server
}

for (const structured of [false, true])
  t.test(`requests that break a rule are answered, ${structured ? 'structured' : 'simple'}`, async t => {
    const server = await serve(t, new MemoryExport('rw', MiB + 512), new MemoryExport('ro', MiB, { readOnly: true }))
    const client = await NbdClient.open(server.address(), 'rw', { structured })
    const error = async (...request: Parameters<NbdClient['request']>): Promise<number> =>
      (await client.request(...request)).error
    t.equal(await error(nbd.read, { offsetBytes: MiB, lengthBytes: 513 }), EINVAL, 'a read past the end')
    t.equal(await error(nbd.write, { offsetBytes: MiB, data: Buffer.alloc(513) }), ENOSPC, 'a write past the end')
    t.equal(await error(nbd.writeZeroes, { offsetBytes: MiB, lengthBytes: 2 ** 32 - 1 }), ENOSPC)
    t.equal(await error(nbd.trim, { offsetBytes: 2 ** 50, lengthBytes: 1 }), EINVAL)
    t.equal(await error(nbd.write, { data: Buffer.alloc(32 * MiB + 1) }), EINVAL, 'a write that is too long is skipped')
    t.equal(await error(nbd.read, { lengthBytes: 32 * MiB + 1 }), EINVAL)
    t.equal(await error(nbd.read, { lengthBytes: 0 }), EINVAL)
    t.equal(await error(nbd.read, { lengthBytes: 512, flags: flag.noHole }), EINVAL, 'a flag of another command')
    t.equal(await error(nbd.read, { lengthBytes: 512, flags: flag.df }), structured ? 0 : EINVAL)
    t.equal(await error(nbd.blockStatus, { lengthBytes: 512 }), EINVAL, 'no context was agreed on')
    t.equal(await error(99, { lengthBytes: 512 }), EINVAL, 'an unknown command')
    await client.write(MiB, Buffer.alloc(512, 7))
    t.ok((await client.read(MiB, 512)).equals(Buffer.alloc(512, 7)), 'the connection goes on')
    const reader = await NbdClient.open(server.address(), 'ro', { structured })
    t.equal((await reader.request(nbd.write, { data: Buffer.alloc(512) })).error, EPERM)
    t.equal((await reader.request(nbd.trim, { lengthBytes: 512 })).error, EPERM)
    t.equal((await reader.read(0, 512)).length, 512)
    await Promise.all([client.close(), reader.close()])
  })

t.test('requests of 32 MiB go in and out, in one chunk where the client wants that', async t => {
  const server = await serve(t, new MemoryExport('disk', 64 * MiB))
  const big = randomBytes(32 * MiB)
  const client = await NbdClient.open(server.address(), 'disk', { structured: true })
  await client.write(1 * MiB + 5, big, flag.fua)
  const range = { offsetBytes: 1 * MiB + 5, lengthBytes: 32 * MiB }
  const pieces = await client.request(nbd.read, range)
  t.ok(pieces.data.equals(big))
  t.ok(pieces.chunkTypes.length > 1, 'in pieces')
  const whole = await client.request(nbd.read, { ...range, flags: flag.df })
  t.ok(whole.data.equals(big))
  t.same(whole.chunkTypes, [1], 'in one')
  await client.close()
})

t.test('answers come as they are ready, not in the order of the requests', async t => {
  const disk = new MemoryExport('disk', MiB)
  const server = await serve(t, disk)
  const client = await NbdClient.open(server.address(), 'disk')
  let release = (): void => undefined
  disk.before = command => (command === 'flush' ? new Promise(resolve => (release = resolve)) : Promise.resolve())
  let flushed = false
  const flush = client.request(nbd.flush).then(() => (flushed = true))
  await client.write(0, Buffer.alloc(512))
  t.notOk(flushed, 'the write overtook the flush')
  release()
  await flush
  await client.close()
})

t.test('block status tells the extents, or the first of them', async t => {
  const disk = new MemoryExport('disk', MiB)
  const server = await serve(t, disk)
  const client = await NbdClient.open(server.address(), 'disk', { structured: true, context: true })
  await client.write(64 * KiB, Buffer.alloc(64 * KiB, 1))
  const extents = async (flags: number): Promise<number[]> => {
    const { data } = await client.request(nbd.blockStatus, { lengthBytes: MiB, flags })
    return Array.from({ length: data.length / 4 }, (_, index) => data.readUInt32BE(4 * index))
  }
  t.same(await extents(0), [1, 64 * KiB, 3, 64 * KiB, 0, MiB - 128 * KiB, 3])
  t.same(await extents(flag.reqOne), [1, 64 * KiB, 3])
  await client.close()
})

t.test('an error of the export is the answer to its request only', async t => {
  const disk = new MemoryExport('disk', MiB)
  const server = await serve(t, disk)
  const client = await NbdClient.open(server.address(), 'disk', { structured: true })
  for (const [code, expected] of Object.entries({ EIO, ENOSPC, EPERM, EBADF: EIO })) {
    disk.before = () => Promise.reject(Object.assign(new Error('the disk says no'), { code }))
    t.equal((await client.request(nbd.read, { lengthBytes: 512 })).error, expected, code)
    t.equal((await client.request(nbd.write, { data: Buffer.alloc(512) })).error, expected, code)
  }
  disk.before = () => Promise.resolve()
  t.equal((await client.read(0, 512)).length, 512)
  await client.close()
})

t.test('a write that arrived in part never happened', async t => {
  const disk = new MemoryExport('disk', MiB)
  const server = await serve(t, disk)
  const client = await NbdClient.open(server.address(), 'disk')
  await client.write(0, Buffer.alloc(512, 1))
  client.socket.write(requestBytes({ type: nbd.write, cookie: 7n, offsetBytes: 0, lengthBytes: 4096 }))
  client.socket.write(Buffer.alloc(4095, 2))
  client.socket.destroy()
  await eventually('the connection is gone', () => server.connectionCount('disk') === 0)
  t.same(disk.calls, ['write'])
})

t.test('a client that does not read its answers is not read from, and harms nobody', async t => {
  const disk = new MemoryExport('disk', 64 * MiB)
  const server = await serve(t, disk)
  const slow = await NbdClient.open(server.address(), 'disk')
  slow.socket.pause()
  const answers = Array.from({ length: 200 }, () => slow.request(nbd.read, { lengthBytes: 4 * MiB }))
  const other = await NbdClient.open(server.address(), 'disk')
  for (let index = 0; index < 50; index++) await other.read(0, 4096)
  const served = disk.calls.length - 50
  t.ok(served * 4 * MiB <= nbdLimitsDefault.inFlightBytesMax + 24 * MiB, `${served} of 200 reads were begun`)
  slow.socket.resume()
  const lengths = (await Promise.all(answers)).map(answer => answer.data.length)
  t.ok(
    lengths.every(length => length === 4 * MiB),
    'when it reads, it gets all of them',
  )
  await Promise.all([slow.close(), other.close()])
})

t.test('a handshake that comes a byte at a time is like any other', async t => {
  const server = await serve(t, new MemoryExport('disk', MiB))
  const client = new NbdClient(server.address())
  client.socket.setNoDelay(true)
  await client.inbox.take(18)
  const write = requestBytes({ type: nbd.write, cookie: 5n, offsetBytes: 3, lengthBytes: 2 })
  const go = optionBytes(7, Buffer.concat([nameBytes('disk'), Buffer.from([0, 1, 0, 3])]))
  for (const byte of Buffer.concat([Buffer.from([0, 0, 0, 3]), go, write, Buffer.from([1, 2])])) {
    client.socket.write(Buffer.from([byte]))
    await turn()
  }
  await client.inbox.take(20 + 12 + 20 + 14 + 20)
  const answer = await client.inbox.take(16)
  t.equal(answer.readUInt32BE(4), 0)
  t.equal(answer.readBigUInt64BE(8), 5n)
  await client.close()
})

t.test('options that lie are refused and the haggling goes on', async t => {
  const server = await serve(t, new MemoryExport('disk', MiB), new MemoryExport('more', MiB))
  const client = new NbdClient(server.address())
  await client.greet()
  const replied = async (type: number, data: Buffer): Promise<number> =>
    (await client.option(type, data)).at(-1)!.type - 2 ** 31
  const [unsupported, invalid, unknown] = [1, 3, 6]
  t.equal(await replied(7, Buffer.from([0, 0, 0, 200, 1])), invalid, 'a name longer than the option')
  t.equal(await replied(7, Buffer.concat([nameBytes('disk'), Buffer.from([0, 0, 9])])), invalid, 'trailing bytes in GO')
  t.equal(
    await replied(7, Buffer.concat([nameBytes('disk'), Buffer.from([0, 9, 0, 3])])),
    invalid,
    'requests that lack',
  )
  t.equal(await replied(6, Buffer.concat([nameBytes('nope'), Buffer.from([0, 0])])), unknown)
  t.equal(await replied(3, Buffer.from([1])), invalid, 'LIST with data')
  t.equal(await replied(10, Buffer.concat([nameBytes('disk'), Buffer.alloc(4)])), invalid, 'contexts before structured')
  t.equal(await replied(5, Buffer.alloc(0)), unsupported, 'STARTTLS')
  t.equal(await replied(4711, randomBytes(30)), unsupported)
  t.equal((await client.option(3, Buffer.alloc(0))).length, 3, 'LIST names both exports')
  t.same(await client.option(2, Buffer.alloc(0)), [{ type: 1, data: Buffer.alloc(0) }], 'ABORT is acknowledged')
  await eventually('the server hung up', () => client.socket.destroyed || client.socket.readableEnded)
  client.socket.destroy()
})

t.test('the old way to open an export works too, with and without its padding', async t => {
  const server = await serve(t, new MemoryExport('disk', MiB))
  for (const [clientFlags, paddingBytes] of [
    [1, 124],
    [3, 0],
  ] as const) {
    const client = new NbdClient(server.address())
    await client.greet(clientFlags)
    client.socket.write(optionBytes(1, Buffer.from('disk')))
    t.equal(Number((await client.inbox.take(10 + paddingBytes)).readBigUInt64BE(0)), MiB)
    client.transmit()
    t.equal((await client.read(0, 512)).length, 512)
    await client.close()
  }
})

t.test('whatever bytes come, the server lives and serves the next client', async t => {
  const random = seededRandom()
  const disk = new MemoryExport('disk', MiB)
  const server = await NbdServer.open({
    listen: { host: '127.0.0.1', port: 0 },
    exports: [disk],
    limits: { handshakeTimeoutMillis: 300, closeTimeoutMillis: 1_000 },
    events: silentNbdEvents,
  })
  t.teardown(() => server.close())
  const seeds = [
    Buffer.concat([Buffer.from([0, 0, 0, 3]), optionBytes(8, Buffer.alloc(0))]),
    Buffer.concat([Buffer.from([0, 0, 0, 3]), optionBytes(3, Buffer.alloc(0)), optionBytes(2, Buffer.alloc(0))]),
    Buffer.concat([
      Buffer.from([0, 0, 0, 3]),
      optionBytes(7, Buffer.concat([nameBytes('disk'), Buffer.from([0, 0])])),
      requestBytes({ type: nbd.read, cookie: 1n, lengthBytes: 512 }),
      requestBytes({ type: nbd.write, cookie: 2n, lengthBytes: 16 }),
      Buffer.alloc(16),
    ]),
  ]
  for (let round = 0; round < 150; round++) {
    const bytes = Buffer.from(random.below(10) === 0 ? randomBytes(200) : seeds[random.below(seeds.length)]!)
    for (let flips = random.below(5); flips > 0; flips--) bytes[random.below(bytes.length)] = random.below(256)
    const socket = connectTo(server.address())
    socket.on('error', () => undefined)
    const closed = new Promise(resolve => socket.once('close', resolve))
    socket.resume()
    for (let at = 0; at < bytes.length;) {
      const next = Math.min(bytes.length, at + 1 + random.below(bytes.length))
      socket.write(bytes.subarray(at, next))
      at = next
    }
    if (random.below(3) === 0) socket.destroy()
    else socket.end()
    await closed
  }
  await eventually('all are gone', () => server.connectionCount('disk') === 0)
  const client = await NbdClient.open(server.address(), 'disk')
  t.equal((await client.read(0, 4096)).length, 4096, `seed ${random.seed}`)
  await client.close()
})

t.test('a client that says nothing is let go', async t => {
  const server = await NbdServer.open({
    listen: { host: '127.0.0.1', port: 0 },
    exports: [new MemoryExport('disk', MiB)],
    limits: { handshakeTimeoutMillis: 50 },
  })
  t.teardown(() => server.close())
  const client = new NbdClient(server.address())
  await t.rejects(client.inbox.take(1000), /closed/)
})

t.test('while one address writes an export, another is refused', async t => {
  const server = await serve(t, new MemoryExport('disk', MiB))
  const address = server.address()
  if (!('port' in address)) throw new Error('it listens on TCP')
  const client = await NbdClient.open(address, 'disk')
  const second = await NbdClient.open(address, 'disk')
  const net = await import('node:net')
  const stranger = new NbdClient(address)
  stranger.socket.destroy()
  const other = net.connect({ ...address, localAddress: '127.0.0.2' })
  const chunks: Buffer[] = []
  other.on('data', chunk => chunks.push(chunk))
  other.write(
    Buffer.concat([Buffer.from([0, 0, 0, 3]), optionBytes(7, Buffer.concat([nameBytes('disk'), Buffer.alloc(2)]))]),
  )
  await eventually('the answer', () => Buffer.concat(chunks).includes('in use by 127.0.0.1'))
  other.destroy()
  await Promise.all([client.close(), second.close()])
})

t.test('closing answers what runs and takes no more', async t => {
  const disk = new MemoryExport('disk', MiB)
  const server = await serve(t, disk)
  const client = await NbdClient.open(server.address(), 'disk')
  let release = (): void => undefined
  disk.before = () => new Promise(resolve => (release = resolve))
  const write = client.write(0, Buffer.alloc(512, 9))
  await eventually('the write runs', () => disk.calls.length === 1)
  const closing = server.close()
  release()
  await write
  client.socket.end()
  await closing
  t.ok(disk.pages.get(0)?.[0] === 9)
})

t.test(
  'an export is removed although a request of it hangs, once the server has been closed for long enough',
  async t => {
    const disk = new MemoryExport('disk', MiB)
    const server = await NbdServer.open({
      listen: { host: '127.0.0.1', port: 0 },
      exports: [disk],
      limits: { closeTimeoutMillis: 50 },
    })
    const client = await NbdClient.open(server.address(), 'disk')
    let isHung = false
    disk.before = () => {
      isHung = true
      return new Promise(() => undefined)
    }
    client.read(0, 512).catch(() => undefined) // nobody will answer
    await eventually('the request hangs', () => isHung)
    let isRemoved = false
    const removed = server.removeExport('disk').then(() => (isRemoved = true))
    await turn()
    t.notOk(isRemoved)
    await server.close()
    await removed
    t.ok(isRemoved)
  },
)
