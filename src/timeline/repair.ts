import type { Checkpoint } from './checkpoint.ts'
import type { VpgDefinition } from './definition.ts'
import type { Hole } from './state.ts'

// How holes close. A synchronisation that looks at all of a volume, begun after a hole was known, leaves nothing of the hole in the volume; its
// checkpoints begin when it is over. So a hole is marked with the generation in which that began, and closed by the first checkpoint in it.

/** An agent has begun to synchronise these volumes whole in this generation of its stream. */
export interface WholeSync {
  readonly stream: number
  readonly generation: number
  readonly wholeVolumes: readonly number[]
}

/** The holes, those that this synchronisation repairs marked with it. The very same list when there is none. */
export function withRepairs(holes: readonly Hole[], sync: WholeSync, definition: VpgDefinition): readonly Hole[] {
  const isRepaired = (hole: Hole): boolean =>
    hole.stream === sync.stream &&
    hole.repairedFromOrdinal === undefined &&
    hole.generation < sync.generation &&
    volumesOf(hole, definition).every(volume => sync.wholeVolumes.includes(volume))
  if (!holes.some(isRepaired)) return holes
  return holes.map(hole => {
    if (!isRepaired(hole)) return hole
    const { stream, generation } = sync
    return { ...hole, repair: { stream, generation, volumes: volumesOf(hole, definition) } }
  })
}

/** The holes, those closed that one of these checkpoints (ascending) closes. The very same list when there is none. */
export function withClosed(holes: readonly Hole[], checkpoints: readonly Checkpoint[]): readonly Hole[] {
  const closing = (hole: Hole): Checkpoint | undefined =>
    hole.repairedFromOrdinal === undefined && hole.repair !== undefined
      ? checkpoints.find(checkpoint => closes(checkpoint, hole))
      : undefined
  if (!holes.some(hole => closing(hole) !== undefined)) return holes
  return holes.map(hole => {
    const checkpoint = closing(hole)
    return checkpoint === undefined ? hole : { ...hole, repairedFromOrdinal: checkpoint.ordinal }
  })
}

function closes({ ordinal, vector, volumes }: Checkpoint, { fromOrdinal, repair }: Hole): boolean {
  if (repair === undefined || ordinal < fromOrdinal) return false
  const position = vector.find(({ stream }) => stream === repair.stream)
  return (
    position !== undefined &&
    position.generation >= repair.generation &&
    repair.volumes.every(number => volumes.some(volume => volume.number === number && volume.included))
  )
}

/** The volumes that have to be synchronised whole for these holes. */
export function spoiltVolumes(holes: readonly Hole[], definition: VpgDefinition): readonly number[] {
  return [...new Set(holes.flatMap(hole => volumesOf(hole, definition)))]
}

/** The volumes in a hole that the stream writes; of records that cannot be read, or of volumes that are gone, all that it writes. */
function volumesOf({ ranges, stream }: Hole, definition: VpgDefinition): readonly number[] {
  const written = definition.volumes.filter(volume => volume.stream === stream).map(volume => volume.number)
  const named = written.filter(number => ranges.some(range => range.volume === number))
  return named.length > 0 ? named : written
}
