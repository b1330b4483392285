import { randomBytes } from 'node:crypto'
import { statSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { cacheBlockSizeBytes } from '../../src/base/limits.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import { cached, type ByteRange } from '../../src/store/store.ts'
import { MemoryStore } from '../support/mirror-memory-store.ts'
import { objectStoreContract } from '../contract/object-store.ts'
import { CachedStore } from '../../src/store/cached-store.ts'
import { BlockCache } from '../../src/store/block-cache.ts'
import { realFileCalls } from '../../src/disk/disk.ts'
import { DirectoryStore } from '../../src/store/directory-store.ts'
import { randomFrom } from '../support/segment-records.ts'

// Invariants: what is read is what the object holds, whatever happens to the cache's file; the cache stays within its size; what was
// read is read from the store no second time while there is room.

const signal = new AbortController().signal
const block = cacheBlockSizeBytes

async function opened(t: Test, blockCount: number) {
  const file = path.join(t.testdir(), 'cache', 'blocks')
  const memory = new MemoryStore()
  const store = await cached(memory, { file, sizeBytesMax: blockCount * block })
  t.teardown(() => store.close())
  const body = randomBytes(40 * block + 1000)
  await memory.create('a/1', body)
  const read = async (range: ByteRange): Promise<boolean> => {
    const bytes = await store.readRange('a/1', range, signal)
    return Buffer.compare(bytes, body.subarray(range.startBytes, range.endBytes)) === 0
  }
  const at = (offsetBytes: number, sizeBytes = 4 * KiB): ByteRange => ({
    startBytes: offsetBytes,
    endBytes: offsetBytes + sizeBytes,
  })
  return { file, memory, store, body, read, at, facts: () => store.cacheFacts! }
}

t.test('a store with a cache keeps the promises of every store', t => {
  objectStoreContract(t, async t => {
    const directory = t.testdir()
    const open = async (name: string) => {
      const cache = await BlockCache.open(realFileCalls, path.join(directory, name), 8 * block)
      t.teardown(() => cache?.close()) // a store that nobody closes leaves its file to the garbage collector, which complains
      return new CachedStore(await DirectoryStore.open(path.join(directory, 'store')), cache!)
    }
    return { store: await open('one'), other: await open('other'), manyObjects: 30 }
  })
  t.end()
})

t.test(
  'any ranges, in any order, with a cache that is far too small: always the right bytes, never more than its size',
  async t => {
    const { file, body, read, facts } = await opened(t, 6)
    const random = randomFrom(11)
    for (let round = 0; round < 400; round++) {
      const startBytes = Math.floor(random() * body.length)
      const longest = random() < 0.2 ? 3 * MiB : random() < 0.5 ? 5 * KiB : 2 * block
      const endBytes = Math.min(body.length, startBytes + 1 + Math.floor(random() * longest))
      if (!(await read({ startBytes, endBytes }))) t.fail(`bytes ${startBytes} to ${endBytes}`)
    }
    const { sizeBytes, sizeBytesMax, hitSizeBytes, evictedCount, failedCount } = facts()
    t.ok(sizeBytes <= sizeBytesMax && statSync(file).size <= sizeBytesMax)
    t.ok(hitSizeBytes > 0 && evictedCount > 0)
    t.equal(failedCount, 0)
  },
)

t.test('what was read is not asked for again, nor are its neighbours in the block', async t => {
  const { memory, read, at, facts } = await opened(t, 20)
  t.ok(await read(at(block + 70 * KiB)))
  const { readCount } = memory
  t.ok(
    (await read(at(block + 70 * KiB))) &&
      (await read(at(block + 10 * KiB))) &&
      (await read(at(block + 60 * KiB, 14 * KiB))),
  )
  t.equal(memory.readCount, readCount)
  t.match(facts(), { missSizeBytes: 4 * KiB, hitSizeBytes: 22 * KiB })
  t.ok(await read(at(2 * block - 4 * KiB)), 'the rest of it is')
  t.ok(memory.readCount > readCount)
})

t.test('the end of an object, which no block ends with, is kept as well', async t => {
  const { memory, body, read } = await opened(t, 20)
  const tail = { startBytes: body.length - 800, endBytes: body.length }
  t.ok(await read(tail))
  const { readCount } = memory
  t.ok(await read(tail))
  t.equal(memory.readCount, readCount)
})

t.test('one long read does not push out what is read again and again', async t => {
  const { memory, read, at } = await opened(t, 10)
  const hot = [0, 1, 2, 3].map(index => at(index * block, block))
  for (let round = 0; round < 2; round++) for (const range of hot) await read(range)
  for (let start = 8 * block; start < 40 * block; start += 8 * block) t.ok(await read(at(start, 8 * block)))
  const { readCount } = memory
  for (const range of hot) t.ok(await read(range))
  t.equal(memory.readCount, readCount)
})

t.test('a cache that is scribbled over, cut or deleted is as good as empty', async t => {
  const { file, memory, read, at, facts } = await opened(t, 20)
  const ranges = [0, 1, 2, 3].map(index => at(index * block, block))
  for (const range of ranges) await read(range)
  writeFileSync(file, randomBytes(4 * block), { flag: 'r+' })
  for (const range of ranges) t.ok(await read(range))
  t.equal(facts().failedCount, 4)
  truncateSync(file, block / 2)
  for (const range of ranges) t.ok(await read(range))
  const { readCount } = memory
  unlinkSync(file)
  for (const range of ranges) t.ok(await read(range))
  t.equal(memory.readCount, readCount, 'who holds it open goes on with it')
})

t.test('without a place for it nothing is cached, and all is read', async t => {
  const directory = t.testdir({ file: 'no directory' })
  const memory = new MemoryStore()
  t.equal(await cached(memory, { file: path.join(directory, 'file', 'blocks'), sizeBytesMax: 100 * block }), memory)
  t.equal(await cached(memory, { file: path.join(directory, 'blocks'), sizeBytesMax: 0 }), memory)
})
