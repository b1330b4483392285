import { createHash, randomBytes } from 'node:crypto'
import type { Test } from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import type { FailureCode } from '../../src/base/failure.ts'
import type { ListedObject, ObjectStore } from '../../src/store/store.ts'

// What every ObjectStore promises, run against each of them. Invariants:
//   an object is there whole or not at all; of many racing creators one wins, and what is stored is the winner's body;
//   what was created is listed and readable at once, by everybody; ranges are exact; listings are complete and in byte order.

/** An empty place, and another store open on the same one. */
export interface StorePair {
  readonly store: ObjectStore
  readonly other: ObjectStore
  /** Of the paging test: a real server gets fewer. */
  readonly manyObjects: number
}

const signal = new AbortController().signal

export async function collect(listing: AsyncIterable<ListedObject>): Promise<ListedObject[]> {
  const found: ListedObject[] = []
  for await (const object of listing) found.push(object)
  return found
}

export async function keysOf(listing: AsyncIterable<ListedObject>): Promise<string[]> {
  return (await collect(listing)).map(({ key }) => key)
}

export async function failsWith(t: Test, code: FailureCode, work: Promise<unknown>, message: string): Promise<void> {
  await work.then(
    () => t.fail(`${message}: it succeeded`),
    (error: unknown) => t.ok(failedWith(error, code), `${message}: ${code}, and it was ${String(error)}`),
  )
}

async function wholeObject(store: ObjectStore, key: string): Promise<Buffer> {
  const [found] = await collect(store.list(key, undefined, signal))
  if (found === undefined) throw new Error(`${key} is not listed`)
  return Buffer.from(await store.readRange(key, { startBytes: 0, endBytes: found.sizeBytes }, signal))
}

export function objectStoreContract(t: Test, makeStores: (t: Test) => Promise<StorePair>): void {
  t.test('what was created is read and listed at once, by another store as well', async t => {
    const { store, other } = await makeStores(t)
    for (const sizeBytes of [0, 1, 4096, 300_001]) {
      const key = `vpg/segments/${sizeBytes}`
      const body = randomBytes(sizeBytes)
      await store.create(key, body, signal)
      t.strictSame(await collect(other.list(key, undefined, signal)), [{ key, sizeBytes }])
      t.ok((await wholeObject(other, key)).equals(body), `${sizeBytes} bytes come back as they were`)
    }
  })

  t.test('an object is never replaced', async t => {
    const { store, other } = await makeStores(t)
    await store.create('manifest/1', Buffer.from('first'), signal)
    await failsWith(t, 'ALREADY_EXISTS', store.create('manifest/1', Buffer.from('again'), signal), 'a second create')
    await failsWith(t, 'ALREADY_EXISTS', other.create('manifest/1', Buffer.from('2nd'), signal), "another's create")
    t.equal((await wholeObject(other, 'manifest/1')).toString(), 'first')
  })

  t.test('one of many racing creators wins, and what is stored is the body of the winner', async t => {
    const { store, other } = await makeStores(t)
    for (let round = 0; round < 5; round++) {
      const key = `race/${round}`
      const bodies = Array.from({ length: 12 }, (_, creator) => Buffer.alloc(20_000 + creator, creator + 1))
      const outcomes = await Promise.allSettled(
        bodies.map((body, creator) => (creator % 2 === 0 ? store : other).create(key, body, signal)),
      )
      const winners = outcomes.flatMap((outcome, creator) => (outcome.status === 'fulfilled' ? [creator] : []))
      t.equal(winners.length, 1, 'one creator wins')
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') t.ok(failedWith(outcome.reason, 'ALREADY_EXISTS'), String(outcome.reason))
      }
      t.ok((await wholeObject(store, key)).equals(bodies[winners[0] ?? -1] ?? Buffer.alloc(0)), 'its body is stored')
    }
  })

  t.test('ranges are exact, and none passes the end', async t => {
    const { store } = await makeStores(t)
    const body = randomBytes(10_000)
    await store.create('pack', body, signal)
    const ranges = [
      [0, 10_000],
      [0, 1],
      [9_999, 10_000],
      [4_096, 8_192],
      [17, 17],
      [10_000, 10_000],
    ] as const
    for (const [startBytes, endBytes] of ranges) {
      const found = await store.readRange('pack', { startBytes, endBytes }, signal)
      t.ok(Buffer.from(found).equals(body.subarray(startBytes, endBytes)), `[${startBytes}, ${endBytes})`)
    }
    for (const [startBytes, endBytes] of [
      [0, 10_001],
      [9_999, 10_001],
      [10_000, 10_001],
      [20_000, 20_001],
      [10_001, 10_001],
    ] as const) {
      const read = store.readRange('pack', { startBytes, endBytes }, signal)
      await failsWith(t, 'OBJECT_CORRUPT', read, `[${startBytes}, ${endBytes}) of 10000`)
    }
  })

  t.test('an object that is not there is NOT_FOUND', async t => {
    const { store } = await makeStores(t)
    await store.create('there/it-is', Buffer.from('x'), signal)
    for (const key of ['nowhere', 'there', 'there/it-is/not', 'there/it']) {
      await failsWith(t, 'NOT_FOUND', store.readRange(key, { startBytes: 0, endBytes: 1 }, signal), key)
      await failsWith(t, 'NOT_FOUND', store.readRange(key, { startBytes: 0, endBytes: 0 }, signal), `nothing of ${key}`)
    }
  })

  t.test('keys are listed in byte order, under their prefix, after a key', async t => {
    const { store } = await makeStores(t)
    // '-' and '.' come before '/', digits and letters after it; capitals before small letters.
    const keys = [
      'a-/x',
      'a.b',
      'a/B',
      'a/b-/z',
      'a/b/c',
      'a/b0',
      'a/b=',
      'a/bb/c/d',
      'a0',
      'a_/q',
      'b/1',
      'b/10',
      'b/2',
    ]
    for (const key of keys.toReversed()) await store.create(key, Buffer.from(key), signal)
    t.strictSame(await keysOf(store.list('', undefined, signal)), keys, 'all of them')
    for (const prefix of ['a/', 'a/b', 'a/b/', 'b/1', 'a', 'c', 'a/b/c', 'a/b/c/']) {
      const expected = keys.filter(key => key.startsWith(prefix))
      t.strictSame(await keysOf(store.list(prefix, undefined, signal)), expected, `under "${prefix}"`)
      for (const after of ['a/B', 'a/b-/z', 'a/b/c', 'a/b=', 'b/10', 'a/', 'a/b', 'a/c', 'zz', '0']) {
        const listed = await keysOf(store.list(prefix, after, signal))
        t.strictSame(
          listed,
          expected.filter(key => key > after),
          `under "${prefix}" after "${after}"`,
        )
      }
    }
  })

  t.test('a listing goes on past a page', async t => {
    const { store, manyObjects } = await makeStores(t)
    const keys = Array.from({ length: manyObjects }, (_, index) => `commits/${String(index).padStart(8, '0')}`)
    for (let first = 0; first < keys.length; first += 16) {
      const some = keys.slice(first, first + 16)
      await Promise.all(some.map((key, index) => store.create(key, Buffer.alloc(index), signal)))
    }
    const listed = await collect(store.list('commits/', undefined, signal))
    t.strictSame(
      listed,
      keys.map((key, index) => ({ key, sizeBytes: index % 16 })),
    )
    t.strictSame(await keysOf(store.list('commits/', keys[manyObjects - 3], signal)), keys.slice(-2))
    for await (const { key } of store.list('commits/', undefined, signal)) {
      t.equal(key, keys[0], 'a listing may be left early')
      break
    }
  })

  t.test('what is removed is gone, and removing it again is nothing', async t => {
    const { store, other } = await makeStores(t)
    await store.create('garbage/1', Buffer.from('1'), signal)
    await store.create('garbage/2', Buffer.from('2'), signal)
    await other.remove('garbage/1', signal)
    await store.remove('garbage/1', signal)
    await store.remove('garbage/1/deeper', signal)
    await store.remove('garbage', signal)
    await store.remove('never', signal)
    t.strictSame(await keysOf(store.list('', undefined, signal)), ['garbage/2'])
    await failsWith(
      t,
      'NOT_FOUND',
      store.readRange('garbage/1', { startBytes: 0, endBytes: 1 }, signal),
      'a read of it',
    )
  })

  t.test('names that are no keys are refused before anything is done', async t => {
    const { store } = await makeStores(t)
    for (const key of [
      '',
      '/a',
      'a/',
      'a//b',
      '../a',
      'a/../b',
      'a/./b',
      'a\\b',
      'a b',
      'ä',
      'a\0',
      'x'.repeat(2000),
    ]) {
      const named = JSON.stringify(key.slice(0, 20))
      await failsWith(t, 'REQUEST_INVALID', store.create(key, Buffer.from('x'), signal), `create ${named}`)
      await failsWith(
        t,
        'REQUEST_INVALID',
        store.readRange(key, { startBytes: 0, endBytes: 1 }, signal),
        `read ${named}`,
      )
      await failsWith(t, 'REQUEST_INVALID', store.remove(key, signal), `remove ${named}`)
    }
    await failsWith(t, 'REQUEST_INVALID', keysOf(store.list('../', undefined, signal)), 'list ../')
    t.strictSame(await keysOf(store.list('', undefined, signal)), [])
  })

  t.test('a large object comes back as it was', async t => {
    const { store, other } = await makeStores(t)
    const body = randomBytes(24 * 1024 * 1024 + 7)
    await store.create('large', body, signal)
    const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
    t.equal(digest(await other.readRange('large', { startBytes: 0, endBytes: body.length }, signal)), digest(body))
    const part = { startBytes: 9_000_001, endBytes: 21_000_003 }
    t.equal(digest(await other.readRange('large', part, signal)), digest(body.subarray(9_000_001, 21_000_003)))
  })

  t.test('many requests at once are all served', async t => {
    const { store } = await makeStores(t)
    const warnings: string[] = []
    const note = (warning: Error): void => void warnings.push(warning.message)
    process.on('warning', note)
    const bodies = Array.from({ length: 100 }, (_, index) => randomBytes(1000 + index))
    await Promise.all(bodies.map((body, index) => store.create(`at-once/${index}`, body, signal)))
    const read = (body: Buffer, index: number): Promise<Uint8Array> =>
      store.readRange(`at-once/${index}`, { startBytes: 0, endBytes: body.length }, signal)
    const found = await Promise.all(bodies.map(read))
    t.ok(found.every((bytes, index) => Buffer.from(bytes).equals(bodies[index] ?? Buffer.alloc(0))))
    await new Promise(resolve => setImmediate(resolve))
    process.off('warning', note)
    t.strictSame(warnings, [], 'without a warning about listeners or sockets')
  })

  t.test('nothing is begun for an aborted signal, nor after closing', async t => {
    const { store, other } = await makeStores(t)
    await other.create('kept', Buffer.from('x'), signal)
    const aborted = AbortSignal.abort(new Error('stop'))
    await t.rejects(store.create('not-made', Buffer.from('x'), aborted))
    await t.rejects(store.readRange('kept', { startBytes: 0, endBytes: 1 }, aborted))
    await t.rejects(keysOf(store.list('', undefined, aborted)))
    await t.rejects(store.remove('kept', aborted))
    await store.close()
    await failsWith(t, 'CLOSING', store.create('not-made', Buffer.from('x'), signal), 'create after close')
    await failsWith(t, 'CLOSING', keysOf(store.list('', undefined, signal)), 'list after close')
    t.strictSame(await keysOf(other.list('', undefined, signal)), ['kept'])
  })
}
