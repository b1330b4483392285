import type { Aging } from '../aging/aging.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import type { Ingest } from '../ingest/ingest.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { VpgEntry } from './vpg-table.ts'

const pollMillis = 200

export interface DrainParts {
  readonly aging: Pick<Aging, 'changeVpg'>
  readonly clock: Clock
  readonly ingest: Pick<Ingest, 'updateVpg' | 'status' | 'requestCheckpoint'>
}

/**
 * The end of the writing of a VPG's machines, for a move: its agents take no writes any more, and say so when all that they took has its number; what
 * they say, and that they are to, survives every restart on either side.
 */
export class Drain {
  readonly #parts: DrainParts

  constructor(parts: DrainParts) {
    this.#parts = parts
  }

  /**
   * The last checkpoint: nothing was ever answered to a guest that it lacks, and nothing is written until release(). Waits as long as it takes
   * (an agent is away, a synchronisation goes on), saying for what. Fails CLOSING at the signal; then guests still cannot write.
   */
  async drain(
    entry: VpgEntry,
    by: string,
    { signal, waitsFor }: { readonly signal: AbortSignal; readonly waitsFor: (sentence: string) => void },
  ): Promise<Checkpoint> {
    const { clock, ingest } = this.#parts
    const { paused, name, id } = entry.definition
    if (paused) throw new Failure('REQUEST_INVALID', `${name} is paused: resume it first`)
    if (entry.definition.quiescedBy !== by) await this.#ask(entry, by)
    for (;;) {
      const away = this.#unquiesced(entry.definition, by)
      if (away.length === 0) {
        try {
          return await ingest.requestCheckpoint(id)
        } catch (error) {
          if (!failedWith(error, 'SYNC_REQUIRED') && !failedWith(error, 'PEER_LOST') && !failedWith(error, 'TIMED_OUT'))
            throw error
          waitsFor(error.message)
        }
      } else {
        const why = ingest.status(id).noCheckpointsBecause
        waitsFor(`${away.join(', ')}: writes are ending${why === undefined ? '' : `; ${why}`}`)
      }
      await clock.sleep(pollMillis, signal).catch(() => {
        throw new Failure('CLOSING', 'the move was cancelled, or the VRA is shutting down')
      })
    }
  }

  /** Guests may write again, as soon as their agents hear of it. Durable on return. */
  async release(entry: VpgEntry, by: string): Promise<void> {
    if (entry.definition.quiescedBy === by) await this.#ask(entry, '')
  }

  async #ask(entry: VpgEntry, quiescedBy: string): Promise<void> {
    const { aging, ingest } = this.#parts
    entry.definition = await aging.changeVpg({ vpg: entry.definition.id, quiescedBy }) // durable, then it takes effect
    ingest.updateVpg(entry.definition)
  }

  /** Agents that may still take a write, or owe a number to one. */
  #unquiesced({ id, volumes }: VpgDefinition, by: string): string[] {
    return this.#parts.ingest
      .status(id)
      .streams.filter(({ stream }) => volumes.some(volume => volume.stream === stream))
      .filter(({ agentStatus }) => agentStatus?.quiescedBy !== by)
      .map(({ agent }) => agent)
  }
}
