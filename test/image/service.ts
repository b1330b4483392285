import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { once } from 'node:events'
import * as path from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { newVpgId, ordinal, sequence } from '../../src/base/ids.ts'
import { RpcClient } from '../../src/base/rpc.ts'
import { GiB } from '../../src/base/units.ts'
import { realDisk } from '../../src/disk/disk.ts'
import type { ImagePlan } from '../../src/aging/service.ts'
import type { ImageNotices, ImageService } from '../../src/image/service.ts'
import { defaultFoldLimits, fold, Workspace } from '../../src/mirror/mirror.ts'
import { openStore } from '../../src/store/store.ts'
import { MemorySource, type TestWrite } from '../support/mirror-source.ts'

const sizeBytes = 3 * GiB + 512
const writes: TestWrite[] = [0, 128 * 2 ** 20 - 4096, 2.5 * GiB, 3 * GiB].map((offsetBytes, index) => ({
  volume: 1,
  offsetBytes,
  sizeBytes: index === 1 ? 8192 : 512,
  data: new Uint8Array(index === 1 ? 8192 : 512).fill(index + 1),
}))

/** A plan whose writes are folded into a delta in a directory store. */
async function planIn(directory: string): Promise<ImagePlan> {
  const store = await openStore({ kind: 'directory', directory: path.join(directory, 'store') })
  const vector = [{ stream: 1, generation: 1, sequence: sequence(9) }]
  const volumes = [{ number: 1, sizeBytes, included: true }]
  const checkpoint = { ordinal: ordinal(1), timestampMicros: 1, historyMillis: 1, vector, volumes }
  const id = newVpgId()
  const { packs, rawSizeBytes } = await fold({
    store,
    newKey: () => 'delta/1',
    workspace: new Workspace(),
    yieldNow: () => Promise.resolve(),
    signal: new AbortController().signal,
    vpg: id,
    epoch: 1,
    fromOrdinal: ordinal(0),
    fromVector: [],
    checkpoints: [checkpoint],
    sources: [new MemorySource('segment', [{ stream: 1, generation: 1, firstSequence: 1, writes }])],
    holes: [],
    disk: realDisk,
    scratchDirectory: path.join(directory, 'scratch'),
    limits: defaultFoldLimits,
  })
  await store.close()
  const definition = { id, name: 'a', incarnation: 1, volumes: [], streams: [] }
  const times = {
    historyMillis: 1,
    checkpointIntervalMillis: 1,
    createdAtMicros: 0,
    syncRateBytesPerSecond: 0,
    paused: false,
    removedVolumes: [],
    journalWarnSizeBytes: 0,
    journalLimitSizeBytes: 0,
  }
  const checkpoints = { key: 'none', sizeBytes: 0 }
  const [fromOrdinal, toOrdinal] = [ordinal(0), ordinal(1)]
  const delta = { kind: 'delta', fromOrdinal, toOrdinal, packs, checkpoints, checkpointCount: 1, rawSizeBytes } as const
  const nothing = {
    segments: [],
    regions: [],
    offloaded: [],
    tags: [],
    pins: [],
    recoveries: [],
    holes: [],
    garbage: [],
  }
  const state = { definition: { ...definition, ...times }, epoch: 1, commitNumber: 1, deltas: [delta], ...nothing }
  return { pinId: 'p', checkpoint, state: { ...state, historyEdge: ordinal(0) }, tail: [], segmentsFrom: vector }
}

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
