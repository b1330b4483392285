import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { once } from 'node:events'
import * as path from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { RpcClient } from '../../src/base/rpc.ts'
import type { ImageNotices, ImageService } from '../../src/image/service.ts'
import { planIn, sizeBytes, writes } from '../support/image-plan.ts'

t.test(
  'the thread exports a volume, tells how far it is, passes failures on by code, and ends when it is closed',
  async t => {
    const directory = path.resolve(t.testdir())
    const plan = await planIn(directory)
    const worker = new Worker(new URL('../../src/image/image-worker.js', import.meta.url))
    const ended = once(worker, 'exit')
    const progress: ImageNotices['exportProgress'][] = []
    const client = new RpcClient<ImageService>(worker, (_name, value) =>
      progress.push(value as ImageNotices['exportProgress']),
    )
    const store = { kind: 'directory', directory: path.join(directory, 'store') } as const
    await client.call('open', { store, dataDirectory: directory, cacheSizeBytes: 2 ** 20 })
    const file = path.join(directory, 'volume.raw')
    const argument = { id: 'one', plan, volume: 1, file, existing: 'refuse' } as const
    const result = await client.call('exportRaw', argument)
    t.match(result, { sizeBytes, writtenSizeBytes: 8192 + 3 * 512 })
    t.equal(statSync(file).size, sizeBytes)
    const descriptor = openSync(file, 'r')
    for (const write of writes) {
      const found = Buffer.alloc(write.sizeBytes)
      readSync(descriptor, found, 0, found.length, write.offsetBytes)
      t.strictSame(found, Buffer.from(write.data!))
    }
    closeSync(descriptor)
    t.match(progress.at(-1), { id: 'one', doneBytes: 9728, totalBytes: 9728 })
    await t.rejects(client.call('exportRaw', argument), { code: 'ALREADY_EXISTS' })
    await t.rejects(client.call('exportRaw', { ...argument, volume: 2, existing: 'replace' }), {
      code: 'UNKNOWN_VOLUME',
    })
    const cancelled = client.call('exportRaw', { ...argument, existing: 'replace' })
    await client.call('cancel', { id: 'one' })
    await t.rejects(cancelled, { code: 'CLOSING' })
    await client.call('cancel', { id: 'nothing of that id' })
    await client.call('close', undefined)
    await ended
  },
)
