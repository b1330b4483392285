import { assertNever } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { streamsPerVpgMax, volumesEverMax, volumesPerVpgMax } from '../base/limits.ts'
import type { StreamDefinition, VolumeDefinition, VpgDefinition } from './definition.ts'

/** What a person changes of the volumes of a VPG that is protected. */
export type VolumeChange =
  | {
      readonly kind: 'add'
      readonly name: string
      readonly sizeBytes: number
      readonly agent: string | undefined
      readonly vm?: string | undefined
    }
  | { readonly kind: 'remove'; readonly name: string }
  | { readonly kind: 'grow'; readonly name: string; readonly sizeBytes: number }

export type VpgSettings = Partial<
  Pick<
    VpgDefinition,
    | 'historyMillis'
    | 'retention'
    | 'checkpointIntervalMillis'
    | 'syncRateBytesPerSecond'
    | 'paused'
    | 'journalWarnSizeBytes'
    | 'journalLimitSizeBytes'
    | 'syncMayPassLimit'
    | 'drillSchedule'
    | 'standbyIntervalMillis'
    | 'snapshotKeys'
  >
>

/** Who may write the VPG: nobody for a while, for the recovery of this id; again; or only agents of this incarnation, or a later one. */
export type WritingChange =
  | { readonly kind: 'quiesce'; readonly by: string }
  | { readonly kind: 'release'; readonly by: string }
  | { readonly kind: 'hand-over'; readonly incarnation: number }

/** The very same definition where it says so already. */
export function withWriting(definition: VpgDefinition, change: WritingChange): VpgDefinition {
  const { quiescedBy = '', incarnation } = definition
  switch (change.kind) {
    case 'quiesce':
      return quiescedBy === change.by ? definition : { ...definition, quiescedBy: change.by }
    case 'release':
      return quiescedBy === change.by ? { ...definition, quiescedBy: '' } : definition
    case 'hand-over':
      return incarnation >= change.incarnation
        ? definition
        : { ...definition, incarnation: change.incarnation, quiescedBy: '' }
    default:
      return assertNever(change)
  }
}

/**
 * The definition after the change. Numbers of volumes and streams are never reused, and older checkpoints keep the volumes and sizes that
 * they were made with. Fails ALREADY_EXISTS, UNKNOWN_VOLUME or REQUEST_INVALID where the change cannot be meant.
 */
export function withVolumeChange(definition: VpgDefinition, change: VolumeChange): VpgDefinition {
  switch (change.kind) {
    case 'add':
      return withVolume(definition, change)
    case 'remove':
      return withoutVolume(definition, change.name)
    case 'grow':
      return withGrownVolume(definition, change.name, change.sizeBytes)
    default:
      return assertNever(change)
  }
}

function withVolume(
  definition: VpgDefinition,
  { name, sizeBytes, agent, vm }: Extract<VolumeChange, { readonly kind: 'add' }>,
): VpgDefinition {
  const { volumes, removedVolumes } = definition
  if (volumes.some(volume => volume.name === name))
    throw new Failure('ALREADY_EXISTS', `${definition.name} has a volume "${name}" already`)
  const numbers = [...volumes, ...removedVolumes].map(volume => volume.number)
  if (volumes.length >= volumesPerVpgMax || numbers.length >= volumesEverMax)
    throw new Failure('REQUEST_INVALID', `${definition.name} has had as many volumes as a VPG may have`)
  const streams = withStream(definition, agent)
  const stream = streams.find(candidate => candidate.agent === (agent ?? streams[0]?.agent))?.number ?? 1
  const number = Math.max(0, ...numbers) + 1
  const added: VolumeDefinition = { number, name, sizeBytes, stream, ...(vm === undefined ? {} : { vm }) }
  return { ...definition, volumes: [...volumes, added], streams }
}

/** With one agent it need not be said; one that is new gets a stream of its own. */
function withStream({ name, streams }: VpgDefinition, agent: string | undefined): readonly StreamDefinition[] {
  if (agent === undefined && streams.length > 1)
    throw new Failure('REQUEST_INVALID', `${name} has several agents: say which of them writes the volume`)
  if (agent === undefined || streams.some(stream => stream.agent === agent)) return streams
  if (streams.length >= streamsPerVpgMax)
    throw new Failure('REQUEST_INVALID', `${name} has had as many agents as a VPG may have`)
  return [...streams, { number: Math.max(0, ...streams.map(stream => stream.number)) + 1, agent }]
}

function withoutVolume(definition: VpgDefinition, name: string): VpgDefinition {
  const removed = volumeNamed(definition, name)
  if (definition.volumes.length === 1)
    throw new Failure('REQUEST_INVALID', `"${name}" is the last volume of ${definition.name}; delete the VPG instead`)
  return {
    ...definition,
    volumes: definition.volumes.filter(volume => volume !== removed),
    removedVolumes: [...definition.removedVolumes, removed],
  }
}

function withGrownVolume(definition: VpgDefinition, name: string, sizeBytes: number): VpgDefinition {
  const before = volumeNamed(definition, name)
  if (sizeBytes < before.sizeBytes)
    throw new Failure('REQUEST_INVALID', `"${name}" has ${before.sizeBytes} bytes, and a volume does not shrink`, {
      sizeBytes: before.sizeBytes,
    })
  const volumes = definition.volumes.map(volume => (volume === before ? { ...volume, sizeBytes } : volume))
  return { ...definition, volumes }
}

function volumeNamed(definition: VpgDefinition, name: string): VolumeDefinition {
  const found = definition.volumes.find(volume => volume.name === name)
  if (found !== undefined) return found
  const names = definition.volumes.map(volume => volume.name).join(', ')
  throw new Failure('UNKNOWN_VOLUME', `${definition.name} has no volume "${name}"; it has ${names}`)
}
