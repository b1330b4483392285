import type { Aging } from '../aging/aging.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { Ingest } from '../ingest/ingest.ts'
import type { Waiting, Writers } from '../recovery/recovery.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { WritingChange } from '../timeline/definition-change.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { VpgEntry, VpgTable } from './vpg-table.ts'

const pollMillis = 200

export interface VpgWritersParts {
  readonly aging: Pick<Aging, 'changeWriting'>
  readonly clock: Clock
  readonly ingest: Pick<Ingest, 'updateVpg' | 'status' | 'requestCheckpoint'>
  readonly table: Pick<VpgTable, 'get'>
}

/**
 * The end of the writing of a VPG's machines: its agents take no writes any more, and say so when all that they took has its number. What is asked of
 * them is part of the definition, and they write it down: it survives every restart on either side.
 */
export class VpgWriters implements Writers {
  readonly #parts: VpgWritersParts

  constructor(parts: VpgWritersParts) {
    this.#parts = parts
  }

  /** Waits as long as it takes: an agent is away, a synchronisation goes on. Fails CLOSING at the signal; then guests still cannot write. */
  async drain(vpg: VpgId, by: string, { signal, waitsFor }: Waiting): Promise<Checkpoint> {
    const { clock, ingest } = this.#parts
    const entry = this.#entry(vpg)
    const { paused, name } = entry.definition
    if (paused) throw new Failure('REQUEST_INVALID', `${name} is paused: resume it first`)
    await this.#change(entry, { kind: 'quiesce', by })
    for (;;) {
      const away = this.#unquiesced(entry.definition, by)
      if (away.length === 0) {
        try {
          return await ingest.requestCheckpoint(vpg)
        } catch (error) {
          if (!mayPass.some(code => failedWith(error, code))) throw error
          waitsFor((error as Failure).message)
        }
      } else {
        const why = ingest.status(vpg).noCheckpointsBecause
        waitsFor(`the writing ends at ${away.join(', ')}${why === undefined ? '' : `; ${why}`}`)
      }
      await clock.sleep(pollMillis, signal).catch(() => {
        throw new Failure('CLOSING', 'the move was cancelled, or the VRA is shutting down')
      })
    }
  }

  async undrain(vpg: VpgId, by: string): Promise<void> {
    await this.#change(this.#entry(vpg), { kind: 'release', by })
  }

  async handOver(vpg: VpgId, incarnation: number): Promise<void> {
    await this.#change(this.#entry(vpg), { kind: 'hand-over', incarnation })
  }

  /** Durable, then it takes effect. Never decided by what is known here: an earlier change that nobody waited for may have taken effect since. */
  async #change(entry: VpgEntry, change: WritingChange): Promise<void> {
    const { aging, ingest } = this.#parts
    entry.definition = await aging.changeWriting({ vpg: entry.definition.id, change })
    ingest.updateVpg(entry.definition)
  }

  /** Agents that may still take a write, or owe a number to one. */
  #unquiesced({ id, volumes }: VpgDefinition, by: string): string[] {
    return this.#parts.ingest
      .status(id)
      .streams.filter(({ stream }) => volumes.some(volume => volume.stream === stream))
      .filter(({ session, agentStatus }) => session === undefined || agentStatus?.quiescedBy !== by)
      .map(({ agent }) => agent)
  }

  #entry(vpg: VpgId): VpgEntry {
    const entry = this.#parts.table.get(vpg)
    if (entry === undefined) throw new Failure('UNKNOWN_VPG', 'the VPG was deleted')
    return entry
  }
}

const mayPass = ['SYNC_REQUIRED', 'PEER_LOST', 'TIMED_OUT', 'BUSY'] as const
