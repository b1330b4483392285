import { Failure } from '../base/failure.ts'
import { checkpointOrdinal, sequence, type Ordinal, type Position, type StreamPosition } from '../base/ids.ts'
import type { Clock } from '../base/clock.ts'
import { historyStepMillisMax } from '../base/limits.ts'
import { CheckpointAssembler } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Coordinator, Marker } from '../wire/messages.ts'
import { CheckpointRequests } from './checkpoint-requests.ts'
import type { IngestEvents } from './events.ts'
import type { IngestVpg } from './registry.ts'
import type { VpgIngestStatus } from './status.ts'
import { Stream } from './stream.ts'
import { volumeSizes, type VolumeSizes } from './stream-checks.ts'

const countersPerTerm = 2 ** 32
const labelStepMicrosMin = 1000

/** What a marker is given when it is appended; both stand in its record's header. */
export interface MarkerLabel {
  readonly timestampMicros: number
  readonly historyMillis: number
  /** When it was given, on the clock's monotonic scale. */
  readonly labelledAtMillis: number
}

/** A VPG as ingest serves it: its streams, and how markers become checkpoints. */
export class ServedVpg {
  readonly epoch: number
  /** Constant while this process runs; above that of every marker before it. */
  readonly term: number
  readonly streams: readonly Stream[]
  readonly requests: CheckpointRequests
  readonly #clock: Clock
  readonly #events: IngestEvents
  readonly #assembler = new CheckpointAssembler()
  #definition: VpgDefinition
  #volumeSizes: VolumeSizes
  #counter: number
  #lastCheckpoint: Checkpoint | undefined
  #lastLabelMicros: number
  #lastHistoryMillis: number
  #labelledHistoryMillis = 0
  /** The monotonic time that stands for #lastHistoryMillis; undefined until the first marker of this process. */
  #historyAtMillis: number | undefined
  #checkpointAtMillis: number

  constructor(vpg: IngestVpg, clock: Clock, events: IngestEvents) {
    this.#clock = clock
    this.#events = events
    this.#definition = vpg.definition
    this.#volumeSizes = volumeSizes(vpg.definition)
    this.epoch = vpg.epoch
    this.term = Math.floor(vpg.lastMarker / countersPerTerm) + 1
    this.#counter = vpg.lastMarker % countersPerTerm
    this.#lastCheckpoint = vpg.lastCheckpoint
    this.#lastLabelMicros = vpg.lastCheckpoint?.timestampMicros ?? 0
    this.#lastHistoryMillis = vpg.lastCheckpoint?.historyMillis ?? 0
    this.#checkpointAtMillis = clock.monotonicMillis()
    this.requests = new CheckpointRequests(clock)
    // With several streams the newest marker may be one that another stream still has to send.
    const lastMarker = vpg.definition.streams.length === 1 ? vpg.lastMarker : (0 as Ordinal)
    this.streams = vpg.definition.streams.map(
      ({ number, agent }) =>
        new Stream({
          number,
          agent,
          durable: positionOf(vpg.durable, number),
          offloaded: positionOf(vpg.offloaded, number),
          lastMarker,
        }),
    )
  }

  get definition(): VpgDefinition {
    return this.#definition
  }

  get volumeSizes(): VolumeSizes {
    return this.#volumeSizes
  }

  get coordinator(): Coordinator | undefined {
    const first = this.streams[0]
    return first === undefined
      ? undefined
      : {
          agent: first.agent,
          term: this.term,
          counter: this.#counter,
          checkpointIntervalMillis: this.#definition.checkpointIntervalMillis,
          participants: [],
        }
  }

  redefine(definition: VpgDefinition): void {
    this.#definition = definition
    this.#volumeSizes = volumeSizes(definition)
  }

  streamOf(agent: string): Stream | undefined {
    return this.streams.find(stream => stream.agent === agent)
  }

  /**
   * Labels rise whatever the agents' clocks do, and are not ahead of the VRA's: a marker was made before it came, and a label from
   * the future would hide for as long that no checkpoint follows. The history clock runs with monotonic time from one complete checkpoint to
   * the next, a step capped; the first step after a restart, whose length nobody knows, counts one interval.
   */
  label(marker: Marker): MarkerLabel {
    const now = this.#clock.monotonicMillis()
    if (this.#historyAtMillis === undefined) {
      if (this.#lastCheckpoint !== undefined) this.#lastHistoryMillis += this.#definition.checkpointIntervalMillis
      this.#historyAtMillis = now
    }
    const stepMillis = Math.min(historyStepMillisMax, Math.max(0, Math.round(now - this.#historyAtMillis)))
    const madeAtMicros = Math.min(marker.timestampMicros, this.#clock.timestampMicros())
    this.#lastLabelMicros = Math.max(madeAtMicros, this.#lastLabelMicros + labelStepMicrosMin)
    this.#counter = Math.max(this.#counter, marker.counter)
    this.requests.answered(marker.requestId, checkpointOrdinal(marker.term, marker.counter))
    this.#labelledHistoryMillis = Math.max(this.#labelledHistoryMillis, this.#lastHistoryMillis + stepMillis)
    return {
      timestampMicros: this.#lastLabelMicros,
      historyMillis: this.#labelledHistoryMillis,
      labelledAtMillis: now,
    }
  }

  markerDurable(stream: Stream, marker: Marker, label: MarkerLabel): void {
    const checkpoint = this.#assembler.add({ ...marker, ...label, stream: stream.number })
    if (checkpoint === undefined) return
    this.#lastCheckpoint = checkpoint
    this.#lastHistoryMillis = checkpoint.historyMillis
    this.#historyAtMillis = label.labelledAtMillis
    this.#checkpointAtMillis = this.#clock.monotonicMillis()
    this.#events.checkpointComplete(this.#definition.id, checkpoint)
    this.requests.complete(checkpoint)
  }

  /** Asks the coordinator for a checkpoint and waits for it. Fails at once where an agent has said that it can make none. */
  async requestCheckpoint(): Promise<Checkpoint> {
    const coordinator = this.streams[0]
    if (coordinator?.session?.facts === undefined)
      throw new Failure('PEER_LOST', this.#whyNoCheckpoints() ?? 'no agent is connected that could make a checkpoint')
    const inexact = this.#whyInexact()
    if (inexact !== undefined) throw new Failure('SYNC_REQUIRED', `no checkpoint can be made: ${inexact}`)
    const { session } = coordinator
    return this.requests.ask(requestId => session.requestCheckpoint(requestId))
  }

  status(): Omit<VpgIngestStatus, 'refusals'> {
    return {
      streams: this.streams.map(stream => stream.status()),
      lastCheckpoint: this.#lastCheckpoint,
      coordinator: this.coordinator?.agent,
      noCheckpointsBecause: this.#whyNoCheckpoints(),
    }
  }

  #whyNoCheckpoints(): string | undefined {
    const [coordinator] = this.streams
    if (coordinator === undefined) return 'the VPG has no agent'
    if (coordinator.session?.facts === undefined) return `the agent "${coordinator.agent}" is not connected`
    const inexact = this.#whyInexact()
    if (inexact !== undefined) return inexact
    const silentMillis = this.#clock.monotonicMillis() - this.#checkpointAtMillis
    if (silentMillis <= intervalsBeforeSilence * this.#definition.checkpointIntervalMillis) return undefined
    return this.streams.some(stream => stream.status().waitingFrameCount > 0)
      ? 'the journal does not make records durable'
      : `the agent "${coordinator.agent}" has sent none for ${Math.round(silentMillis / 1000)} s`
  }

  /** Which volume's stream is not what its disk is, in the agent's words; there is no checkpoint while one is. */
  #whyInexact(): string | undefined {
    for (const stream of this.streams) {
      const stopped = stream.agentStatus?.volumes.find(volume => volume.needsSync)
      const name = this.#definition.volumes.find(volume => volume.number === stopped?.number)?.name
      if (stopped !== undefined)
        return `the volume "${name ?? stopped.number}" needs a synchronisation: ${stopped.reason}`
    }
    return undefined
  }
}

/** A late checkpoint or two are no news. */
const intervalsBeforeSilence = 3

function positionOf(positions: readonly StreamPosition[], stream: number): Position {
  return positions.find(position => position.stream === stream) ?? { generation: 0, sequence: sequence(0) }
}
