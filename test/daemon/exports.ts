import * as path from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import type { ImagePlan, OpenedVpg } from '../../src/aging/service.ts'
import { systemClock } from '../../src/base/clock.ts'
import { ordinal, vpgId } from '../../src/base/ids.ts'
import { Exports, type ImageOpener } from '../../src/daemon/exports.ts'
import { VpgEntry } from '../../src/daemon/vpg-table.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { packTail } from '../../src/segment/segment.ts'

const definition = {
  id: vpgId('5a'.repeat(16)),
  name: 'orders',
  incarnation: 1,
  volumes: [{ number: 1, name: 'root', sizeBytes: 1024 * 1024, stream: 1 }],
  streams: [{ number: 1, agent: 'a' }],
  historyMillis: 10_000,
  checkpointIntervalMillis: 1_000,
  syncRateBytesPerSecond: 0,
  paused: false,
  removedVolumes: [],
  journalWarnSizeBytes: 0,
  journalLimitSizeBytes: 0,
  createdAtMicros: 1,
}
const none = { tags: [], recoveries: [], holes: [], segments: [], pendingMarkers: [], foldedThrough: [] }
const opened: OpenedVpg = {
  ...{ definition, epoch: 1, offloaded: [], historyEdge: ordinal(0), checkpoints: [] },
  ...none,
}
const checkpoint: Checkpoint = {
  ordinal: ordinal(2 ** 32 + 1),
  timestampMicros: 1_000_000,
  historyMillis: 0,
  vector: [{ stream: 1, generation: 1, sequence: 1 as Checkpoint['vector'][number]['sequence'] }],
  volumes: [{ number: 1, sizeBytes: 1024 * 1024, included: true }],
}

/** The plan of an image without a write: zeros. */
function emptyPlan(pinId: string): ImagePlan {
  const state = {
    ...{ definition, epoch: 1, commitNumber: 1, historyEdge: ordinal(0), offloaded: [] },
    ...{ deltas: [], segments: [], regions: [], tags: [], pins: [], recoveries: [], holes: [], garbage: [] },
  }
  return { pinId, checkpoint, state, tail: packTail([]), segmentsFrom: [] }
}

t.test('an export that ends with its thread says so, gives its pin back, and the next one has a thread', async t => {
  const directory = t.testdir()
  const workers: Worker[] = []
  const closed: string[] = []
  let onOpenImage = (): void => undefined
  const aging: ImageOpener = {
    openImage: async () => {
      onOpenImage()
      return emptyPlan('pin')
    },
    closeImage: async ({ pinId }) => void closed.push(pinId),
  }
  const config = {
    store: { kind: 'directory', directory: path.join(directory, 'store') } as const,
    dataDirectory: path.join(directory, 'data'),
    cacheSizeBytes: 1024 * 1024,
  }
  const exports = new Exports(
    config,
    aging,
    systemClock,
    (_, sentence) => t.fail(sentence),
    () => {
      const worker = new Worker(new URL('../../src/image/image-worker.js', import.meta.url))
      workers.push(worker)
      return worker
    },
  )
  t.teardown(() => exports.close())
  const entry = new VpgEntry(opened, systemClock)
  const request = { vpg: 'orders', checkpoint: 'latest', volume: 'root', overwrite: false }
  const ended = async (id: string): Promise<string> => {
    while (exports.get(id).state === 'running') await new Promise(resolve => setTimeout(resolve, 5))
    return exports.get(id).state
  }

  onOpenImage = () => void workers[0]?.terminate()
  const lost = await exports.start({ ...request, file: path.join(directory, 'a.raw') }, entry, checkpoint)
  t.equal(await ended(lost.id), 'failed')
  t.match(exports.get(lost.id).failure, { code: 'PEER_LOST' })
  onOpenImage = () => undefined
  const next = await exports.start({ ...request, file: path.join(directory, 'b.raw') }, entry, checkpoint)
  t.equal(await ended(next.id), 'done', exports.get(next.id).failure?.sentence ?? '')
  t.equal(workers.length, 2)
  while (closed.length < 2) await new Promise(resolve => setTimeout(resolve, 5))
})
