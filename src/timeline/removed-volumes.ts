import type { Ordinal } from '../base/ids.ts'
import type { Checkpoint } from './checkpoint.ts'
import type { VpgDefinition } from './definition.ts'

// When what the mirror holds of a removed volume may leave. Its agent goes on naming it in markers until it has heard of the removal, and
// such markers may wait for long, on both sides. Numbers of volumes are not used again, and checkpoints rise: the first one that was made after the removal
// and does not name the volume is the end of it. Should a later one name it all the same, it is not read there (isGoneAt).

/** The definition after a removal that was decided when markers up to this had been seen. */
export function withRemovalNoted(definition: VpgDefinition, newestOrdinal: Ordinal): VpgDefinition {
  const removedVolumes = definition.removedVolumes.map((volume, index, all) =>
    index === all.length - 1 ? { ...volume, removedAfterOrdinal: newestOrdinal } : volume,
  )
  return { ...definition, removedVolumes }
}

/** True where a removed volume is not read any more, whatever the checkpoint's own list of volumes says. */
export function isGoneAt(
  { removedVolumes }: Pick<VpgDefinition, 'removedVolumes'>,
  volume: number,
  at: Ordinal,
): boolean {
  const removed = removedVolumes.find(({ number }) => number === volume)
  return removed?.goneFromOrdinal !== undefined && at >= removed.goneFromOrdinal
}

/** With the ends that the newest checkpoint tells; the very same where it tells none. */
export function withVolumesGone(definition: VpgDefinition, newest: Checkpoint | undefined): VpgDefinition {
  const { removedVolumes } = definition
  if (newest === undefined) return definition
  const noted = removedVolumes.map(volume => {
    const { number, removedAfterOrdinal, goneFromOrdinal } = volume
    const isGone =
      goneFromOrdinal === undefined &&
      removedAfterOrdinal !== undefined &&
      newest.ordinal > removedAfterOrdinal &&
      !newest.volumes.some(named => named.number === number)
    return isGone ? { ...volume, goneFromOrdinal: newest.ordinal } : volume
  })
  return noted.every((volume, index) => volume === removedVolumes[index])
    ? definition
    : { ...definition, removedVolumes: noted }
}
