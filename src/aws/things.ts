import type { RecoveredThing } from '../recovery/target.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'
import { memoryOf } from './memory.ts'
import { parseSettings } from './settings.ts'

/** What the record knows of: ids of instances, volumes, snapshots; and that a machine did not start because it has nothing to boot from. */
export function thingsOf(record: RecoveryRecord, definition: VpgDefinition): RecoveredThing[] {
  const memory = memoryOf(record.memory)
  const { machines } = parseSettings(record.target.settings, record.vms, definition)
  return machines.flatMap(({ name: vm, volumes, rootVolume }) => {
    const { instance, isBootable } = memory.machines[vm] ?? {}
    const root = volumes.find(({ number }) => number === rootVolume)?.name
    const things: RecoveredThing[] = []
    if (instance !== undefined) things.push({ vm, volume: undefined, kind: 'ec2-instance', place: instance })
    if (isBootable === false)
      things.push({
        vm,
        volume: rootVolume,
        kind: 'note',
        place: `${root} has no boot record: recovered as data, not started`,
      })
    for (const { number } of volumes) {
      const { volume } = memory.volumes[number] ?? {}
      const { snapshot } = memory.snapshots[number] ?? {}
      if (volume !== undefined) things.push({ vm, volume: number, kind: 'ebs-volume', place: volume })
      if (snapshot !== undefined) things.push({ vm, volume: number, kind: 'ebs-snapshot', place: snapshot })
    }
    return things
  })
}
