import { Failure } from '../base/failure.ts'
import {
  checkpointOrdinal,
  sequence,
  type Ordinal,
  type Position,
  type PositionVector,
  type StreamPosition,
  type VpgId,
} from '../base/ids.ts'
import type { Clock } from '../base/clock.ts'
import { historyStepMillisMax } from '../base/limits.ts'
import { CheckpointAssembler } from '../timeline/assembler.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VolumeDefinition, VpgDefinition } from '../timeline/definition.ts'
import type { Coordinator, Directive, Marker, SyncRequest } from '../wire/messages.ts'
import { CheckpointRequests } from './checkpoint-requests.ts'
import { Coordination } from './coordination.ts'
import type { IngestEvents } from './events.ts'
import { noTermSentence, whyNoCheckpoints, whyRefused } from './no-checkpoints.ts'
import type { IngestVpg } from './registry.ts'
import type { VpgIngestStatus } from './status.ts'
import { Stream, type Notice } from './stream.ts'
import { volumeSizes } from './stream-checks.ts'

const countersPerTerm = 2 ** 32
const preseedingReason = 'the VRA is reading an image of it that was handed over'
const labelStepMicrosMin = 1000

/** What a marker is given when it is appended; both stand in its record's header. */
export interface MarkerLabel {
  readonly timestampMicros: number
  readonly historyMillis: number
  /** When it was given, on the clock's monotonic scale. */
  readonly labelledAtMillis: number
}

/** What a served VPG needs of the VRA around it. */
export interface ServedVpgHost {
  readonly clock: Clock
  readonly events: IngestEvents
  /** A term above `above` and above every one that was issued for the VPG before; remembered durably on return. */
  readonly issueTerm: (vpg: VpgId, above: number) => number
}

/** A VPG as ingest serves it: its streams, who makes checkpoints, and how markers become checkpoints. */
export class ServedVpg {
  readonly epoch: number
  readonly requests: CheckpointRequests
  readonly #clock: Clock
  readonly #events: IngestEvents
  readonly #assembler = new CheckpointAssembler()
  readonly #coordination: Coordination
  readonly #known: Pick<IngestVpg, 'durable' | 'offloaded'>
  /** See Ingest.stopIntake. */
  notTakenBecause: string | undefined
  #definition: VpgDefinition
  #heldBecause: string | undefined
  /** Of every stream of the definition, ascending; those without a volume take part in nothing. */
  #streams: readonly Stream[] = []
  #counter: number
  #lastCheckpoint: Checkpoint | undefined
  #lastLabelMicros: number
  #lastHistoryMillis: number
  #labelledHistoryMillis = 0
  /** The monotonic time that stands for #lastHistoryMillis; undefined until the first marker of this process. */
  #historyAtMillis: number | undefined
  #checkpointAtMillis: number
  readonly #startedAtMicros: number

  constructor(vpg: IngestVpg, { clock, events, issueTerm }: ServedVpgHost) {
    this.#clock = clock
    this.#events = events
    this.#definition = vpg.definition
    this.#known = vpg
    this.epoch = vpg.epoch
    const lastMarkerTerm = Math.floor(vpg.lastMarker / countersPerTerm)
    this.#coordination = new Coordination(above => issueTerm(vpg.definition.id, Math.max(above, lastMarkerTerm)))
    this.#counter = vpg.lastMarker % countersPerTerm
    this.#lastCheckpoint = vpg.lastCheckpoint
    // Those that wait for another stream's marker may yet become checkpoints: what follows is labelled behind them, too.
    const labelled = [vpg.lastCheckpoint, ...vpg.pendingMarkers].filter(each => each !== undefined)
    this.#lastLabelMicros = Math.max(0, ...labelled.map(({ timestampMicros }) => timestampMicros))
    this.#labelledHistoryMillis = Math.max(0, ...labelled.map(({ historyMillis }) => historyMillis))
    this.#lastHistoryMillis = vpg.lastCheckpoint?.historyMillis ?? 0
    this.#checkpointAtMillis = clock.monotonicMillis()
    this.#startedAtMicros = clock.timestampMicros()
    this.requests = new CheckpointRequests(clock)
    for (const marker of vpg.pendingMarkers) this.#assembler.add(marker)
    // With several streams the newest marker may be one that another stream still has to send.
    const lastMarker = vpg.definition.streams.length === 1 ? vpg.lastMarker : (0 as Ordinal)
    this.#takeDefinition(vpg.definition, lastMarker)
    this.review()
  }

  get definition(): VpgDefinition {
    return this.#definition
  }

  get streams(): readonly Stream[] {
    return this.#streams
  }

  /** Fails BUSY while the disk does not keep the term that an agent has to be told. */
  requireTerm(): void {
    if (!this.#coordination.obtainTerm()) throw new Failure('BUSY', noTermSentence)
  }

  /** Fails BUSY while nothing is taken. */
  requireIntake(): void {
    if (this.notTakenBecause !== undefined) throw new Failure('BUSY', this.notTakenBecause)
  }

  /** The highest that was issued; 0 for none. */
  get term(): number {
    return this.#coordination.term
  }

  /** Undefined while the VPG has no volume, and while no term could be issued. */
  get coordinator(): Coordinator | undefined {
    const agent = this.#coordinatingStream()?.agent
    if (agent === undefined) return undefined
    const members = this.#members()
    return {
      agent,
      term: this.term,
      counter: this.#counter,
      checkpointIntervalMillis: this.#definition.checkpointIntervalMillis,
      participants: members.length === 1 ? [] : members.map(stream => this.#participant(stream)),
    }
  }

  get directive(): Directive {
    const { syncRateBytesPerSecond, paused, volumes, quiescedBy = '' } = this.#definition
    const numbersOf = (isSo: (volume: VolumeDefinition) => boolean): number[] =>
      volumes.filter(isSo).map(({ number }) => number)
    const isPreseeding = ({ preseed }: VolumeDefinition): boolean => preseed?.state === 'under-way'
    const held = [
      { volumes: numbersOf(isPreseeding), reason: preseedingReason },
      { volumes: numbersOf(volume => !isPreseeding(volume)), reason: this.#heldBecause ?? '' },
    ]
    return {
      type: 'directive',
      syncRateBytesPerSecond,
      paused,
      heldSyncs: held.filter(({ volumes: numbers, reason }) => numbers.length > 0 && reason !== ''),
      comparedVolumes: numbersOf(volume => volume.preseed !== undefined),
      quiescedBy,
    }
  }

  /** See Ingest.holdSyncs. */
  holdSyncs(reason: string | undefined): void {
    if (reason === this.#heldBecause) return
    this.#heldBecause = reason
    this.tellDirective()
  }

  redefine(definition: VpgDefinition): void {
    this.#takeDefinition(definition, 0 as Ordinal)
    this.review()
  }

  #takeDefinition(definition: VpgDefinition, lastMarker: Ordinal): void {
    this.#definition = definition
    this.#streams = definition.streams.map(({ number, agent }) => {
      const sizes = volumeSizes(definition, number)
      const stream = this.#streams.find(known => known.number === number)
      if (stream !== undefined) {
        stream.volumeSizes = sizes
        return stream
      }
      const durable = positionOf(this.#known.durable, number)
      const offloaded = positionOf(this.#known.offloaded, number)
      return new Stream({ number, agent, durable, offloaded, lastMarker, volumeSizes: sizes })
    })
  }

  /** Of the newest durable record of each stream that has one. */
  durablePositions(): StreamPosition[] {
    return this.#streams
      .map(({ number, lastRecord }) => ({ stream: number, ...lastRecord }))
      .filter(({ generation }) => generation > 0)
  }

  streamOf(agent: string): Stream | undefined {
    return this.streams.find(stream => stream.agent === agent)
  }

  /** A session of the stream is open, its Hello with this address; whom it concerns is told. */
  sessionOpened(
    stream: Stream,
    { peerAddress, highestTerm }: { readonly peerAddress: string; readonly highestTerm: number },
  ): void {
    const isNews = stream.peerAddress !== peerAddress
    stream.peerAddress = peerAddress
    const isRaised = this.#coordination.raiseAbove(highestTerm)
    if (isRaised) this.#tellOfChange()
    if (!this.review() && isNews && !isRaised) this.#tellCoordinator(stream)
  }

  /** Names another coordinator where that is due, and tells the agents. True when it did. */
  review(): boolean {
    const members = this.#members().map(({ number, session }) => ({
      number,
      isConnected: session?.facts !== undefined,
    }))
    if (!this.#coordination.review(members, this.#clock.monotonicMillis())) return false
    this.#tellOfChange()
    return true
  }

  #tellOfChange(): void {
    const { coordinator } = this
    if (coordinator !== undefined) this.#events.coordinatorChanged(this.#definition.id, coordinator)
    this.#tellCoordinator(undefined)
  }

  /** Tells every agent but this one, which is about to hear it anyway. */
  #tellCoordinator(except: Stream | undefined): void {
    const { coordinator } = this
    if (coordinator === undefined || this.#members().length === 1) return
    this.#tell(
      this.#members().filter(stream => stream !== except),
      { type: 'coordinator-changed', coordinator },
    )
  }

  tellDirective(): void {
    this.#tell(this.streams, this.directive)
  }

  /**
   * Asks the agents of these volumes to synchronise them. Fails PEER_LOST where one is not connected; then nobody was asked, and
   * UNKNOWN_VOLUME.
   */
  requestSync(kind: SyncRequest['kind'], volumes: readonly number[]): void {
    const wanted = this.streams
      .map(stream => ({ stream, own: volumes.filter(number => (stream.volumeSizes[number] ?? 0) > 0) }))
      .filter(({ own }) => own.length > 0)
    const stranger = volumes.find(number => !wanted.some(({ own }) => own.includes(number)))
    if (stranger !== undefined) throw new Failure('UNKNOWN_VOLUME', `the VPG has no volume ${stranger}`)
    const away = wanted.find(({ stream }) => stream.session?.facts === undefined)
    if (away !== undefined)
      throw new Failure(
        'PEER_LOST',
        `the agent "${away.stream.agent}" is not connected: it synchronises by itself what is needed when it comes back`,
      )
    for (const { stream, own } of wanted) this.#tell([stream], { type: 'sync-request', kind, volumes: own })
  }

  #tell(streams: readonly Stream[], notice: Notice): void {
    for (const stream of streams) stream.session?.tell(notice)
  }

  /** The streams that write at least one volume. */
  #members(): readonly Stream[] {
    return this.#streams.filter(stream => stream.volumeSizes.some(size => size > 0))
  }

  #participant(stream: Stream): Coordinator['participants'][number] {
    const { number, agent, peerAddress } = stream
    const volumes = this.#definition.volumes.filter(volume => volume.stream === number)
    return { stream: number, agent, peerAddress, volumes: volumes.map(volume => volume.number) }
  }

  #coordinatingStream(): Stream | undefined {
    return this.#members().find(stream => stream.number === this.#coordination.stream)
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
    // With several streams an older cut may become whole after a newer one; order is by ordinal, so it is none any more.
    if (checkpoint === undefined || checkpoint.ordinal <= (this.#lastCheckpoint?.ordinal ?? 0)) return
    this.#lastCheckpoint = checkpoint
    this.#lastHistoryMillis = checkpoint.historyMillis
    this.#historyAtMillis = label.labelledAtMillis
    this.#checkpointAtMillis = this.#clock.monotonicMillis()
    this.#events.checkpointComplete(this.#definition.id, checkpoint)
    this.requests.complete(checkpoint)
  }

  /** What is told of checkpoints is what can be recovered: these are none any more, should their last marker come. */
  giveUp(through: PositionVector): void {
    this.#assembler.giveUp(through)
  }

  /** A stream's session has ended: what was asked of its agent is lost. */
  sessionEnded(stream: Stream): void {
    if (this.#coordinatingStream() === stream)
      this.requests.lose(new Failure('PEER_LOST', `the connection to the agent "${stream.agent}" has ended`))
    this.review()
  }

  /** Asks the coordinator for a checkpoint and waits for it. Fails at once where an agent has said that it can make none. */
  async requestCheckpoint(): Promise<Checkpoint> {
    const session = this.#coordinatingStream()?.session
    if (this.#definition.paused)
      throw new Failure('REQUEST_INVALID', 'no checkpoint can be made: the VPG is paused; resume it first')
    if (session?.facts === undefined)
      throw new Failure('PEER_LOST', this.#whyNoCheckpoints() ?? 'no agent is connected that could make a checkpoint')
    const refusal = whyRefused({ definition: this.#definition, streams: this.#members() })
    if (refusal !== undefined) throw new Failure('SYNC_REQUIRED', `no checkpoint can be made: ${refusal}`)
    return this.requests.ask(requestId => session.tell({ type: 'checkpoint-request', requestId }))
  }

  status(): Omit<VpgIngestStatus, 'refusals'> {
    return {
      streams: this.streams.map(stream => stream.status()),
      lastCheckpoint: this.#lastCheckpoint,
      coordinator: this.coordinator?.agent,
      term: this.term,
      heldSyncs: this.directive.heldSyncs,
      noCheckpointsBecause: this.#whyNoCheckpoints(),
      noCheckpointsSinceMicros: this.#lastCheckpoint?.timestampMicros ?? this.#startedAtMicros,
    }
  }

  #whyNoCheckpoints(): string | undefined {
    if (this.notTakenBecause !== undefined) return this.notTakenBecause
    return whyNoCheckpoints({
      definition: this.#definition,
      streams: this.#members(),
      coordinator: this.#coordinatingStream(),
      hasTerm: this.term > 0,
      silentMillis: this.#clock.monotonicMillis() - this.#checkpointAtMillis,
    })
  }
}

function positionOf(positions: readonly StreamPosition[], stream: number): Position {
  return positions.find(position => position.stream === stream) ?? { generation: 0, sequence: sequence(0) }
}
