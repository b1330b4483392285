import { assert } from '../base/assert.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { Failure, isSystemError } from '../base/failure.ts'
import type { Closable } from '../base/shutdown.ts'
import { MiB } from '../base/units.ts'
import { openVolumeFile, realDisk } from '../disk/disk.ts'
import { NbdServer, type NbdEvents, type NbdServerOptions } from '../nbd/nbd.ts'
import { Checkpoints } from './checkpoints.ts'
import { connectSocket } from './connect.ts'
import { Coordination } from './coordination.ts'
import type { AgentEvents } from './events.ts'
import { Link } from './link.ts'
import { openVolume, type OpenDeps } from './open-volume.ts'
import {
  batchDelayMillisMaxDefault,
  drainTimeoutMillisDefault,
  markRotationMillisMinDefault,
  queueSizeBytesMaxDefault,
  type AgentConfig,
  type AgentDeps,
  type AgentStatusReport,
  type AgentVolumeConfig,
  type GuestServer,
} from './options.ts'
import { ProtectedVolume, type VolumeOwner } from './protected-volume.ts'
import { Quiescence } from './quiescence.ts'
import { Replication } from './replication.ts'
import type { Sealer } from './sealing/sealer.ts'
import { SealingThread } from './sealing/sealing-thread.ts'
import type { SessionOwner } from './session.ts'
import type { AgentState } from './state.ts'
import { StateDirectory } from './state-directory.ts'
import { statusMessage, volumeMessage, volumeReport } from './status.ts'
import { Stream, type QueuedFrame } from './stream.ts'
import { SyncEngine } from './sync/engine.ts'
import { HashQuestions } from './sync/hashes.ts'
import { checkVolumes, planVolumeSet } from './volume-set.ts'
import type { SectorChange } from './volume.ts'

// The protected site's VRA: it serves the guest's disks over NBD and streams every write, in order, to the recovery site.
//
//   guest ── NBD ──> Volume: lock ─ mark ─ local disk ─ gate ─ number ─ answer    a guest waits for its own disks and nothing else
//                                     │                          │
//                                DirtyMap                Stream: pending ─ batches ─ queue ── Session ──> VRA
//                     what the VRA may lack                ^                └── kept until it is durable there
//                                     │                    ├── Checkpoints: a marker every few seconds
//                                     └── SyncEngine ──────┘
//
// All numbering happens in synchronous steps of one event loop. So a write that was answered has its number, and a marker
// stands between two writes: every checkpoint is an exact cut through all volumes.
//
// The stream is *exact* while every change of the disks is in it (Replication). Where it cannot be (the queue passed its bound, the
// agent was killed, the VRA is behind, the VPG is paused), writes go on into the dirty maps only, and the next session opens a
// generation in which the pending regions are sent. What cannot be told from the maps is compared by hashes.

export type * from './options.ts'
export type { AgentTls, Connect, Connection, ConnectionEnd, ConnectionEvents, VraTarget } from './connect.ts'
export { silentAgentEvents, type AgentEvents } from './events.ts'

export class Agent implements Closable {
  readonly #config: AgentConfig
  readonly #deps: AgentDeps
  readonly #events: AgentEvents
  readonly #clock: Clock
  readonly #directory: StateDirectory
  readonly #queueSizeBytesMax: number
  readonly #sealer: Sealer
  readonly #stream: Stream
  readonly #replication: Replication
  readonly #hashes = new HashQuestions()
  readonly #engine: SyncEngine
  readonly #checkpoints: Checkpoints
  readonly #quiescence: Quiescence
  readonly #link: Link
  readonly #stop = new AbortController()
  #coordination: Coordination | undefined
  #volumes: ProtectedVolume[] = []
  #guests: GuestServer | undefined
  #onDrained: (() => void) | undefined
  #coordinationStop = new AbortController()
  #coordinating: Promise<void> | undefined
  #changing: Promise<void> = Promise.resolve()
  #closing: Promise<void> | undefined
  #closingWaitsFor: string | undefined

  /**
   * Serves the volumes when it resolves, whether the VRA answers or not. Fails CONFIG_INVALID where a disk cannot be served, BUSY
   * where another agent runs on the state directory, or serves a disk.
   */
  static async open(config: AgentConfig, deps: AgentDeps): Promise<Agent> {
    checkVolumes(config.volumes)
    const owner = { agent: config.agentId, vpg: config.vpg }
    const directory = await StateDirectory.open(deps.disk ?? realDisk, config.stateDirectory, owner, deps.lockDirectory)
    const agent = new Agent(config, deps, directory)
    try {
      await agent.#open()
      return agent
    } catch (error) {
      await agent.#coordination?.close()
      for (const volume of agent.#volumes) await volume.abandon()
      await directory.close()
      throw error
    }
  }

  private constructor(config: AgentConfig, deps: AgentDeps, directory: StateDirectory) {
    const { events, clock = systemClock } = deps
    this.#config = config
    this.#deps = deps
    this.#events = events
    this.#clock = clock
    this.#directory = directory
    this.#queueSizeBytesMax = config.queueSizeBytesMax ?? queueSizeBytesMaxDefault
    const bound = `${Math.round(this.#queueSizeBytesMax / MiB)} MiB`
    this.#sealer = deps.sealer ?? new SealingThread(clock, reason => events.sealingThreadEnded(reason))
    const stream = new Stream({
      clock,
      events,
      sealer: this.#sealer,
      queueSizeBytesMax: this.#queueSizeBytesMax,
      batchDelayMillisMax: config.batchDelayMillisMax ?? batchDelayMillisMaxDefault,
      onOverflow: () => this.#replication.lose(`the queue of writes for the VRA passed its bound of ${bound}`),
      onSmaller: () => this.#engine.roomMade(),
    })
    this.#stream = stream
    const common = { agentId: config.agentId, clock, events, directory, stream, volumes: () => this.#volumes }
    this.#replication = new Replication({
      ...common,
      vpg: config.vpg,
      markRotationMillisMin: config.markRotationMillisMin ?? markRotationMillisMinDefault,
      vpgChanged: () => this.#coordinationStop.abort(),
      reopen: () => this.#link.reopen(),
      syncMayGoOn: () => this.#engine.wake(),
      setSyncRate: rate => this.#engine.setRate(rate),
      quiesce: by => this.#quiescence.directed(by),
    })
    this.#quiescence = new Quiescence({ ...common, tellStatus: () => this.#link.tellStatus() })
    this.#checkpoints = new Checkpoints({
      ...common,
      whyDetached: () => this.#replication.whyDetached(),
      noteRunning: () => this.#replication.noteRunning(),
    })
    this.#engine = new SyncEngine({
      ...common,
      hashes: this.#hashes,
      queueSizeBytesMax: this.#queueSizeBytesMax,
      noteRunning: () => this.#replication.noteRunning(),
      synced: volume => this.#synced(volume),
    })
    this.#link = new Link(config, this.#sessionOwner(), events, deps.random ?? Math.random)
  }

  status(): AgentStatusReport {
    const { agentId, vpg } = this.#config
    assert(this.#guests !== undefined && this.#coordination !== undefined, 'an agent that was opened')
    const guests = this.#guests
    return {
      agentId,
      vpg,
      nbd: guests.address(),
      link: this.#link.state,
      linkProblem: this.#link.problem,
      refusal: this.#link.refusal,
      linkDownSinceTimestampMicros: this.#link.downSinceMicros,
      stream: this.#stream.isExact ? 'exact' : 'detached',
      paused: this.#directory.state.paused,
      quiescedBy: this.#quiescence.by,
      noCheckpointsBecause: this.#coordination.whyNone(),
      cut: this.#coordination.status(),
      generation: this.#directory.state.generation,
      lastNumbered: this.#stream.lastNumbered,
      durable: this.#stream.durable,
      offloaded: this.#replication.offloaded.sequence,
      queuedBytes: this.#stream.queuedBytes,
      queuedRecords: this.#stream.queuedRecords,
      lastCheckpoint: this.#checkpoints.last,
      volumes: this.#volumes.map(volume =>
        volumeReport(volume, this.#engine.unreadable(volume), guests.connectionCount(volume.name)),
      ),
    }
  }

  /**
   * Serves these volumes from now on: new ones are added, others removed, and the disks of the rest looked at, whether they have grown. Guests of what
   * is left alone do not feel it; those of a disk that has grown connect again. All that can be done is done; then it fails CONFIG_INVALID
   * for what cannot.
   */
  changeVolumes(volumes: readonly AgentVolumeConfig[]): Promise<void> {
    const changed = this.#changing.then(() => this.#changeVolumes(volumes))
    this.#changing = changed.catch(() => undefined)
    return changed
  }

  async #changeVolumes(wanted: readonly AgentVolumeConfig[]): Promise<void> {
    if (this.#closing !== undefined) throw new Failure('CLOSING', 'the agent is stopping')
    const { added, removed, grown, problems } = planVolumeSet(this.#volumes, wanted)
    const failed = [...problems]
    // What one step meets (a full state directory, a disk that is gone) costs its volume, and no other.
    const attempt = async (step: () => unknown): Promise<void> => {
      try {
        await step()
      } catch (error) {
        if (!(error instanceof Failure) && !isSystemError(error)) throw error
        failed.push(error.message)
      }
    }
    for (const volume of [...removed, ...grown]) await attempt(() => this.#stopServing(volume))
    const { volumes } = this.#directory.state
    const kept = volumes.filter(({ name }) => !removed.some(volume => volume.name === name))
    await attempt(() => this.#directory.save({ volumes: kept }))
    for (const { name, path } of [...grown, ...added]) await attempt(() => this.#startServing({ name, path }))
    this.#link.reopen()
    this.#engine.wake()
    if (failed.length > 0) throw new Failure('CONFIG_INVALID', failed.join('; '))
  }

  /** What is known of it stays in the state. */
  async #stopServing(volume: ProtectedVolume): Promise<void> {
    await this.#guests?.removeExport(volume.name)
    this.#volumes = this.#volumes.filter(each => each !== volume)
    this.#link.reopen() // questions about it are lost with the session, or a lane would wait for their answers
    await this.#engine.forget(volume)
    await this.#replication.forget(volume)
    try {
      this.#directory.saveVolumes([volume.state])
    } finally {
      await volume.close() // or its own claim would keep it from being served again
    }
  }

  async #startServing(config: AgentVolumeConfig): Promise<void> {
    const volume = await this.#openVolume(config, this.#stream.isExact)
    volume.syncPosition = this.#stream.position
    try {
      // Guests write before it is attached again, whatever is written down of it: that is sent by a synchronisation only.
      const { sync } = volume
      if (sync !== undefined) this.#events.syncOpened(volume.name, sync)
      else volume.openSync('bitmap', 'it was not served for a while')
      this.#directory.saveVolumes([volume.state])
      this.#guests?.addExport(volume.disk)
    } catch (error) {
      this.#volumes = this.#volumes.filter(each => each !== volume)
      await volume.close()
      throw error
    }
  }

  /**
   * A clean stop: no more guests, a last checkpoint, the queue drained within the bound or kept on disk, and the disks as they are
   * written down, so that the next start continues exactly here.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  /** What a close() that is under way waits for, a sentence's end; undefined where there is none. */
  get closingWaitsFor(): string | undefined {
    return this.#closingWaitsFor
  }

  async #open(): Promise<void> {
    const { state } = this.#directory
    const frames = this.#directory.readFrames()
    const exact = state.run.kind === 'stopped' ? state.run.exact : undefined
    const isMissing = state.volumes.some(({ name }) => !this.#config.volumes.some(volume => volume.name === name))
    // Frames of a volume that is served no longer would be refused: what is marked of the others is sent instead.
    const isExact = exact !== undefined && frames !== undefined && !(isMissing && frames.length > 0)
    for (const volume of this.#config.volumes) await this.#openVolume(volume, isExact)
    const isContinued = isExact && !(frames.length > 0 && this.#volumes.some(volume => isNewlyOpen(volume, state)))
    if (isExact && !isContinued)
      for (const volume of this.#volumes) {
        volume.map.repeat()
        volume.openSync('bitmap', 'another volume of the VPG has to be synchronised')
      }
    this.#directory.save({
      volumes: this.#volumes.map(volume => volume.state),
      ...(isContinued ? {} : { run: { kind: 'stopped' } }),
    })
    if (isContinued) this.#replication.continueAt({ generation: state.generation, ...exact, frames })
    for (const volume of this.#volumes) volume.startPosition = this.#stream.position
    await this.#openCoordination()
    await this.#serve()
    this.#link.start()
    this.#engine.start()
    this.#coordinating = this.#coordinate()
  }

  async #openCoordination(): Promise<void> {
    this.#coordination = await Coordination.open({
      config: this.#config,
      clock: this.#clock,
      events: this.#events,
      directory: this.#directory,
      stream: this.#checkpoints,
      network: this.#deps.peerNetwork,
    })
  }

  /** Until the agent stops; anew where the VPG is another one now. */
  async #coordinate(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#coordination?.run(this.#coordinationStop.signal)
      if (this.#stop.signal.aborted) return
      this.#coordinationStop = new AbortController()
      await this.#coordination?.close()
      await this.#openCoordination()
    }
  }

  async #openVolume(volume: AgentVolumeConfig, isExact: boolean): Promise<ProtectedVolume> {
    const random = this.#deps.random ?? Math.random
    const deps: OpenDeps = {
      directory: this.#directory,
      disk: this.#deps.disk ?? realDisk,
      openVolumeFile: this.#deps.openVolumeFile ?? openVolumeFile,
      newMapIdentity: () => Math.floor(random() * 2 ** 32),
      timestampMicros: () => this.#clock.timestampMicros(),
      isExact,
    }
    const opened = new ProtectedVolume(await openVolume(volume, deps), this.#volumeOwner())
    this.#volumes = [...this.#volumes, opened]
    return opened
  }

  async #serve(): Promise<void> {
    const { listen, clients } = this.#config.nbd
    const options: NbdServerOptions = {
      listen,
      exports: this.#volumes.map(volume => volume.disk),
      events: this.#nbdEvents(),
      ...(clients === undefined ? {} : { clients }),
    }
    this.#guests = await (this.#deps.openGuestServer ?? (given => NbdServer.open(given)))(options)
  }

  async #close(): Promise<void> {
    // Side by side: a change may wait for a guest's request that hangs, and then ends when its connection is cut.
    this.#closingWaitsFor = 'requests of guests that a disk has not answered'
    await Promise.all([this.#guests?.close(), this.#changing])
    this.#stop.abort()
    this.#coordinationStop.abort()
    await this.#coordinating
    this.#closingWaitsFor = 'reads of a synchronisation that a disk has not answered'
    await this.#engine.close()
    this.#closingWaitsFor = 'the VRA, to be given the last writes'
    if (this.#checkpoints.hasWritesSinceLast) await this.#coordination?.checkpoint(0)
    await this.#drain()
    await this.#coordination?.close()
    await this.#link.close()
    await this.#replication.settled()
    await this.#quiescence.settled()
    // A plan of the last session; where it cannot be written, the next session finds the same again.
    await this.#replication.prepare().catch((error: unknown) => this.#events.stateNotSaved(error))
    try {
      for (const volume of this.#volumes) {
        this.#closingWaitsFor = `the disk of ${volume.name}, to be synced`
        await volume.prepareStop()
      }
      this.#saveStopped(this.#stream.isExact ? this.#stream.sealAll() : [])
    } finally {
      for (const volume of this.#volumes) {
        this.#closingWaitsFor = `the disk of ${volume.name}, to be closed`
        await volume.close().catch((error: unknown) => this.#events.stateNotSaved(error))
      }
      await this.#sealer.close()
      await this.#directory.close()
    }
  }

  /** Waits until the VRA has everything, at most for the bound, and not at all where there is no session. */
  async #drain(): Promise<void> {
    if (this.#link.state !== 'connected' || this.#stream.queuedBytes === 0) return
    const patience = new AbortController()
    const drained = new Promise<void>(resolve => {
      this.#onDrained = resolve
    })
    const bound = this.#clock.sleep(this.#config.drainTimeoutMillis ?? drainTimeoutMillisDefault, patience.signal)
    await Promise.race([drained, bound])
    patience.abort()
    await bound.catch(() => undefined) // aborted: it was drained in time
  }

  #saveStopped(frames: readonly QueuedFrame[]): void {
    const { isExact, lastNumbered, durable } = this.#stream
    if (frames.length > 0) this.#directory.saveFrames(frames)
    const kept = frames.map(({ firstSequence, lastSequence, bytes }) => ({
      firstSequence,
      lastSequence,
      sizeBytes: bytes.length,
    }))
    this.#directory.save({
      lastMarker: this.#lastMarker(),
      run: { kind: 'stopped', ...(isExact ? { exact: { lastNumbered, durable, frames: kept } } : {}) },
      volumes: this.#directory.volumesWith(this.#volumes.map(volume => volume.stateAtStop())),
    })
  }

  /** Counters that were spent without a marker are not used again either. */
  #lastMarker(): AgentState['lastMarker'] {
    const { term, counter } = this.#checkpoints.last ?? { term: 0, counter: 0 }
    return { term, counter: Math.max(counter, this.#coordination?.highestCounter ?? 0) }
  }

  // What the parts ask and tell.

  #volumeOwner(): VolumeOwner {
    return {
      clock: this.#clock,
      gate: this.#checkpoints.gate,
      isQuiesced: () => this.#quiescence.isAsked,
      noteWritten: volume => this.#replication.noteRunning(volume),
      saveVolume: volume => this.#directory.saveVolumes([volume.state]),
      number: (volume, changes) => this.#number(volume, changes),
      syncOpened: volume => {
        const { sync } = volume
        volume.syncPosition = this.#stream.position
        if (sync !== undefined) this.#events.syncOpened(volume.name, sync)
        this.#engine.wake()
      },
    }
  }

  #number(volume: ProtectedVolume, changes: readonly SectorChange[]): void {
    assert(volume.number !== undefined, 'an attached volume has its number')
    this.#checkpoints.noteWrite()
    const recordCount = this.#stream.append(volume.number, changes)
    const sizeBytes = changes.reduce((sum, change) => sum + change.lengthBytes, 0)
    this.#events.writeNumbered(volume.name, { recordCount, sizeBytes })
  }

  /** The VRA hears that it is over before the marker comes that includes the volume. */
  #synced(volume: ProtectedVolume): void {
    const { syncKind: kind, progress } = volume
    volume.closeSync()
    this.#events.syncEnded(volume.name, { kind, sentBytes: progress.sentBytes, doneBytes: progress.doneBytes })
    try {
      this.#directory.saveVolumes([volume.state])
    } catch (error) {
      this.#events.stateNotSaved(error) // a kill would send what is marked, as it would in any case
    }
    this.#link.tellStatus()
    this.#coordination?.requestWherePossible()
  }

  #sessionOwner(): SessionOwner {
    const replication = this.#replication
    return {
      stream: this.#stream,
      clock: this.#clock,
      connect: this.#deps.connect ?? connectSocket,
      prepare: () => replication.prepare(),
      hello: () => replication.hello(this.#coordination?.peerAddress ?? ''),
      welcomed: welcome => {
        replication.welcomed(welcome)
        this.#coordination?.appointed()
      },
      opened: address => {
        const { epoch } = this.#directory.state
        this.#events.linkUp({ address, epoch, resendRecordCount: this.#stream.queuedRecords })
      },
      acknowledged: ack => {
        replication.acknowledged(ack)
        if (this.#stream.queuedBytes === 0) this.#onDrained?.()
      },
      checkpointRequested: requestId => this.#coordination?.request(requestId),
      directed: directive => replication.directed(directive),
      syncRequested: request => replication.syncRequested(request),
      coordinatorChanged: coordinator => {
        replication.coordinatorChanged(coordinator)
        this.#coordination?.appointed()
      },
      hashesTold: reply => this.#hashes.take(reply),
      askBy: send => {
        this.#hashes.useSession(send)
        this.#engine.wake()
      },
      status: () => {
        const volumes = this.#volumes.flatMap(volume =>
          volume.number === undefined || volume.refusal !== undefined
            ? []
            : [volumeMessage(volume, volume.number, this.#engine.unreadable(volume))],
        )
        return statusMessage(this.#stream, volumes, {
          noCheckpointsBecause: this.#coordination?.whyNone() ?? '',
          quiescedBy: this.#quiescence.by,
        })
      },
      ended: (problem, wasOpen) => {
        replication.ended(problem, wasOpen)
        this.#onDrained?.()
      },
    }
  }

  #nbdEvents(): NbdEvents {
    return {
      clientConnected: (volume, { address }) => this.#events.clientConnected(volume, address),
      clientGone: (volume, { address }) => this.#events.clientGone(volume, address),
      clientRefused: (address, reason) => this.#events.clientRefused(address, reason),
      requestFailed: (volume, request) => this.#events.localDiskFailed(volume, request),
    }
  }
}

/** The markers that wait in the queue include it, and would be refused while it is synchronised. */
function isNewlyOpen({ name, syncKind }: ProtectedVolume, { volumes }: AgentState): boolean {
  if (syncKind === 'none' || syncKind === 'initial') return false
  return volumes.find(volume => volume.name === name)?.sync === undefined
}
