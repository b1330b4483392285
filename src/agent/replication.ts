import { assert } from '../base/assert.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { comparePositions, sequence, type Position } from '../base/ids.ts'
import type { Ack, Coordinator, Directive, Hello, SyncKind, SyncRequest, Welcome } from '../wire/wire.ts'
import type { AgentEvents } from './events.ts'
import type { ProtectedVolume } from './protected-volume.ts'
import type { StateDirectory } from './state-directory.ts'
import type { AgentState, VolumeState } from './state.ts'
import type { Stream } from './stream.ts'

// How exactly the VRA can go on with this agent, and what is done where it cannot.
//
//   detached ── Welcome of a generation that Hello opened ──> exact ── the queue is lost, paused, or refused ──> detached
//
// Exact: every write of the attached volumes gets its number in the present generation. Detached: writes are only marked as pending.
// A new generation names a synchronisation for every volume, of nothing where nothing is pending; which regions have to be sent
// is in the dirty maps alone, so a kill at any point costs what is marked and no more.

export interface ReplicationHost {
  readonly agentId: string
  readonly vpg: string
  readonly clock: Clock
  readonly events: AgentEvents
  readonly directory: StateDirectory
  readonly stream: Stream
  readonly markRotationMillisMin: number
  volumes(): readonly ProtectedVolume[]
  /** The state has forgotten the VPG's coordinator and terms: so must whoever has read them. */
  vpgChanged(): void
  /** Ends the session and opens another at once. */
  reopen(): void
  /** There may be something to synchronise now. */
  syncMayGoOn(): void
  setSyncRate(rateBytesPerSecond: number): void
  /** Guests write no more, for the operation of this id; empty: they do. */
  quiesce(by: string): void
}

export class Replication {
  readonly #host: ReplicationHost
  /** What the next Hello opens, or the present session has opened without a number in it; undefined where it is not chosen yet. */
  #opening: number | undefined
  /** A VRA did not take the generation, so it knows higher ones. */
  #isRefused = false
  #isAwaitingDirective = false
  #whyDetached = 'the VRA has not been reached since the agent was started'
  /** What must be durable before the next Hello. */
  #planned = new Map<ProtectedVolume, () => Promise<void>>()
  /** What the session's Hello has named. */
  #named: readonly ProtectedVolume[] = []
  #offloaded: Position = { generation: 0, sequence: sequence(0) }
  #rotation: Position | undefined
  #rotatedMillis = -Infinity
  #clearing: Promise<void> | undefined
  readonly #uncleared = new Map<ProtectedVolume, { readonly waitMillis: number; readonly untilMillis: number }>()
  #isRunning: boolean

  constructor(host: ReplicationHost) {
    this.#host = host
    this.#isRunning = host.directory.state.run.kind === 'running'
  }

  get offloaded(): Position {
    return this.#offloaded
  }

  /** Why the stream is not exact, a sentence; empty where it is. */
  whyDetached(): string {
    if (this.#host.stream.isExact) return ''
    return this.#host.directory.state.paused ? 'the VPG is paused' : this.#whyDetached
  }

  /** The stream goes on where it was stopped. */
  continueAt(start: Parameters<Stream['begin']>[0]): void {
    this.#host.stream.begin(start)
    for (const volume of this.#host.volumes()) if (volume.number !== undefined) volume.map.attach()
  }

  /** Durable on return: the volume, where one is given, has been written to; in any case records are numbered from now on. */
  noteRunning(written?: ProtectedVolume): void {
    const { run } = this.#host.directory.state
    const names = run.kind === 'running' ? run.written : []
    if (this.#isRunning && (written === undefined || names.includes(written.name))) return
    const now = written === undefined || names.includes(written.name) ? names : [...names, written.name]
    this.#host.directory.save({ run: { kind: 'running', written: now } })
    this.#isRunning = true
  }

  /** Nothing of the queue can be sent any more: the dirty maps say what is to be sent instead. */
  lose(why: string): void {
    const { stream, events } = this.#host
    if (!stream.isExact) return
    stream.detach()
    this.#whyDetached = why
    this.#opening = undefined
    this.#rotation = undefined
    for (const volume of this.#host.volumes()) {
      volume.map.detach()
      volume.openSync('bitmap', why)
    }
    events.detached(why)
    try {
      this.noteRunning()
    } catch (error) {
      events.stateNotSaved(error) // the next Hello saves it, and until then nothing is numbered
    }
    if (!this.#host.directory.state.paused) this.#host.reopen()
  }

  /** Sends all of a volume, in a generation of its own. */
  planAll(volume: ProtectedVolume, kind: 'initial' | 'full' | 'delta', why: string, cleared?: Position): void {
    const plan = (): Promise<void> => volume.sendAll(kind, why, cleared)
    this.#planned.set(volume, plan)
  }

  /** The volume is served no more. Resolves when nothing is being done with its map. */
  async forget(volume: ProtectedVolume): Promise<void> {
    this.#planned.delete(volume)
    this.#uncleared.delete(volume)
    this.#named = this.#named.filter(each => each !== volume)
    await this.#clearing
  }

  // The session's questions.

  /** On return everything that the next Hello says is durable. */
  async prepare(): Promise<void> {
    for (const [volume, plan] of [...this.#planned]) {
      await plan()
      if (this.#planned.get(volume) === plan) this.#planned.delete(volume)
    }
  }

  hello(peerAddress: string): Hello {
    const { directory, stream, clock } = this.#host
    this.#loseWhereRefused()
    const state = directory.state
    const sessionNumber = Math.max(state.sessionNumber + 1, clock.timestampMicros())
    const isExact = stream.isExact
    this.#named = this.#host.volumes()
    this.#isAwaitingDirective = false
    if (!isExact) {
      this.#opening ??= this.#nextGeneration()
      for (const volume of this.#named) volume.openSync('bitmap', this.#whyDetached)
      // What is saved is in force before it is said: after a kill nobody believes that the stream could go on exactly.
      this.#save({
        sessionNumber,
        generation: this.#opening,
        run: this.#runWithoutStop(),
        volumes: directory.volumesWith(this.#volumeStates()),
      })
      this.#isRunning = true
    } else this.#save({ sessionNumber })
    const generation = isExact ? stream.generation : this.#opening!
    const [durable, lastNumbered] = isExact ? [stream.durable, stream.lastNumbered] : [0, 0]
    return {
      type: 'hello',
      protocolVersionMin: 1,
      protocolVersionMax: 1,
      vpg: this.#host.vpg,
      agent: this.#host.agentId,
      sessionNumber,
      epoch: state.epoch,
      incarnation: state.incarnation,
      volumes: this.#named.map(({ name, sizeBytes, syncKind }) => ({ name, sizeBytes, sync: syncKind })),
      resumableFrom: { generation, sequence: sequence(durable) },
      lastNumbered: { generation, sequence: sequence(lastNumbered) },
      software: 'recovery-site-vra agent',
      // Until something of it is durable there, the VRA may have forgotten that the generation was opened.
      openGeneration: durable === 0 ? generation : 0,
      peerAddress,
      highestTerm: Math.max(state.coordinator?.term ?? 0, state.seenTerm?.term ?? 0),
    }
  }

  /** Markers of the queue that include a volume in a synchronisation which was opened after them would be refused. */
  #loseWhereRefused(): void {
    const { stream } = this.#host
    const isRefused = ({ syncKind, syncPosition: at }: ProtectedVolume): boolean =>
      at?.generation === stream.generation && mayBeInMarkers.has(syncKind) && stream.hasMarkerThrough(at.sequence)
    const volume = stream.isExact ? this.#host.volumes().find(isRefused) : undefined
    if (volume?.sync !== undefined) this.lose(volume.sync.reason)
  }

  /** The VRA's answer to Hello. Throws a Failure where the session cannot go on; the next one then asks for something else. */
  welcomed(welcome: Welcome): void {
    const { directory, stream } = this.#host
    const state = directory.state
    if (welcome.epoch < state.epoch)
      throw new Failure(
        'EPOCH_SUPERSEDED',
        `this VRA is at epoch ${welcome.epoch}, but a newer one, at epoch ${state.epoch}, has taken over`,
      )
    if (state.vpgId !== undefined && state.vpgId !== welcome.vpg) this.#beginAnew(welcome)
    const { generation } = welcome.durable
    if (stream.isExact && generation !== stream.generation && welcome.durable.sequence !== 0)
      throw new Failure(
        'SYNC_REQUIRED',
        `the VRA has generation ${generation} of the stream, this is ${stream.generation}`,
      )
    this.#checkGround(welcome)
    this.#takeNumbers(welcome)
    // The Directive that follows says whether it is to wait, or to send only what differs.
    for (const volume of this.#named)
      volume.heldBecause = volume.syncKind === 'initial' ? 'the VRA has not said yet how it is to go on' : undefined
    // Until something of the generation is durable there, the VRA may be another one, which opens it once more.
    if (!stream.isExact || stream.durable === 0) this.#checkReach(welcome)
    const isNewest = welcome.coordinator.term >= (state.coordinator?.term ?? 0)
    const { epoch, incarnation, stream: number } = welcome
    this.#offloaded = welcome.offloaded
    this.#save({
      vpgId: welcome.vpg,
      epoch,
      incarnation,
      stream: number,
      ...(isNewest ? { coordinator: welcome.coordinator } : {}),
      vpgVolumes: welcome.volumes,
      volumes: directory.volumesWith(this.#volumeStates()),
    })
    this.#isRefused = false
    // To a Hello that opens nothing and names no synchronisation the VRA says only what is not the default.
    if (stream.isExact && stream.durable > 0 && this.#named.every(volume => volume.sync === undefined))
      this.#host.setSyncRate(0)
    if (stream.isExact) this.#attach()
    else if (directory.state.paused) this.#isAwaitingDirective = true
    else this.#beginGeneration()
  }

  acknowledged(ack: Ack): void {
    const { stream } = this.#host
    if (stream.isExact && ack.durable.generation === stream.generation) {
      if (ack.durable.sequence > stream.lastNumbered)
        throw new Failure('FRAME_INVALID', `the VRA acknowledged ${ack.durable.sequence}, which has no number yet`)
      stream.acknowledge(ack.durable.sequence)
    }
    if (comparePositions(ack.offloaded, this.#offloaded) > 0) this.#offloaded = ack.offloaded
    this.#advanceMarks()
  }

  directed({ paused, syncRateBytesPerSecond, heldSyncs, comparedVolumes, quiescedBy }: Directive): void {
    const { directory, stream } = this.#host
    this.#host.quiesce(quiescedBy)
    this.#host.setSyncRate(syncRateBytesPerSecond)
    for (const volume of this.#host.volumes()) {
      const { number = 0 } = volume
      volume.heldBecause = heldSyncs.find(held => held.volumes.includes(number))?.reason
      volume.isPreseeded = comparedVolumes.includes(number)
    }
    this.#host.syncMayGoOn()
    if (paused !== directory.state.paused) {
      this.#save({ paused })
      this.#host.events.paused(paused)
    }
    if (paused) {
      this.lose('the VPG was paused: what was written meanwhile is sent')
      return
    }
    if (stream.isExact) return
    if (this.#isAwaitingDirective) this.#beginGeneration()
    else this.#host.reopen()
  }

  /** Somebody at the VRA asks for it, or a hole is to be repaired: another generation, as soon as what it sends is written down. */
  syncRequested({ kind, volumes }: SyncRequest): void {
    assert(kind === 'full' || kind === 'delta', 'what can be asked for')
    for (const volume of this.#host.volumes())
      if (volume.number !== undefined && volumes.includes(volume.number))
        this.planAll(volume, kind, `the VRA asked for a ${kind} synchronisation`)
    this.lose('the VRA asked for a synchronisation')
    this.#opening = undefined
    this.#host.reopen()
  }

  coordinatorChanged(coordinator: Coordinator): void {
    if (coordinator.term >= (this.#host.directory.state.coordinator?.term ?? 0)) this.#save({ coordinator })
  }

  /** The session is over. */
  ended(problem: Failure, wasOpen: boolean): void {
    const { directory, stream } = this.#host
    this.#isAwaitingDirective = false
    if (problem.code === 'SYNC_REQUIRED') {
      this.#isRefused = true
      this.#opening = undefined
      if (stream.isExact) this.lose(problem.message)
      // It has volumes of this name already, so what it has of them is compared.
      else if (directory.state.vpgId === undefined)
        for (const volume of this.#host.volumes()) if (volume.syncKind === 'initial') this.#compareInstead(volume)
      return
    }
    // The same frames would be refused again and again.
    if (wasOpen && stream.isExact && undeliverable.has(problem.code))
      this.lose(`the VRA refused what was sent (${problem.code}): ${problem.message}`)
  }

  // Generations.

  #nextGeneration(): number {
    const next = this.#host.directory.state.generation + 1
    const nowSeconds = Math.floor(this.#host.clock.timestampMicros() / 1e6)
    return this.#isRefused ? Math.max(next, nowSeconds) : next
  }

  #beginGeneration(): void {
    const generation = this.#opening
    assert(generation !== undefined, 'Hello has opened a generation')
    this.#opening = undefined
    this.#isAwaitingDirective = false
    this.#host.stream.begin({ generation, lastNumbered: 0, durable: 0, frames: [] })
    this.#host.events.generationOpened({ generation })
    this.#attach()
  }

  /** The volumes that Hello has named are numbered from now on. */
  #attach(): void {
    for (const volume of this.#named) if (volume.number !== undefined) volume.map.attach()
    this.#host.syncMayGoOn()
  }

  /** Another VPG of the same name: it has nothing of this agent's, and its numbers are its own. */
  #beginAnew(welcome: Welcome): never {
    const { directory, stream } = this.#host
    const why = `the VPG "${this.#host.vpg}" is not the one that was written before: its volumes are sent anew`
    const { vpgId: _id, stream: _stream, coordinator: _coordinator, seenTerm: _term, ...rest } = directory.state
    for (const volume of this.#host.volumes()) {
      volume.forgetNumber()
      this.planAll(volume, 'initial', why, { generation: 0, sequence: sequence(0) })
    }
    if (stream.isExact) this.lose(why)
    try {
      directory.replace({
        ...rest,
        epoch: welcome.epoch,
        incarnation: 0,
        vpgVolumes: [],
        lastMarker: { term: 0, counter: 0 },
        volumes: this.#volumeStates(),
      })
    } catch (cause) {
      throw notSaved(cause)
    }
    this.#host.vpgChanged()
    throw new Failure('SYNC_REQUIRED', why)
  }

  #takeNumbers(welcome: Welcome): void {
    for (const volume of this.#named) {
      const named = welcome.volumes.find(each => each.name === volume.name)
      if (named?.sizeBytes !== volume.sizeBytes) {
        this.#leaveOut(volume, whyLeftOut(volume, named?.sizeBytes))
        continue
      }
      volume.refusal = undefined
      if (volume.number !== undefined && volume.number !== named.number) {
        const why = `the VRA gave the volume "${volume.name}" another number: it is another volume there, and sent anew`
        volume.forgetNumber()
        this.planAll(volume, 'initial', why)
        throw new Failure('SYNC_REQUIRED', why)
      }
      volume.setNumber(named.number)
    }
    this.#named = this.#named.filter(volume => volume.refusal === undefined)
    if (this.#named.length > 0) return
    throw new Failure('UNKNOWN_VOLUME', this.#host.volumes()[0]?.refusal ?? 'there is no volume to be protected')
  }

  /** The others go on. What is written to this one is marked, for the day on which the VRA takes it. */
  #leaveOut(volume: ProtectedVolume, why: string): void {
    if (volume.refusal !== why) this.#host.events.volumeRefused(volume.name, why)
    volume.refusal = why
    if (!volume.map.isExact) return
    volume.map.detach()
    volume.openSync('bitmap', why)
  }

  /**
   * A generation rests on what the VRA had when it was opened: what is marked since was sent before, or was compared with it. Another appliance, which
   * has taken over before anything of the generation was durable, would take it from its beginning, and may have less than that.
   */
  #checkGround({ epoch }: Welcome): void {
    const { directory, stream } = this.#host
    if (!stream.isExact || stream.durable > 0 || epoch === directory.state.epoch) return
    const why = `another VRA has taken over, and may lack what generation ${stream.generation} rests on: what is not offloaded is sent again`
    this.#syncInstead(why)
  }

  /** A VRA that has offloaded less than one was believed before lacks regions that have no mark any more. */
  #checkReach({ offloaded }: Welcome): void {
    let why: string | undefined
    for (const volume of this.#named) {
      const { cleared } = volume.map
      if (comparePositions(offloaded, { ...cleared, sequence: sequence(cleared.sequence) }) >= 0) continue
      why =
        `the VRA has offloaded up to ${offloaded.generation}/${offloaded.sequence}, and had up to ` +
        `${cleared.generation}/${cleared.sequence} before: the whole disk is compared`
      const kind = volume.syncKind === 'initial' || volume.syncKind === 'full' ? volume.syncKind : 'delta'
      this.planAll(volume, kind, why, offloaded)
    }
    if (why !== undefined) this.#syncInstead(why)
  }

  /** This session is no use: the next one opens a generation that sends what is pending. */
  #syncInstead(why: string): never {
    this.lose(why)
    this.#whyDetached = why
    throw new Failure('SYNC_REQUIRED', why)
  }

  /** The whole disk is pending already; only what differs needs to go. */
  #compareInstead(volume: ProtectedVolume): void {
    volume.compareInstead('the VRA knows the volume, and the agent does not know how far: the whole disk is compared')
    this.planAll(volume, 'delta', '')
  }

  // Marks.

  /** Takes back what no loss can reach any more, in rounds: everything so far, when all of that is offloaded, and so on. */
  #advanceMarks(): void {
    const { stream, clock } = this.#host
    if (this.#clearing !== undefined || !stream.isExact) return
    const now = clock.monotonicMillis()
    if (this.#rotation === undefined) {
      if (now - this.#rotatedMillis < this.#host.markRotationMillisMin) return
      // What could not be taken back the last time is tried again with the rest.
      const rotated = this.#host
        .volumes()
        .map(volume => this.#mayClear(volume) && (volume.map.hasOld || volume.map.rotate()))
      if (!rotated.includes(true)) return
      this.#rotatedMillis = now
      this.#rotation = { generation: stream.generation, sequence: sequence(stream.lastWrite) }
    }
    if (comparePositions(this.#offloaded, this.#rotation) < 0) return
    this.#rotation = undefined
    this.#clearing = this.#clearOld(this.#offloaded).finally(() => {
      this.#clearing = undefined
    })
  }

  /** Never rejects. A disk whose sync fails keeps its marks, until one succeeds. */
  async #clearOld(offloaded: Position): Promise<void> {
    for (const volume of this.#host.volumes()) {
      if (!volume.map.hasOld || !this.#mayClear(volume)) continue
      try {
        await volume.disk.sync()
        await volume.map.clearOld(offloaded)
        this.#uncleared.delete(volume)
      } catch (error) {
        const waitMillis = Math.min(
          2 * (this.#uncleared.get(volume)?.waitMillis ?? clearRetryMillisFirst / 2),
          clearRetryMillisMax,
        )
        this.#uncleared.set(volume, { waitMillis, untilMillis: this.#host.clock.monotonicMillis() + waitMillis })
        this.#host.events.marksNotCleared(volume.name, error)
      }
    }
  }

  /** A disk whose syncs fail is not asked for one every few seconds: each failure has its regions sent again. */
  #mayClear(volume: ProtectedVolume): boolean {
    return (this.#uncleared.get(volume)?.untilMillis ?? -Infinity) <= this.#host.clock.monotonicMillis()
  }

  /** Resolves when no marks are being taken back. */
  async settled(): Promise<void> {
    await this.#clearing
  }

  // State.

  #runWithoutStop(): AgentState['run'] {
    const { run } = this.#host.directory.state
    return run.kind === 'running' ? run : { kind: 'running', written: [] }
  }

  #volumeStates(): VolumeState[] {
    return this.#host.volumes().map(volume => volume.state)
  }

  /** A state directory that cannot be written costs the session, which is tried again; never the guests their disks. */
  #save(change: Partial<AgentState>): void {
    try {
      this.#host.directory.save(change)
    } catch (cause) {
      throw notSaved(cause)
    }
  }
}

/** A volume that is sent for the first time is in no marker. */
const mayBeInMarkers: ReadonlySet<SyncKind> = new Set<SyncKind>(['bitmap', 'delta', 'full'])

const clearRetryMillisFirst = 60_000
const clearRetryMillisMax = 3_600_000

/** What a VRA says inside a session of frames that it will never take. */
const undeliverable: ReadonlySet<string> = new Set(['FRAME_INVALID', 'UNKNOWN_VOLUME', 'OUT_OF_BOUNDS'])

function whyLeftOut({ name, sizeBytes }: ProtectedVolume, known: number | undefined): string {
  return known === undefined
    ? `the VRA does not know the volume "${name}": define it there (vra vpg add-volume), or leave it out here`
    : `the volume "${name}" has ${sizeBytes} bytes here and ${known} at the VRA (vra vpg grow-volume)`
}

function notSaved(cause: unknown): Failure {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new Failure('DISK_FAILED', `the agent cannot save its state: ${why}`, {}, { cause })
}
