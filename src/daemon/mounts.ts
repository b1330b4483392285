import { randomBytes } from 'node:crypto'
import type { Aging } from '../aging/aging.ts'
import type { ImagePlan } from '../aging/service.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import type { DiffFacts, DiffQuery, MountFacts, MountRequest } from '../control/service.ts'
import type { Live } from '../live/live.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VolumeDefinition } from '../timeline/definition.ts'
import type { Checkpoints } from './checkpoints.ts'
import type { VpgEntry } from './vpg-table.ts'

export interface MountsParts {
  readonly aging: Pick<Aging, 'openImage' | 'closeImage'>
  readonly checkpoints: Pick<Checkpoints, 'findFor' | 'find'>
  readonly clock: Clock
  readonly live: Live
}

/** Read-only exports of checkpoints, as long as somebody wants them or the daemon runs; and what differs between checkpoints. */
export class Mounts {
  readonly #parts: MountsParts
  readonly #mounts = new Map<string, { readonly vpg: VpgId; readonly facts: MountFacts }>()

  constructor(parts: MountsParts) {
    this.#parts = parts
  }

  /** The checkpoint is pinned, and its volumes are served, on return. */
  async start(request: MountRequest, entry: VpgEntry): Promise<MountFacts> {
    const { clock, live, aging } = this.#parts
    const vpg = entry.definition.id
    const { checkpoint, volumes } = await this.#wanted(request, entry)
    const id = `m-${randomBytes(6).toString('hex')}`
    const mounted = await live.mount({
      id,
      vpg: entry.definition.name,
      volumes,
      openPlan: () => aging.openImage({ vpg, checkpoint, owner: `mount ${id}` }),
      release: plan => aging.closeImage({ vpg, pinId: plan.pinId }),
    })
    const facts: MountFacts = {
      id,
      vpg: entry.definition.name,
      checkpoint: formatCheckpointId(checkpoint.ordinal),
      checkpointTimestampMicros: checkpoint.timestampMicros,
      volumes: volumes.map(({ number, name, sizeBytes }) => ({
        name,
        sizeBytes,
        uri: mounted.find(({ volume }) => volume === number)!.uri,
      })),
      startedAtMicros: clock.timestampMicros(),
    }
    this.#mounts.set(id, { vpg, facts })
    return facts
  }

  /** Newest first. */
  list(): MountFacts[] {
    return [...this.#mounts.values()].map(({ facts }) => facts).reverse()
  }

  /** Its clients are cut off, and the checkpoint is pinned no more, on return. NOT_FOUND. */
  async end(id: string): Promise<void> {
    if (!this.#mounts.delete(id)) throw new Failure('NOT_FOUND', `there is no mount ${id}`)
    await this.#parts.live.unmount(id)
  }

  isReading(vpg: VpgId): boolean {
    return [...this.#mounts.values()].some(mount => mount.vpg === vpg)
  }

  /** Both checkpoints are pinned as long as it takes. */
  async diff({ volume: name, from, to }: DiffQuery, entry: VpgEntry): Promise<DiffFacts> {
    const { aging, checkpoints, clock, live } = this.#parts
    const vpg = entry.definition.id
    const volume = entry.volumeNamed(name)
    const nowMicros = clock.timestampMicros()
    const found = [
      await checkpoints.findFor(entry, volume, from, nowMicros),
      await checkpoints.findFor(entry, volume, to, nowMicros),
    ]
    const plans: ImagePlan[] = []
    try {
      for (const checkpoint of found) plans.push(await aging.openImage({ vpg, checkpoint, owner: 'diff' }))
      const { extents, sizeBytes, granularityBytes } = await live.changedExtents(plans[0]!, plans[1]!, volume.number)
      return {
        vpg: entry.definition.name,
        volume: name,
        from: formatCheckpointId(found[0]!.ordinal),
        to: formatCheckpointId(found[1]!.ordinal),
        sizeBytes,
        granularityBytes,
        extents: Array.from({ length: extents.length / 2 }, (_, index) => ({
          offsetBytes: extents[2 * index]!,
          sizeBytes: extents[2 * index + 1]!,
        })),
      }
    } finally {
      // A pin that cannot be dropped now (store down) is dropped at the next start: it keeps data, it loses none.
      for (const { pinId } of plans) await aging.closeImage({ vpg, pinId }).catch(() => undefined)
    }
  }

  async #wanted(
    request: MountRequest,
    entry: VpgEntry,
  ): Promise<{ checkpoint: Checkpoint; volumes: { number: number; name: string; sizeBytes: number }[] }> {
    const { checkpoints, clock } = this.#parts
    const nowMicros = clock.timestampMicros()
    const only = request.volume === undefined ? undefined : entry.volumeNamed(request.volume)
    const first = only ?? entry.definition.volumes[0]
    if (first === undefined) throw new Failure('UNKNOWN_VOLUME', `${request.vpg} has no volume`)
    const checkpoint = await checkpoints.findFor(entry, first, request.checkpoint, nowMicros)
    const known: readonly VolumeDefinition[] = [...entry.definition.volumes, ...entry.definition.removedVolumes]
    const volumes = checkpoint.volumes
      .filter(({ number, included }) => included && (only === undefined || number === only.number))
      .map(({ number, sizeBytes }) => {
        const name = known.find(volume => volume.number === number)?.name ?? `volume-${number}`
        return { number, name, sizeBytes }
      })
    return { checkpoint, volumes }
  }
}
