import type { CutMarker, CutStream } from '../cut/cut.ts'
import type { MarkerVolume } from '../wire/wire.ts'
import type { AgentEvents } from './events.ts'
import { NumberingHold } from './numbering-gate.ts'
import type { ProtectedVolume } from './protected-volume.ts'
import type { StateDirectory } from './state-directory.ts'
import type { Stream } from './stream.ts'

export interface CheckpointHost {
  readonly events: AgentEvents
  readonly directory: StateDirectory
  readonly stream: Stream
  volumes(): readonly ProtectedVolume[]
  /** Why the stream is not exact, a sentence; empty where it is. */
  whyDetached(): string
  /** Durable on return: records are numbered from now on. Throws where it cannot be written down. */
  noteRunning(): void
}

/**
 * The checkpoints of this agent's stream: whether there can be one, and the one place that numbers a marker. Every call is one
 * synchronous step.
 */
export class Checkpoints implements CutStream {
  readonly gate = new NumberingHold()
  readonly #host: CheckpointHost
  #last: { readonly term: number; readonly counter: number; readonly timestampMicros: number } | undefined
  #writtenSinceMarker = false

  constructor(host: CheckpointHost) {
    this.#host = host
    const { lastMarker } = host.directory.state
    if (lastMarker.counter > 0) this.#last = { ...lastMarker, timestampMicros: 0 }
  }

  /** The newest that was numbered. */
  get last() {
    return this.#last
  }
  get hasWritesSinceLast(): boolean {
    return this.#writtenSinceMarker
  }

  noteWrite(): void {
    this.#writtenSinceMarker = true
  }

  /** Why the stream can be in no checkpoint now, a sentence; undefined where it can. */
  whyNot(): string | undefined {
    const { stream, directory } = this.#host
    if (!stream.isExact) return this.#host.whyDetached()
    if (directory.state.stream === undefined) return 'the VRA has not been reached yet'
    const volumes = this.#served()
    const unexact = volumes.find(volume => volume.syncKind !== 'none' && volume.syncKind !== 'initial')
    if (unexact?.sync !== undefined)
      return `the volume "${unexact.name}" is in a ${unexact.sync.kind} synchronisation: ${unexact.sync.reason}`
    if (this.#isAlone && volumes.every(volume => volume.sync !== undefined))
      return 'every volume is in its first synchronisation'
    return undefined
  }

  /** This agent's volumes, as its marker names them. */
  volumes(): readonly MarkerVolume[] {
    return this.#served().flatMap(volume => (volume.number === undefined ? [] : [volume.asMember(volume.number)]))
  }

  /** Every other volume of the VPG: one that its agent does not have yet is in no checkpoint. */
  absent(named: readonly MarkerVolume[]): readonly MarkerVolume[] {
    const { vpgVolumes } = this.#host.directory.state
    const numbers = named.map(volume => volume.number)
    return vpgVolumes
      .filter(({ number }) => !numbers.includes(number))
      .map(({ number, sizeBytes }) => ({ number, sizeBytes, included: false }))
  }

  /** From its return until release() no record gets a number, so no write that has none is answered. Never twice without release(). */
  hold(): void {
    this.gate.hold()
  }

  release(): void {
    this.gate.release()
  }

  /** On return the marker has the next number, held or not. Throws where the agent cannot write down what it must remember of it. */
  mark(marker: CutMarker): void {
    try {
      this.#host.noteRunning()
    } catch (error) {
      this.#host.events.stateNotSaved(error)
      throw error
    }
    this.#host.stream.appendMarker(marker)
    const { term, counter, timestampMicros, requestId } = marker
    this.#last = { term, counter, timestampMicros }
    this.#writtenSinceMarker = false
    this.#host.events.markerNumbered({ term, counter, requestId })
  }

  /** Those that the VRA takes. */
  #served(): readonly ProtectedVolume[] {
    return this.#host.volumes().filter(volume => volume.refusal === undefined)
  }

  get #isAlone(): boolean {
    return (this.#host.directory.state.coordinator?.participants.length ?? 0) <= 1
  }
}
