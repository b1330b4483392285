import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { Failure } from '../../src/base/failure.ts'
import { DirectoryStore } from '../../src/store/directory-store.ts'
import { EncryptedStore } from '../../src/store/encrypted-store.ts'
import { FileWrapper, readKeyFile } from '../../src/store/key-wrapping.ts'
import { chunkDataSizeBytes } from '../../src/store/sealed-chunks.ts'
import { openStore, type ObjectStore, type StoreConfig } from '../../src/store/store.ts'
import { failsWith, keysOf, objectStoreContract } from '../contract/object-store.ts'
import { KmsSimulator } from '../support/kms-sim.ts'
import { S3Simulator } from '../support/s3-sim.ts'

// Invariants: to a caller the store is as any other; nothing readable is in what is stored; a chunk is read only where, and under the name, it was
// stored; the wrong key writes nothing; without the VPG's key, or the user's, nothing is read.

const signal = new AbortController().signal
const credentials = { accessKeyId: 'test', secretAccessKey: 'secret' }
const vpg = '0123456789abcdef0123456789abcdef'
const otherVpg = 'f'.repeat(32)
type Encryption = NonNullable<StoreConfig['clientEncryption']>

function keyFileIn(directory: string, name: string, contents: string | Uint8Array = randomBytes(32)): Encryption {
  const keyFile = path.join(directory, name)
  fs.writeFileSync(keyFile, contents, { mode: 0o600 })
  return { key: 'file', keyFile }
}

async function opened(t: Test, config: StoreConfig): Promise<ObjectStore> {
  const clock = { ...systemClock, sleep: async () => undefined }
  const store = await openStore(config, { credentials, clock })
  t.teardown(() => store.close())
  return store
}

function inDirectory(directory: string, clientEncryption?: Encryption): StoreConfig {
  return { kind: 'directory', directory: path.join(directory, 'store'), clientEncryption }
}

/** Everything that is stored, by name. */
function stored(directory: string): Map<string, Buffer> {
  const root = path.join(directory, 'store/objects')
  const files = fs.existsSync(root) ? fs.readdirSync(root, { recursive: true, withFileTypes: true }) : []
  const names = files.filter(file => file.isFile()).map(file => path.join(file.parentPath, file.name))
  return new Map(names.map(name => [path.relative(root, name), fs.readFileSync(name)]))
}

t.test('in a directory, with a key file', async t => {
  objectStoreContract(t, async t => {
    const directory = t.testdir()
    const config = inDirectory(directory, keyFileIn(directory, 'key'))
    return { store: await opened(t, config), other: await opened(t, config), manyObjects: 300 }
  })
})

t.test('in a bucket, with a key of KMS', async t => {
  objectStoreContract(t, async t => {
    const [simulator, kms] = [await S3Simulator.start({ pageKeysMax: 50 }), await KmsSimulator.start(['k1'])]
    t.teardown(async () => {
      await simulator.close()
      await kms.close()
    })
    const config: StoreConfig = {
      ...({ kind: 's3', bucket: 'bucket', prefix: 'a/', region: 'eu-central-1', forcePathStyle: true } as const),
      ...({
        checksums: 'when-supported',
        requestTimeoutMillis: 10_000,
        serverSideEncryption: 'bucket-default',
      } as const),
      endpoint: simulator.endpoint,
      kmsKeyId: undefined,
      clientEncryption: { key: 'kms', kmsKeyId: 'k1', region: 'eu-central-1', endpoint: kms.endpoint, credentials },
    }
    return { store: await opened(t, config), other: await opened(t, config), manyObjects: 120 }
  })
})

t.test('ranges around every edge of a chunk are exact, and sizes are what they would be without', async t => {
  const directory = t.testdir()
  const store = await opened(t, inDirectory(directory, keyFileIn(directory, 'key')))
  for (const sizeBytes of [
    0,
    1,
    chunkDataSizeBytes - 1,
    chunkDataSizeBytes,
    chunkDataSizeBytes + 1,
    2 * chunkDataSizeBytes,
  ]) {
    const body = randomBytes(sizeBytes)
    await store.create(`edge/${sizeBytes}`, body, signal)
    for await (const object of store.list(`edge/${sizeBytes}`, undefined, signal)) t.equal(object.sizeBytes, sizeBytes)
    const places = [0, 1, chunkDataSizeBytes - 1, chunkDataSizeBytes, chunkDataSizeBytes + 1, sizeBytes]
    for (const startBytes of places) {
      for (const endBytes of places) {
        if (startBytes > endBytes || endBytes > sizeBytes) continue
        const found = await store.readRange(`edge/${sizeBytes}`, { startBytes, endBytes }, signal)
        if (!body.subarray(startBytes, endBytes).equals(found)) t.fail(`[${startBytes}, ${endBytes}) of ${sizeBytes}`)
      }
    }
    const past = { startBytes: 0, endBytes: sizeBytes + 1 }
    await failsWith(t, 'OBJECT_CORRUPT', store.readRange(`edge/${sizeBytes}`, past, signal), `past ${sizeBytes}`)
  }
})

t.test('nothing readable is stored, and the same bytes are never stored twice in one way', async t => {
  const directory = t.testdir()
  const store = await opened(t, inDirectory(directory, keyFileIn(directory, 'key')))
  const body = Buffer.alloc(200_000, 'a secret of the guest ')
  await store.create(`vpg/${vpg}`, body, signal)
  await store.create(`${vpg}/commit/1`, body, signal)
  await store.create(`${vpg}/commit/2`, body, signal)
  const objects = stored(directory)
  t.strictSame(
    [...objects.keys()].sort(),
    [`${vpg}/commit/1`, `${vpg}/commit/2`, 'key/store', `key/${vpg}`, `vpg/${vpg}`].sort(),
  )
  for (const [name, bytes] of objects) t.notOk(bytes.includes('secret'), name)
  const [one, two] = [objects.get(`${vpg}/commit/1`)!, objects.get(`${vpg}/commit/2`)!]
  t.notOk(one.subarray(32, 96).equals(two.subarray(32, 96)))
  t.strictSame(await keysOf(store.list('', undefined, signal)), [`${vpg}/commit/1`, `${vpg}/commit/2`, `vpg/${vpg}`])
  await failsWith(t, 'REQUEST_INVALID', store.remove('key/store', signal), 'the keys are nobody else’s')
})

t.test('whatever bit flips, chunk moves or end is cut: it is found, and never served', async t => {
  const directory = t.testdir()
  const config = inDirectory(directory, keyFileIn(directory, 'key'))
  const store = await opened(t, config)
  await store.create(`vpg/${vpg}`, Buffer.from('x'), signal)
  const body = randomBytes(3 * chunkDataSizeBytes - 100)
  await store.create(`${vpg}/delta/1`, body, signal)
  await store.create(`${vpg}/delta/2`, body, signal)
  const file = path.join(directory, `store/objects/${vpg}/delta/1`)
  const whole = fs.readFileSync(file)
  const other = fs.readFileSync(path.join(directory, `store/objects/${vpg}/delta/2`))
  const read = (): Promise<Uint8Array> =>
    store.readRange(`${vpg}/delta/1`, { startBytes: 0, endBytes: body.length }, signal)
  const chunk = (bytes: Buffer, index: number): Buffer => bytes.subarray(index * 65536, (index + 1) * 65536)
  const damaged: readonly (readonly [string, Buffer])[] = [
    ...[0, 5, 6, 9, 40, 65_535, 65_536, 70_000, whole.length - 1].map(at => {
      const copy = Buffer.from(whole)
      copy[at]! ^= 4
      return [`a bit of byte ${at}`, copy] as const
    }),
    ['chunks in another order', Buffer.concat([chunk(whole, 1), chunk(whole, 0), chunk(whole, 2)])],
    ['a chunk of another object', Buffer.concat([chunk(whole, 0), chunk(other, 1), chunk(whole, 2)])],
    ['another object', other],
    ['an end between chunks', whole.subarray(0, 2 * 65536)],
    ['an end within one', whole.subarray(0, whole.length - 1)],
    ['nothing', Buffer.alloc(0)],
    ['what was never encrypted', body],
  ]
  for (const [what, bytes] of damaged) {
    fs.writeFileSync(file, bytes)
    await failsWith(t, 'OBJECT_CORRUPT', read(), what)
  }
  const newer = Buffer.from(whole)
  newer[4] = 2
  fs.writeFileSync(file, newer)
  await failsWith(t, 'VERSION_UNSUPPORTED', read(), 'another version')
  fs.writeFileSync(file, whole)
  t.ok(body.equals(await read()))
})

t.test('the wrong key, and none, are refused before a byte is written or anything listed', async t => {
  const directory = t.testdir()
  const right = keyFileIn(directory, 'right')
  const store = await opened(t, inDirectory(directory, right))
  await store.create(`vpg/${vpg}`, Buffer.from('x'), signal)
  const before = stored(directory)
  const wrong = await opened(t, inDirectory(directory, keyFileIn(directory, 'wrong')))
  await failsWith(t, 'CONFIG_INVALID', wrong.create(`vpg/${otherVpg}`, Buffer.from('x'), signal), 'a create')
  await failsWith(t, 'CONFIG_INVALID', keysOf(wrong.list('vpg/', undefined, signal)), 'a listing')
  await failsWith(t, 'CONFIG_INVALID', wrong.remove(`vpg/${vpg}`, signal), 'a removal')
  t.strictSame(stored(directory), before)

  const elsewhere = path.join(directory, 'elsewhere')
  const plain = await opened(t, inDirectory(elsewhere))
  await plain.create(`vpg/${vpg}`, Buffer.from('x'), signal)
  const late = await opened(t, inDirectory(elsewhere, right))
  await failsWith(t, 'CONFIG_INVALID', late.create(`vpg/${otherVpg}`, Buffer.from('x'), signal), 'a store in plain')
})

t.test('a VPG’s key that is gone takes with it what the VPG holds, and is not made anew', async t => {
  const directory = t.testdir()
  const config = inDirectory(directory, keyFileIn(directory, 'key'))
  const first = await opened(t, config)
  await first.create(`vpg/${vpg}`, Buffer.from('x'), signal)
  await first.create(`${vpg}/commit/1`, Buffer.from('x'), signal)
  fs.rmSync(path.join(directory, `store/objects/key/${vpg}`))
  const later = await opened(t, config)
  const range = { startBytes: 0, endBytes: 1 }
  await failsWith(t, 'OBJECT_CORRUPT', later.readRange(`${vpg}/commit/1`, range, signal), 'a read')
  await failsWith(t, 'OBJECT_CORRUPT', later.create(`${vpg}/commit/2`, Buffer.from('y'), signal), 'a create')
  await failsWith(t, 'OBJECT_CORRUPT', later.create(`vpg/${vpg}`, Buffer.from('y'), signal), 'the same VPG again')
  t.strictSame([...stored(directory).keys()].sort(), [`${vpg}/commit/1`, 'key/store', `vpg/${vpg}`].sort())
})

t.test('the VPG’s key goes when the VPG does', async t => {
  const directory = t.testdir()
  const store = await opened(t, inDirectory(directory, keyFileIn(directory, 'key')))
  await store.create(`vpg/${vpg}`, Buffer.from('x'), signal)
  await store.remove(`vpg/${vpg}`, signal)
  t.strictSame([...stored(directory).keys()], ['key/store'])
})

t.test('a key file is 32 bytes, or says them; and is not for everybody', async t => {
  const directory = t.testdir()
  const key = randomBytes(32)
  const forms = [key, `${key.toString('hex')}\n`, key.toString('base64')]
  const writer = await opened(t, inDirectory(directory, keyFileIn(directory, '0', forms[0])))
  await writer.create('a', Buffer.from('x'), signal)
  for (const [index, form] of forms.entries()) {
    const reader = await opened(t, inDirectory(directory, keyFileIn(directory, String(index), form)))
    t.equal(Buffer.from(await reader.readRange('a', { startBytes: 0, endBytes: 1 }, signal)).toString(), 'x')
  }
  for (const bad of ['', 'password', randomBytes(31)]) {
    const encryption = keyFileIn(directory, 'bad', bad)
    await failsWith(t, 'CONFIG_INVALID', openStore(inDirectory(directory, encryption)), 'no key')
  }
  const open = keyFileIn(directory, 'open')
  if (open.key === 'file') fs.chmodSync(open.keyFile, 0o644)
  await failsWith(t, 'CONFIG_INVALID', openStore(inDirectory(directory, open)), 'open to everybody')
  const missing: Encryption = { key: 'file', keyFile: path.join(directory, 'nowhere') }
  await failsWith(t, 'CONFIG_INVALID', openStore(inDirectory(directory, missing)), 'no file')
})

t.test('KMS: one call for a key, none for an object; what it refuses is said, what passes is waited for', async t => {
  const directory = t.testdir()
  const kms = await KmsSimulator.start(['k1', 'k2'])
  t.teardown(() => kms.close())
  const by = (kmsKeyId: string): Encryption => ({
    ...{ key: 'kms', kmsKeyId, region: 'eu-central-1', endpoint: kms.endpoint, credentials },
  })
  const store = await opened(t, inDirectory(directory, by('k1')))
  await store.create(`vpg/${vpg}`, Buffer.from('x'), signal)
  for (let count = 0; count < 50; count++) await store.create(`${vpg}/base/${count}`, Buffer.from('x'), signal)
  t.strictSame(kms.requestCounts, { GenerateDataKey: 2, Decrypt: 0 })
  const before = stored(directory)
  const wrong = await opened(t, inDirectory(directory, by('k2')))
  await failsWith(t, 'CONFIG_INVALID', wrong.create('a', Buffer.from('x'), signal), 'another key of KMS')
  const nobodys = await opened(t, inDirectory(directory, by('k3')))
  await failsWith(t, 'CONFIG_INVALID', nobodys.create('a', Buffer.from('x'), signal), 'a key that is none')
  const file = await opened(t, inDirectory(directory, keyFileIn(directory, 'file')))
  await failsWith(t, 'CONFIG_INVALID', file.create('a', Buffer.from('x'), signal), 'a key file instead')
  t.strictSame(stored(directory), before)
  const late = await opened(t, inDirectory(directory, by('k1')))
  kms.failNext('KMSInternalException', 20)
  await failsWith(t, 'STORE_UNAVAILABLE', late.create(`${vpg}/base/a`, Buffer.from('x'), signal), 'KMS is down')
  kms.failNext('', 0)
  await late.create(`${vpg}/base/a`, Buffer.from('x'), signal)
  kms.disable('k1')
  await late.create(`${vpg}/base/b`, Buffer.from('x'), signal)
  const after = await opened(t, inDirectory(directory, by('k1')))
  const range = { startBytes: 0, endBytes: 1 }
  await failsWith(t, 'CONFIG_INVALID', after.readRange(`${vpg}/base/a`, range, signal), 'a key that was disabled')
})

t.test('what locks a VPG locks the keys that it is read with', async t => {
  const simulator = await S3Simulator.start({ versions: 'locking' })
  t.teardown(() => simulator.close())
  const store = await opened(t, {
    ...({ kind: 's3', bucket: 'bucket', prefix: '', region: 'eu-central-1', forcePathStyle: true } as const),
    ...({ checksums: 'when-supported', requestTimeoutMillis: 10_000, serverSideEncryption: 'bucket-default' } as const),
    ...({ endpoint: simulator.endpoint, kmsKeyId: undefined, objectLock: 'compliance' } as const),
    clientEncryption: keyFileIn(t.testdir(), 'key'),
  })
  const lockMillis = 3_600_000
  const keys = ['key/store', `key/${vpg}`, `vpg/${vpg}`]
  const untilMillis = (key: string): number => simulator.bucket.versions(key).at(-1)?.retention?.untilMillis ?? 0
  await store.create(`vpg/${vpg}`, Buffer.from('registry'), signal, { lockMillis })
  const before = Date.now()
  for (const key of keys) t.ok(untilMillis(key) > before, `${key} is created locked`)
  await store.locks?.extend(`vpg/${vpg}`, 2 * lockMillis, signal)
  for (const key of keys) t.ok(untilMillis(key) >= before + 2 * lockMillis, `${key} is locked for longer`)
  await failsWith(t, 'REQUEST_INVALID', store.locks!.extend('key/store', lockMillis, signal), 'a key by its name')
})

t.test('memory of an object that is stored is that of the next, and of no other at the same time', async t => {
  const directory = t.testdir()
  const place = await DirectoryStore.open(path.join(directory, 'store'))
  const encryption = keyFileIn(directory, 'key')
  const store = new EncryptedStore(place, new FileWrapper(readKeyFile((encryption as { keyFile: string }).keyFile)))
  t.teardown(() => store.close())
  await store.create(`vpg/${vpg}`, Buffer.from('registry'), signal)
  const given: ArrayBufferLike[] = []
  const create = place.create.bind(place)
  let fails = false
  place.create = async (key, body, ...rest) => {
    given.push(body.buffer)
    if (fails) throw new Failure('STORE_UNAVAILABLE', 'its answer is lost, and it may be reading still')
    await create(key, body, ...rest)
  }
  const bodies = [3_000_000, 2_000_000, 2_500_000, 100].map(sizeBytes => randomBytes(sizeBytes))
  const keyOf = (index: number): string => `${vpg}/base/${index}`
  for (const [index, body] of bodies.entries()) await store.create(keyOf(index), body, signal)
  t.equal(new Set(given).size, 1, 'one after the other')
  const two = [10, 11].map(index => store.create(keyOf(index), bodies[index - 10]!, signal))
  await Promise.all(two)
  t.equal(new Set(given.slice(-2)).size, 2, 'two at once')
  fails = true
  await t.rejects(store.create(keyOf(12), bodies[0]!, signal))
  const [doubtful] = given.slice(-1)
  fails = false
  await store.create(keyOf(13), bodies[0]!, signal)
  t.not(given.at(-1), doubtful, "of one that may have failed it is nobody else's")
  for (const [index, body] of [...bodies.entries(), [10, bodies[0]!], [11, bodies[1]!], [13, bodies[0]!]] as const) {
    const range = { startBytes: 1, endBytes: body.length }
    const whole = Buffer.from(await store.readRange(keyOf(index), range, signal, Buffer.alloc(4_000_000)))
    t.ok(whole.equals(body.subarray(1)), `object ${index}`)
  }
})
