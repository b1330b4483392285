import { promises as fs } from 'node:fs'
import * as path from 'node:path'
import { spawnSync } from 'node:child_process'
import t from 'tap'
import { publishDurably, realFileCalls, type FileCalls } from '../../src/disk/disk.ts'
import { DirectoryStore } from '../../src/store/directory-store.ts'
import { openStore } from '../../src/store/store.ts'
import { failsWith, keysOf, objectStoreContract } from '../contract/object-store.ts'
import { recordedCalls } from '../support/store-file-calls.ts'

const signal = new AbortController().signal

objectStoreContract(t, async t => {
  const config = { kind: 'directory', directory: path.join(t.testdir(), 'not/there/yet') } as const
  return { store: await openStore(config), other: await openStore(config), manyObjects: 2100 }
})

t.test('on return the object and every directory above it are durable', async t => {
  const root = t.testdir()
  const { calls, undurable } = recordedCalls()
  const store = await DirectoryStore.open(path.join(root, 'a/b/store'), calls)
  t.strictSame(undurable(root), [], 'after opening')
  for (const key of ['one', 'x/y/z/two', 'x/y/three', 'x/w/four']) {
    await store.create(key, Buffer.alloc(5_000_000, 1), signal)
    t.strictSame(undurable(root), [], `after ${key}`)
  }
})

t.test('what a second creator finds is durable when he hears of it', async t => {
  const root = t.testdir()
  const { calls, undurable, failNextDirectorySync } = recordedCalls()
  const store = await DirectoryStore.open(path.join(root, 'store'), calls)
  await store.create('d/before', Buffer.from('x'), signal)
  failNextDirectorySync('EIO')
  await failsWith(t, 'STORE_UNAVAILABLE', store.create('d/key', Buffer.from('mine'), signal), 'the name was not synced')
  await failsWith(t, 'ALREADY_EXISTS', store.create('d/key', Buffer.from('other'), signal), 'the next creator')
  t.strictSame(undurable(root), [])
})

t.test('what a listing shows is durable, though its directory was listed before and then not synced', async t => {
  const root = t.testdir()
  const { calls, undurable, failNextDirectorySync } = recordedCalls()
  const store = await DirectoryStore.open(path.join(root, 'store'), calls)
  await store.create('d/before', Buffer.from('x'), signal)
  await keysOf(store.list('d/', undefined, signal))
  failNextDirectorySync('EIO')
  await failsWith(t, 'STORE_UNAVAILABLE', store.create('d/key', Buffer.from('mine'), signal), 'the name was not synced')
  t.equal(undurable(root).length, 1)
  t.strictSame(await keysOf(store.list('d/', undefined, signal)), ['d/before', 'd/key'])
  t.strictSame(undurable(root), [])
})

t.test('a file whose name could not be synced is durable when the next try finds it there', async t => {
  const root = t.testdir({ staged: 'x' })
  const [from, to] = [path.join(root, 'staged'), path.join(root, 'disk.raw')]
  const { calls, undurable, failNextDirectorySync } = recordedCalls()
  failNextDirectorySync('EIO')
  await t.rejects(publishDurably(calls, from, to), { code: 'EIO' })
  t.strictSame(undurable(root), [to])
  await t.rejects(publishDurably(calls, from, to), { code: 'EEXIST' })
  t.strictSame(undurable(root), [])
})

t.test(
  'what a process finds is durable when it hears of it, though another was killed before it synced the name',
  async t => {
    const root = t.testdir()
    const { calls, undurable, failNextDirectorySync } = recordedCalls()
    const killed = await DirectoryStore.open(path.join(root, 'store'), calls)
    await killed.create('d/before', Buffer.from('x'), signal)
    failNextDirectorySync('EIO')
    await failsWith(t, 'STORE_UNAVAILABLE', killed.create('d/key', Buffer.from('mine'), signal), 'killed here')
    t.equal(undurable(root).length, 1)
    const next = await DirectoryStore.open(path.join(root, 'store'), calls)
    t.strictSame(await keysOf(next.list('d/', undefined, signal)), ['d/before', 'd/key'])
    t.strictSame(undurable(root), [])
  },
)

t.test('a listing that shows nothing asks nothing of the disk', async t => {
  const root = t.testdir()
  const { calls, undurable } = recordedCalls()
  const store = await DirectoryStore.open(path.join(root, 'store'), calls)
  await store.create('d/before', Buffer.from('x'), signal)
  let syncCount = 0
  const counting: typeof calls = {
    ...calls,
    open: async (...argument) => {
      if (String(argument[0]).endsWith('objects/d')) syncCount++
      return await calls.open(...argument)
    },
  }
  const next = await DirectoryStore.open(path.join(root, 'store'), counting)
  t.strictSame(await keysOf(next.list('d/', 'd/before', signal)), [])
  t.equal(syncCount, 0)
  t.strictSame(await keysOf(next.list('d/', undefined, signal)), ['d/before'])
  t.equal(syncCount, 1)
  t.strictSame(undurable(root), [])
})

t.test('a full or failing disk is STORE_UNAVAILABLE, leaves nothing, and a later try succeeds', async t => {
  for (const errorCode of ['ENOSPC', 'EIO', 'EDQUOT', 'EMFILE']) {
    for (const call of ['open', 'write', 'datasync', 'link'] as const) {
      const directory = path.join(t.testdir(), `${errorCode}-${call}`)
      let fails = false
      const store = await DirectoryStore.open(
        directory,
        failingCalls(call, errorCode, () => fails),
      )
      await store.create('k/first', Buffer.from('x'), signal)
      fails = true
      await failsWith(
        t,
        'STORE_UNAVAILABLE',
        store.create('k/2', Buffer.alloc(9_000_000), signal),
        `${errorCode} of ${call}`,
      )
      t.strictSame(await keysOf(store.list('', undefined, signal)), ['k/first'], 'nothing is seen of it')
      t.strictSame(await fs.readdir(path.join(directory, 'staging')), [], 'nothing is left of it')
      fails = false
      await store.create('k/2', Buffer.alloc(9_000_000), signal)
      t.strictSame(await keysOf(store.list('', undefined, signal)), ['k/2', 'k/first'])
    }
  }
})

t.test('an object that the disk cannot read is damaged, and the others are read', async t => {
  let fails = false
  const calls: FileCalls = {
    ...realFileCalls,
    open: async (...given) => {
      const handle = await realFileCalls.open(...given)
      if (fails && String(given[0]).endsWith('bad')) Object.assign(handle, { read: rejecting('EIO', 'read') })
      return handle
    },
  }
  const store = await DirectoryStore.open(t.testdir(), calls)
  for (const key of ['k/bad', 'k/good']) await store.create(key, Buffer.from('whole'), signal)
  fails = true
  const range = { startBytes: 0, endBytes: 5 }
  await failsWith(t, 'OBJECT_CORRUPT', store.readRange('k/bad', range, signal), 'its sector is bad')
  t.equal(String(await store.readRange('k/good', range, signal)), 'whole')
})

t.test('a directory that may not be used is a final failure, in words', async t => {
  const calls = { ...realFileCalls, mkdir: rejecting('EACCES', 'mkdir') } as FileCalls
  await failsWith(t, 'CONFIG_INVALID', DirectoryStore.open(t.testdir(), calls), 'no permission')
})

t.test('short writes and short reads are carried on', async t => {
  const open: FileCalls['open'] = async (...given) => {
    const handle = await realFileCalls.open(...given)
    const write = handle.write.bind(handle) as Transfer
    const read = handle.read.bind(handle) as Transfer
    const atMost = (sizeBytes: number, transfer: Transfer): Transfer => {
      return (data, at, length, position) => transfer(data, at, Math.min(length, sizeBytes), position)
    }
    Object.assign(handle, { write: atMost(700, write), read: atMost(300, read) })
    return handle
  }
  const store = await DirectoryStore.open(t.testdir(), { ...realFileCalls, open })
  const body = Buffer.from(Array.from({ length: 10_000 }, (_, index) => index % 251))
  await store.create('k', body, signal)
  t.ok(body.equals(await store.readRange('k', { startBytes: 0, endBytes: 10_000 }, signal)))
})

t.test('an abort in the middle of a create leaves nothing', async t => {
  const directory = t.testdir()
  const aborter = new AbortController()
  const open: FileCalls['open'] = async (...given) => {
    const handle = await realFileCalls.open(...given)
    const { write } = handle
    handle.write = (async (...written: Parameters<typeof write>) => {
      aborter.abort(new Error('stop'))
      return await write.apply(handle, written)
    }) as typeof write
    return handle
  }
  const store = await DirectoryStore.open(directory, { ...realFileCalls, open })
  await t.rejects(store.create('k', Buffer.alloc(9_000_000), aborter.signal), { message: 'stop' })
  t.strictSame(await keysOf(store.list('', undefined, signal)), [])
  t.strictSame(await fs.readdir(path.join(directory, 'staging')), [])
})

t.test('a small range is read without another question, but where too little comes', async t => {
  let statCount = 0
  const open: FileCalls['open'] = async (...asked) => {
    const handle = await realFileCalls.open(...asked)
    const stat = handle.stat.bind(handle)
    handle.stat = ((...of: Parameters<typeof stat>) => {
      statCount++
      return stat(...of)
    }) as typeof handle.stat
    return handle
  }
  const store = await DirectoryStore.open(path.join(t.testdir(), 'store'), { ...realFileCalls, open })
  await store.create('d/key', Buffer.from('0123456789'), signal)
  statCount = 0
  const read = (endBytes: number) => store.readRange('d/key', { startBytes: 4, endBytes }, signal)
  t.equal(String(await read(8)), '4567')
  t.equal(statCount, 0)
  await failsWith(t, 'OBJECT_CORRUPT', read(11), 'past the end')
  t.equal(statCount, 1)
})

t.test('an object may not be a directory of another', async t => {
  const store = await DirectoryStore.open(t.testdir())
  await store.create('a/b', Buffer.from('x'), signal)
  await failsWith(t, 'REQUEST_INVALID', store.create('a', Buffer.from('x'), signal), 'above an object')
  await failsWith(t, 'REQUEST_INVALID', store.create('a/b/c', Buffer.from('x'), signal), 'below an object')
})

t.test('a directory removed behind the store is made again', async t => {
  const directory = t.testdir()
  const store = await DirectoryStore.open(directory)
  await store.create('vpg/1', Buffer.from('x'), signal)
  await fs.rm(path.join(directory, 'objects/vpg'), { recursive: true })
  await fs.rm(path.join(directory, 'staging'), { recursive: true })
  await store.create('vpg/2', Buffer.from('x'), signal)
  t.strictSame(await keysOf(store.list('', undefined, signal)), ['vpg/2'])
})

t.test('opening clears what a killed process left, and nothing that another is making', async t => {
  const directory = t.testdir()
  const script = `
    import { DirectoryStore } from ${JSON.stringify(new URL('../../src/store/directory-store.js', import.meta.url).href)}
    import { promises } from 'node:fs'
    const link = () => process.kill(process.pid, 'SIGKILL')
    const store = await DirectoryStore.open(${JSON.stringify(directory)}, { ...promises, link })
    await store.create('k', Buffer.from('x'), new AbortController().signal)`
  t.equal(spawnSync(process.execPath, ['--input-type=module', '-e', script]).signal, 'SIGKILL')
  const staging = path.join(directory, 'staging')
  t.equal((await fs.readdir(staging)).length, 1, 'it left its bytes')

  let finishLink = (): void => undefined
  const mayLink = new Promise<void>(resolve => (finishLink = resolve))
  let staged = (): void => undefined
  const isStaged = new Promise<void>(resolve => (staged = resolve))
  const link: FileCalls['link'] = async (from, to) => {
    staged()
    await mayLink
    await realFileCalls.link(from, to)
  }
  const slow = await DirectoryStore.open(directory, { ...realFileCalls, link })
  t.strictSame(await fs.readdir(staging), [], 'the next to open clears it away')
  const creating = slow.create('k', Buffer.from('y'), signal)
  await isStaged
  await fs.writeFile(path.join(staging, 'of-another-host'), 'z')
  await DirectoryStore.open(directory)
  t.equal((await fs.readdir(staging)).length, 2, 'what is being made is left alone')
  const yesterday = Date.now() / 1000 - 25 * 3600
  await fs.utimes(path.join(staging, 'of-another-host'), yesterday, yesterday)
  await DirectoryStore.open(directory)
  t.equal((await fs.readdir(staging)).length, 1, 'what nobody has touched for a day is not')
  finishLink()
  await creating
  t.strictSame(await keysOf(slow.list('', undefined, signal)), ['k'])
})

type Transfer = (data: Uint8Array, at: number, length: number, position: number) => Promise<unknown>

function rejecting(errorCode: string, systemCall: string): () => Promise<never> {
  return async () => {
    throw Object.assign(new Error(`${errorCode}: ${systemCall}`), { code: errorCode, syscall: systemCall })
  }
}

function failingCalls(
  call: 'open' | 'write' | 'datasync' | 'link',
  errorCode: string,
  isFailing: () => boolean,
): FileCalls {
  const fail = rejecting(errorCode, call)
  return {
    ...realFileCalls,
    link: async (from, to) => (isFailing() && call === 'link' ? await fail() : await realFileCalls.link(from, to)),
    open: async (file, flags, mode) => {
      if (isFailing() && call === 'open' && flags === 'wx') return await fail()
      const handle = await realFileCalls.open(file, flags, mode)
      if (isFailing() && call === 'write') handle.write = fail as typeof handle.write
      if (isFailing() && call === 'datasync') handle.datasync = fail as typeof handle.datasync
      return handle
    },
  }
}
