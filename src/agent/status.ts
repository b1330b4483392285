import type { AgentStatus, VolumeStatus } from '../wire/wire.ts'
import type { AgentVolumeStatus } from './options.ts'
import type { ProtectedVolume } from './protected-volume.ts'
import type { Unreadable } from './sync/engine.ts'

// What an agent tells of its volumes: to people on its own host, and to the VRA.

export function volumeReport(
  volume: ProtectedVolume,
  unreadable: readonly Unreadable[],
  clientCount: number,
): AgentVolumeStatus {
  const { name, path, sizeBytes, progress, map } = volume
  const isSyncing = volume.sync !== undefined
  return {
    name,
    path,
    sizeBytes,
    clientCount,
    sync: volume.syncKind,
    reason: reasonOf(volume, unreadable),
    refusal: volume.refusal ?? '',
    sinceTimestampMicros: volume.sync?.sinceTimestampMicros ?? 0,
    ...syncBytes(volume),
    syncRateBytesPerSecond: isSyncing ? progress.rateBytesPerSecond() : 0,
    syncEtaSeconds: isSyncing ? progress.secondsFor(map.pendingCount * map.regionSizeBytes) : undefined,
    dirtyBytes: dirtyBytesOf(volume),
    unreadable,
  }
}

export function volumeMessage(
  volume: ProtectedVolume,
  number: number,
  unreadable: readonly Unreadable[],
): VolumeStatus {
  return {
    number,
    needsSync: volume.sync !== undefined,
    reason: reasonOf(volume, unreadable).slice(0, sentenceSizeCharactersMax),
    sinceTimestampMicros: volume.sync?.sinceTimestampMicros ?? 0,
    sync: volume.syncKind,
    ...syncBytes(volume),
    dirtyBytes: dirtyBytesOf(volume),
  }
}

export function statusMessage(
  queue: { readonly queuedBytes: number; readonly queuedRecords: number },
  volumes: readonly VolumeStatus[],
  { noCheckpointsBecause, quiescedBy }: Pick<AgentStatus, 'noCheckpointsBecause' | 'quiescedBy'>,
): AgentStatus {
  const { queuedBytes, queuedRecords } = queue
  return {
    type: 'agent-status',
    queuedBytes,
    queuedRecords,
    volumes,
    noCheckpointsBecause: noCheckpointsBecause.slice(0, sentenceSizeCharactersMax),
    quiescedBy,
  }
}

/** As proto/README.md, section 2, bounds them. */
const sentenceSizeCharactersMax = 1_000

function reasonOf({ sync, heldBecause }: ProtectedVolume, unreadable: readonly Unreadable[]): string {
  const [first] = unreadable
  if (sync === undefined) return ''
  if (heldBecause !== undefined) return `it waits, ${heldBecause}: ${sync.reason}`
  if (first === undefined) return sync.reason
  const more = unreadable.length > 1 ? ` and ${unreadable.length - 1} more places` : ''
  return `the local disk cannot be read at ${first.offsetBytes}${more} (${first.reason}), so the synchronisation cannot end: ${sync.reason}`
}

function syncBytes({ sync, map, progress, sizeBytes }: ProtectedVolume) {
  if (sync === undefined) return { syncTotalBytes: 0, syncDoneBytes: 0, syncSentBytes: 0 }
  const remainingBytes = map.pendingCount * map.regionSizeBytes
  const syncTotalBytes = Math.min(sizeBytes, progress.doneBytes + remainingBytes)
  return {
    syncTotalBytes,
    syncDoneBytes: Math.max(0, syncTotalBytes - remainingBytes),
    syncSentBytes: progress.sentBytes,
  }
}

function dirtyBytesOf({ map, sizeBytes }: ProtectedVolume): number {
  return Math.min(sizeBytes, map.dirtyBytes)
}
