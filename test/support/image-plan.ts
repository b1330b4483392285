import * as path from 'node:path'
import { newVpgId, ordinal, sequence } from '../../src/base/ids.ts'
import { GiB } from '../../src/base/units.ts'
import { realDisk } from '../../src/disk/disk.ts'
import type { ImagePlan } from '../../src/aging/service.ts'
import { defaultFoldLimits, fold, Workspace } from '../../src/mirror/mirror.ts'
import { openStore, type StoreConfig, type StoreOptions } from '../../src/store/store.ts'
import { MemorySource, type TestWrite } from './mirror-source.ts'
import { packTail } from '../../src/segment/segment.ts'

/** Of volume 1, the only one. */
export const sizeBytes = 3 * GiB + 512
/** All that is in it. */
export const writes: TestWrite[] = [0, 128 * 2 ** 20 - 4096, 2.5 * GiB, 3 * GiB].map((offsetBytes, index) => ({
  volume: 1,
  offsetBytes,
  sizeBytes: index === 1 ? 8192 : 512,
  data: new Uint8Array(index === 1 ? 8192 : 512).fill(index + 1),
}))

/** A plan whose writes are folded into a delta in a store; a directory where no other is given. */
export async function planIn(
  directory: string,
  config: StoreConfig = { kind: 'directory', directory: path.join(directory, 'store') },
  options: StoreOptions = {},
): Promise<ImagePlan> {
  const store = await openStore(config, options)
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
  return {
    pinId: 'p',
    checkpoint,
    state: { ...state, historyEdge: ordinal(0) },
    tail: packTail([]),
    segmentsFrom: vector,
  }
}
