import { Failure } from '../base/failure.ts'
import { volumesPerVpgMax } from '../base/limits.ts'
import type { AgentVolumeConfig } from './options.ts'
import type { ProtectedVolume } from './protected-volume.ts'

/** What has to be done for an agent to serve other volumes. */
export interface VolumeSetChange {
  readonly added: readonly AgentVolumeConfig[]
  readonly removed: readonly ProtectedVolume[]
  /** Their disks are larger than they were opened. */
  readonly grown: readonly ProtectedVolume[]
  /** Why the rest cannot be done while the agent runs, a sentence each. */
  readonly problems: readonly string[]
}

/** Fails CONFIG_INVALID where an agent cannot have these volumes. */
export function checkVolumes(volumes: readonly AgentVolumeConfig[]): void {
  const names = volumes.map(volume => volume.name)
  if (names.length === 0 || names.length > volumesPerVpgMax)
    throw new Failure('CONFIG_INVALID', `an agent has 1 to ${volumesPerVpgMax} volumes, not ${names.length}`)
  if (new Set(names).size !== names.length) throw new Failure('CONFIG_INVALID', 'two volumes have the same name')
  if (new Set(volumes.map(volume => volume.path)).size !== names.length)
    throw new Failure('CONFIG_INVALID', 'two volumes have the same path')
}

/** What leads from the volumes that are served to those that are wanted. */
export function planVolumeSet(
  served: readonly ProtectedVolume[],
  wanted: readonly AgentVolumeConfig[],
): VolumeSetChange {
  checkVolumes(wanted)
  const problems: string[] = []
  const grown: ProtectedVolume[] = []
  for (const volume of served) {
    const config = wanted.find(({ name }) => name === volume.name)
    if (config === undefined) continue
    if (config.path !== volume.path) {
      problems.push(`the volume "${volume.name}" is ${volume.path}: for another disk the agent has to be started again`)
      continue
    }
    const sizeBytes = volume.file.currentSizeBytes()
    if (sizeBytes > volume.sizeBytes) grown.push(volume)
    else if (sizeBytes < volume.sizeBytes)
      problems.push(`the disk ${volume.path} has become smaller: it had ${volume.sizeBytes} bytes and has ${sizeBytes}`)
  }
  return {
    added: wanted.filter(({ name }) => !served.some(volume => volume.name === name)),
    removed: served.filter(volume => !wanted.some(({ name }) => name === volume.name)),
    grown,
    problems,
  }
}
