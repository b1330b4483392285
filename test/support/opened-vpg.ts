import type { OpenedVpg } from '../../src/aging/service.ts'
import { ordinal, vpgId } from '../../src/base/ids.ts'

/** A VPG as the store gives it at a start: one agent, one small volume, nothing written yet. */
export function openedVpg(changes: Partial<OpenedVpg> = {}): OpenedVpg {
  return {
    definition: {
      id: vpgId('5a'.repeat(16)),
      name: 'orders',
      incarnation: 1,
      volumes: [{ number: 1, name: 'root', sizeBytes: 4096, stream: 1 }],
      streams: [{ number: 1, agent: 'a' }],
      historyMillis: 10_000,
      checkpointIntervalMillis: 1_000,
      syncRateBytesPerSecond: 0,
      paused: false,
      removedVolumes: [],
      journalWarnSizeBytes: 0,
      journalLimitSizeBytes: 0,
      createdAtMicros: 1,
    },
    epoch: 1,
    offloaded: [],
    historyEdge: ordinal(0),
    tags: [],
    recoveries: [],
    holes: [],
    checkpoints: [],
    segments: [],
    pendingMarkers: [],
    foldedThrough: [],
    ...changes,
  }
}
