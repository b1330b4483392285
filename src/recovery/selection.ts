import { Failure } from '../base/failure.ts'
import { formatCheckpointId } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { vmOf, type VolumeDefinition, type VpgDefinition } from '../timeline/definition.ts'
import type { RecoveryVm } from '../timeline/recovery.ts'

/** Names of machines and of volumes; of both everything where neither is named. */
export interface Selection {
  readonly vms: readonly string[]
  readonly volumes: readonly string[]
}

/**
 * The volumes that are named, of now or of before, or undefined where none is: then it is what the checkpoint has. Fails UNKNOWN_VOLUME, or REQUEST_INVALID
 * for a machine that has none.
 */
export function volumesMeant(definition: VpgDefinition, { vms, volumes }: Selection): VolumeDefinition[] | undefined {
  if (vms.length === 0 && volumes.length === 0) return undefined
  const all = [...definition.volumes, ...definition.removedVolumes.toReversed()]
  const ofVms = vms.flatMap(vm => {
    const own = definition.volumes.filter(volume => vmOf(definition, volume) === vm)
    if (own.length > 0) return own
    const known = [...new Set(definition.volumes.map(volume => vmOf(definition, volume)))]
    throw new Failure(
      'REQUEST_INVALID',
      `${definition.name} has no volume of a machine "${vm}"; it has ${known.join(', ')}`,
    )
  })
  const named = volumes.map(name => {
    const found = all.find(volume => volume.name === name)
    if (found !== undefined) return found
    const known = definition.volumes.map(volume => volume.name)
    throw new Failure('UNKNOWN_VOLUME', `${definition.name} has no volume "${name}"; it has ${known.join(', ')}`)
  })
  return [...new Set([...ofVms, ...named])]
}

/**
 * These volumes, or all that the checkpoint has, by machine, in the order of their numbers. Fails CHECKPOINT_MISSING where the checkpoint does not include one
 * of them; `instead` says in words what there is.
 */
export function vmsOf(
  definition: VpgDefinition,
  checkpoint: Checkpoint,
  meant: readonly VolumeDefinition[] | undefined,
  instead: string,
): RecoveryVm[] {
  const all = [...definition.volumes, ...definition.removedVolumes]
  const wanted = meant ?? checkpoint.volumes.flatMap(({ number }) => all.find(volume => volume.number === number) ?? [])
  const missing = wanted.filter(
    ({ number }) => !checkpoint.volumes.some(volume => volume.number === number && volume.included),
  )
  if (missing.length > 0) {
    const names = missing.map(({ name }) => `"${name}"`).join(', ')
    const sentence = `checkpoint ${describe(checkpoint)} of ${definition.name} does not include ${names}: ${instead}`
    throw new Failure('CHECKPOINT_MISSING', sentence)
  }
  const byVm = new Map<string, number[]>()
  for (const volume of [...wanted].sort((a, b) => a.number - b.number)) {
    const vm = vmOf(definition, volume)
    const numbers = byVm.get(vm)
    if (numbers === undefined) byVm.set(vm, [volume.number])
    else numbers.push(volume.number)
  }
  return [...byVm].map(([name, volumes]) => ({ name, volumes }))
}

/** "3.1204 of 2026-03-29T02:15:00.000Z" */
function describe({ ordinal, timestampMicros }: Checkpoint): string {
  return `${formatCheckpointId(ordinal)} of ${new Date(timestampMicros / 1000).toISOString()}`
}
