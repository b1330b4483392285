import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { repairLookMillis, repairMillisBetween, repairMillisBetweenMax } from '../base/limits.ts'
import type { Ingest } from '../ingest/ingest.ts'
import { spoiltVolumes } from '../timeline/repair.ts'
import type { VpgEntry, VpgTable } from './vpg-table.ts'

export interface RepairsParts {
  readonly clock: Clock
  readonly ingest: Pick<Ingest, 'requestSync' | 'status'>
  readonly table: VpgTable
  readonly asked: (repair: {
    readonly vpg: string
    readonly agent: string
    readonly volumes: readonly string[]
  }) => void
}

interface Asked {
  readonly atMillis: number
  /** Until it may be asked for again. */
  readonly delayMillis: number
}

/**
 * Has holes repaired: asks the agent of a hole to compare its volumes with what is here, block by block. Without that nothing new would be offered
 * until a person asks for it. An agent that goes on to send bad records is asked ever more seldom.
 */
export class Repairs {
  readonly #parts: RepairsParts
  readonly #asked = new Map<VpgId, Asked>()
  readonly #closing = new AbortController()
  readonly #keeping: Promise<void>

  constructor(parts: RepairsParts) {
    this.#parts = parts
    this.#keeping = this.#keep()
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#keeping
  }

  /** Asks for what is due. */
  review(): void {
    const { table } = this.#parts
    for (const entry of table.all()) {
      const { id, paused } = entry.definition
      const isTaken = entry.fenced === undefined && !paused && !table.sealingStopped.has(id)
      if (isTaken && entry.openHoles.length > 0) this.#reviewOne(entry)
    }
  }

  #reviewOne(entry: VpgEntry): void {
    const { clock, ingest, asked } = this.#parts
    const { definition } = entry
    const { id, name } = definition
    const nowMillis = clock.monotonicMillis()
    const before = this.#asked.get(id)
    if (before !== undefined && nowMillis - before.atMillis < before.delayMillis) return
    for (const { stream, agent, session } of ingest.status(id).streams) {
      const spoilt = spoiltVolumes(
        entry.openHoles.filter(hole => hole.stream === stream && hole.repair === undefined),
        definition,
      )
      if (session === undefined || spoilt.length === 0) continue
      try {
        ingest.requestSync(id, 'delta', spoilt)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        continue // it has just left: when it is back
      }
      const isSoon = before !== undefined && nowMillis - before.atMillis < 2 * repairMillisBetweenMax
      const delayMillis = isSoon ? Math.min(2 * before.delayMillis, repairMillisBetweenMax) : repairMillisBetween
      this.#asked.set(id, { atMillis: nowMillis, delayMillis })
      const volumes = definition.volumes.filter(volume => spoilt.includes(volume.number))
      asked({ vpg: name, agent, volumes: volumes.map(volume => volume.name) })
    }
  }

  async #keep(): Promise<void> {
    const { signal } = this.#closing
    while (!signal.aborted) {
      this.review()
      await this.#parts.clock.sleep(repairLookMillis, signal).catch(() => undefined)
    }
  }
}
