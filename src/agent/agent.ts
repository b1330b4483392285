import { assert } from '../base/assert.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { sequence } from '../base/ids.ts'
import { volumesPerVpgMax } from '../base/limits.ts'
import type { Closable } from '../base/shutdown.ts'
import { MiB } from '../base/units.ts'
import type { CutMarker, CutStream } from '../cut/cut.ts'
import { openVolumeFile, realDisk, type VolumeFile } from '../disk/disk.ts'
import { NbdServer, type NbdEvents, type NbdServerOptions } from '../nbd/nbd.ts'
import type { Ack, AgentStatus, Hello, Welcome } from '../wire/wire.ts'
import { connectSocket } from './connect.ts'
import { Coordination } from './coordination.ts'
import type { AgentEvents } from './events.ts'
import { Link } from './link.ts'
import {
  batchDelayMillisMaxDefault,
  drainTimeoutMillisDefault,
  queueSizeBytesMaxDefault,
  type AgentConfig,
  type AgentDeps,
  type AgentStatusReport,
  type GuestServer,
} from './options.ts'
import { NumberingHold } from './numbering-gate.ts'
import type { SessionOwner } from './session.ts'
import { inspectVolumes } from './inspect.ts'
import { StateDirectory, type AgentState, type NeedsSync } from './state.ts'
import { Stream } from './stream.ts'
import { Volume, type SectorChange, type VolumeTap } from './volume.ts'

// The protected site's VRA: it serves the guest's disks over NBD and streams every write, in order, to the recovery site.
//
//   guest ── NBD ──> Volume: lock ─ local disk ─ number ─ answer      a guest waits for its local disk and for nothing else
//                                                   │
//                       Stream: pending ─ batches ─ queue ── Session ──> VRA
//                          ^                          └── kept until it is durable there; sent again after a reconnect
//                  markers, one every few seconds
//
// All numbering happens in synchronous steps of one event loop. So a write that was answered has its number, and a marker
// stands between two writes: every checkpoint is an exact cut through all volumes.
//
// The stream is *exact* while every change of the disks is in it. When it cannot be (the queue passed its bound, the local
// disk failed, the agent was killed, the disk was changed behind it, the VRA is behind), the volumes concerned are marked, durably
// and in words, as needing a synchronisation; no records and no markers are made from then on; guests go on undisturbed.

export type * from './options.ts'
export type { AgentTls, Connect, Connection, ConnectionEnd, ConnectionEvents, VraTarget } from './connect.ts'
export { silentAgentEvents, type AgentEvents } from './events.ts'

/** Markers that a kill may leave behind without a write, beyond what the state says; saved again when they are used up. */
const markerReserve = 4096
/** As proto/README.md, section 2, bounds them. */
const sentenceSizeCharactersMax = 1_000

export class Agent implements Closable {
  readonly #config: AgentConfig
  readonly #deps: AgentDeps
  readonly #events: AgentEvents
  readonly #clock: Clock
  readonly #directory: StateDirectory
  readonly #files: readonly VolumeFile[]
  readonly #stream: Stream
  readonly #link: Link
  readonly #written: Set<string>
  readonly #needsSync = new Map<string, NeedsSync>()
  readonly #stop = new AbortController()
  readonly #gate = new NumberingHold()
  #coordination: Coordination | undefined
  #nbd: GuestServer | undefined
  /** The VRA's numbers of the volumes, in the configuration's order. */
  #numbers: (number | undefined)[] = []
  #markersThrough = 0
  #offloaded = 0
  #lastCheckpoint: AgentStatusReport['lastCheckpoint']
  #writtenSinceMarker = false
  #onDrained: (() => void) | undefined
  #coordinating: Promise<void> | undefined
  #closing: Promise<void> | undefined

  /**
   * Serves the volumes when it resolves, whether the VRA answers or not. Fails CONFIG_INVALID where a disk cannot be served,
   * SYNC_REQUIRED where a disk that is new here already holds data, BUSY where another agent runs on the state directory.
   */
  static async open(config: AgentConfig, deps: AgentDeps): Promise<Agent> {
    checkConfig(config)
    const disk = deps.disk ?? realDisk
    const owner = { agent: config.agentId, vpg: config.vpg }
    const directory = await StateDirectory.open(disk, config.stateDirectory, owner, deps.lockDirectory)
    const files: VolumeFile[] = []
    try {
      for (const volume of config.volumes) files.push((deps.openVolumeFile ?? openVolumeFile)(volume.path))
      const clock = deps.clock ?? systemClock
      await inspectVolumes(directory, config.volumes, files, clock)
      const agent = new Agent(config, deps, clock, directory, files)
      await agent.#start().catch(async (error: unknown) => {
        await agent.#coordination?.close()
        throw error
      })
      return agent
    } catch (error) {
      for (const file of files) await file.close()
      await directory.close()
      throw error
    }
  }

  private constructor(
    config: AgentConfig,
    deps: AgentDeps,
    clock: Clock,
    directory: StateDirectory,
    files: readonly VolumeFile[],
  ) {
    const { events } = deps
    this.#config = config
    this.#deps = deps
    this.#events = events
    this.#clock = clock
    this.#directory = directory
    this.#files = files
    this.#noteNumbers()
    const { run, generation, volumes, lastMarker } = directory.state
    const frames = directory.readFrames()
    this.#stream = new Stream({
      clock,
      events,
      generation,
      queueSizeBytesMax: config.queueSizeBytesMax ?? queueSizeBytesMaxDefault,
      batchDelayMillisMax: config.batchDelayMillisMax ?? batchDelayMillisMaxDefault,
      lastNumbered: run.lastNumbered,
      durable: run.durable,
      frames: frames?.map(each => each.frame) ?? [],
      ...(run.kind === 'running' ? { floatingThrough: floatingThrough(run) } : {}),
      numberOf: index => this.#numbers[index],
    })
    this.#written = new Set(run.kind === 'running' ? run.written : [])
    if (lastMarker.counter > 0) this.#lastCheckpoint = { ...lastMarker, timestampMicros: 0 }
    for (const { frame, volumeNumbers } of frames ?? [])
      for (const number of volumeNumbers) this.#stream.noteWrite(this.#numbers.indexOf(number), frame.lastSequence)
    this.#stream.onOverflow = indexes => {
      const bound = `${Math.round((config.queueSizeBytesMax ?? queueSizeBytesMaxDefault) / MiB)} MiB`
      for (const index of indexes.length > 0 ? indexes : config.volumes.keys())
        this.#markNeedsSync(
          index,
          `the queue of writes for the VRA passed its bound of ${bound} and was dropped`,
          'drop',
        )
    }
    for (const { name, needsSync } of volumes) if (needsSync !== undefined) this.#needsSync.set(name, needsSync)
    if (this.#needsSync.size > 0) this.#stream.stop('deliver')
    this.#link = new Link(config, this.#sessionOwner(), events, deps.random ?? Math.random)
    if (frames === undefined) this.#markAll('the queue that was kept when the agent stopped cannot be read', 'drop')
  }

  status(): AgentStatusReport {
    const { agentId, vpg } = this.#config
    assert(this.#nbd !== undefined && this.#coordination !== undefined, 'an agent that was opened')
    const nbd = this.#nbd
    return {
      agentId,
      vpg,
      nbd: nbd.address(),
      link: this.#link.state,
      linkProblem: this.#link.problem,
      refusal: this.#link.refusal,
      generation: this.#directory.state.generation,
      lastNumbered: this.#stream.lastNumbered,
      durable: this.#stream.durable,
      offloaded: this.#offloaded,
      queuedBytes: this.#stream.queuedBytes,
      queuedRecords: this.#stream.queuedRecords,
      noCheckpointsBecause: this.#whyNoCheckpoints(),
      cut: this.#coordination.status(),
      lastCheckpoint: this.#lastCheckpoint,
      volumes: this.#config.volumes.map(({ name, path }, index) => {
        const mark = this.#needsSync.get(name)
        return {
          name,
          path,
          sizeBytes: this.#files[index]!.sizeBytes,
          clientCount: nbd.connectionCount(name),
          needsSync: mark !== undefined,
          reason: mark?.reason ?? '',
          sinceTimestampMicros: mark?.sinceTimestampMicros ?? 0,
        }
      }),
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

  async #start(): Promise<void> {
    const { listen, clients } = this.#config.nbd
    const exports = this.#config.volumes.map(
      ({ name, path }, index) => new Volume(name, this.#files[index]!, path, this.#tapOf(index), this.#gate),
    )
    const options = clients === undefined ? {} : { clients }
    this.#coordination = await Coordination.open({
      config: this.#config,
      clock: this.#clock,
      events: this.#events,
      directory: this.#directory,
      stream: this.#cutStream(),
      network: this.#deps.peerNetwork,
    })
    const open = this.#deps.openGuestServer ?? ((server: NbdServerOptions) => NbdServer.open(server))
    this.#nbd = await open({ listen, exports, events: this.#nbdEvents(), ...options })
    this.#link.start()
    this.#coordinating = this.#coordination.run(this.#stop.signal)
  }

  async #close(): Promise<void> {
    await this.#nbd?.close()
    this.#stop.abort()
    await this.#coordinating
    if (this.#writtenSinceMarker) await this.#coordination?.checkpoint(0)
    await this.#drain()
    await this.#coordination?.close()
    await this.#link.close()
    try {
      for (const file of this.#files) await file.sync()
      this.#saveStopped()
    } finally {
      for (const file of this.#files) await file.close()
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

  #saveStopped(): void {
    const stream = this.#stream
    const frames = stream.sealAll()
    if (frames === undefined)
      for (const index of stream.volumesWithUnsentWrites())
        this.#markNeedsSync(index, 'the agent was stopped before it had ever reached the VRA', 'drop')
    const kept = frames ?? []
    if (stream.isFloating) return // still nothing but markers: the state says so already
    if (kept.length > 0) this.#directory.saveFrames(kept)
    this.#directory.save({
      lastMarker: this.#lastMarker(),
      run: {
        kind: 'stopped',
        lastNumbered: stream.lastNumbered,
        durable: stream.durable,
        frames: kept.map(({ firstSequence, lastSequence, bytes }) => ({
          firstSequence,
          lastSequence,
          sizeBytes: bytes.length,
        })),
      },
      volumes: this.#directory.state.volumes.map(volume => {
        const file = this.#files[this.#indexOf(volume.name)]
        return file === undefined ? volume : { ...volume, identity: file.identity() }
      }),
    })
  }

  // The way of a write.

  #tapOf(index: number): VolumeTap {
    const name = this.#config.volumes[index]!.name
    return {
      beforeWrite: () => this.#noteRunning(name),
      changed: changes => this.#number(index, changes),
      failed: (command, error) => {
        const why = error instanceof Error ? error.message : String(error)
        this.#markNeedsSync(index, `a ${command} on the local disk failed (${why})`, 'deliver')
      },
    }
  }

  #number(index: number, changes: readonly SectorChange[]): void {
    this.#writtenSinceMarker = true
    if (!this.#stream.isExact) {
      this.#markNeedsSync(index, 'it was written after the stream of its VPG had to be stopped', 'deliver')
      return
    }
    const name = this.#config.volumes[index]!.name
    const recordCount = this.#stream.append(index, changes)
    const sizeBytes = changes.reduce((sum, change) => sum + change.lengthBytes, 0)
    this.#events.writeNumbered(name, { recordCount, sizeBytes })
  }

  /**
   * Durable before the first record is numbered: the volume, or with undefined only markers, may be ahead of what the state says.
   */
  #noteRunning(name: string | undefined): void {
    const stream = this.#stream
    const covered = this.#written.size > 0 || stream.lastNumbered < this.#markersThrough
    if (name === undefined ? covered : this.#written.has(name)) return
    const written = new Set(this.#written)
    for (const index of stream.volumesWithUnsentWrites()) written.add(this.#config.volumes[index]!.name)
    if (name !== undefined) written.add(name)
    const markersThrough = stream.helloLastNumbered + markerReserve
    const durable = stream.durable // the VRA is here at least, and without writes in what follows, exactness needs no more
    this.#directory.save({
      run: { kind: 'running', lastNumbered: durable, durable, written: [...written], markersThrough },
    })
    for (const each of written) this.#written.add(each)
    this.#markersThrough = markersThrough
  }

  #markAll(reason: string, queue: 'drop' | 'deliver'): void {
    this.#config.volumes.forEach((_volume, index) => this.#markNeedsSync(index, reason, queue))
  }

  #markNeedsSync(index: number, reason: string, queue: 'drop' | 'deliver'): void {
    this.#stream.stop(queue)
    const name = this.#config.volumes[index]!.name
    if (this.#needsSync.has(name)) return
    const needsSync = { reason, sinceTimestampMicros: this.#clock.timestampMicros() }
    this.#needsSync.set(name, needsSync)
    this.#events.needsSync(name, reason)
    try {
      this.#directory.saveVolume(name, { needsSync })
    } catch (error) {
      this.#events.stateNotSaved(error) // the running mark, which is durable, says the same after a kill
    }
  }

  // Checkpoints.

  /** What a cut needs of this agent; every call is one synchronous step. */
  #cutStream(): CutStream {
    return {
      whyNot: () => this.#whyNotExact(),
      volumes: () =>
        this.#numbers.map((number, index) => {
          assert(number !== undefined, 'the VRA has named every volume')
          return { number, sizeBytes: this.#files[index]!.sizeBytes, included: true }
        }),
      hold: () => this.#gate.hold(),
      release: () => this.#gate.release(),
      mark: marker => this.#mark(marker),
    }
  }

  #whyNotExact(): string | undefined {
    for (const [name, { reason }] of this.#needsSync) return `the volume "${name}" needs a synchronisation: ${reason}`
    if (!this.#stream.isExact) return 'the stream of writes had to be stopped'
    if (this.#directory.state.stream === undefined) return 'the VRA has not been reached yet'
    if (this.#stream.isFloating) return 'the VRA has not been reached since this agent was started'
    return undefined
  }

  #whyNoCheckpoints(): string {
    return (this.#coordination?.whyNone() ?? '').slice(0, sentenceSizeCharactersMax)
  }

  /** On return the marker has its number. Throws where the state cannot be written. */
  #mark(marker: CutMarker): void {
    try {
      this.#noteRunning(undefined)
    } catch (error) {
      this.#events.stateNotSaved(error)
      throw error
    }
    this.#stream.appendMarker(marker)
    const { term, counter, timestampMicros, requestId } = marker
    this.#lastCheckpoint = { term, counter, timestampMicros }
    this.#writtenSinceMarker = false
    this.#events.markerNumbered({ term, counter, requestId })
  }

  /** Counters that were spent without a marker are not used again either. */
  #lastMarker(): AgentState['lastMarker'] {
    const { term, counter } = this.#lastCheckpoint ?? { term: 0, counter: 0 }
    return { term, counter: Math.max(counter, this.#coordination?.highestCounter ?? 0) }
  }

  // The session's questions.

  #sessionOwner(): SessionOwner {
    return {
      stream: this.#stream,
      clock: this.#clock,
      connect: this.#deps.connect ?? connectSocket,
      hello: () => this.#hello(),
      welcomed: welcome => this.#welcomed(welcome),
      opened: address => {
        const { epoch } = this.#directory.state
        this.#events.linkUp({ address, epoch, resendRecordCount: this.#stream.queuedRecords })
      },
      acknowledged: ack => this.#acknowledged(ack),
      checkpointRequested: requestId => this.#coordination?.request(requestId),
      status: () => this.#statusMessage(),
      ended: problem => {
        if (problem.code === 'SYNC_REQUIRED') this.#markAll(problem.message, 'drop')
      },
    }
  }

  /** After a dropped queue it still names the old positions: nothing follows them, so the VRA may let the session in and hear why. */
  #hello(): Hello {
    const state = this.#directory.state
    const sessionNumber = Math.max(state.sessionNumber + 1, this.#clock.timestampMicros())
    this.#saveForSession({ sessionNumber })
    const { generation } = state
    return {
      type: 'hello',
      protocolVersionMin: 1,
      protocolVersionMax: 1,
      vpg: this.#config.vpg,
      agent: this.#config.agentId,
      sessionNumber,
      epoch: state.epoch,
      incarnation: state.incarnation,
      volumes: this.#config.volumes.map(({ name }, index) => ({
        name,
        sizeBytes: this.#files[index]!.sizeBytes,
        sync: 'none' as const,
      })),
      resumableFrom: { generation, sequence: sequence(this.#stream.durable) },
      lastNumbered: { generation, sequence: sequence(this.#stream.helloLastNumbered) },
      software: 'recovery-site-vra agent',
      openGeneration: 0,
      peerAddress: this.#coordination?.peerAddress ?? '',
    }
  }

  #welcomed(welcome: Welcome): void {
    const state = this.#directory.state
    if (welcome.epoch < state.epoch)
      throw new Failure(
        'EPOCH_SUPERSEDED',
        `this VRA is at epoch ${welcome.epoch}, but a newer one, at epoch ${state.epoch}, has taken over`,
      )
    if (state.vpgId !== undefined && state.vpgId !== welcome.vpg)
      throw new Failure('SYNC_REQUIRED', `the VPG "${this.#config.vpg}" is not the one that was written before`)
    if (welcome.durable.generation !== state.generation && welcome.durable.sequence !== 0)
      throw new Failure('SYNC_REQUIRED', `the VRA has generation ${welcome.durable.generation} of the stream`)
    const volumes = state.volumes.map(volume => {
      const index = this.#indexOf(volume.name)
      if (index === -1) return volume
      const named = welcome.volumes.find(each => each.name === volume.name)
      if (named?.sizeBytes !== this.#files[index]!.sizeBytes)
        throw new Failure('UNKNOWN_VOLUME', `the VRA does not know the volume "${volume.name}" with this disk's size`)
      if (volume.number !== undefined && volume.number !== named.number)
        throw new Failure('SYNC_REQUIRED', `the VRA gave the volume "${volume.name}" another number`)
      return { ...volume, number: named.number }
    })
    const isNewest = welcome.coordinator.term >= (state.coordinator?.term ?? 0)
    const { epoch, incarnation, stream } = welcome
    const coordinator = isNewest ? welcome.coordinator : state.coordinator!
    this.#offloaded = Math.max(this.#offloaded, welcome.offloaded.sequence)
    this.#saveForSession({ vpgId: welcome.vpg, epoch, incarnation, stream, coordinator, volumes })
    this.#noteNumbers()
    this.#coordination?.appointed()
  }

  /** A state directory that cannot be written costs the session, which is tried again; never the guests their disks. */
  #saveForSession(change: Partial<AgentState>): void {
    try {
      this.#directory.save(change)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Failure('DISK_FAILED', `the agent cannot save its state: ${why}`, {}, { cause })
    }
  }

  #acknowledged(ack: Ack): void {
    if (ack.durable.sequence > this.#stream.lastNumbered)
      throw new Failure('FRAME_INVALID', `the VRA acknowledged ${ack.durable.sequence}, which has no number yet`)
    this.#offloaded = Math.max(this.#offloaded, ack.offloaded.sequence)
    this.#stream.acknowledge(ack.durable.sequence)
    if (this.#stream.queuedBytes === 0) this.#onDrained?.()
  }

  #statusMessage(): AgentStatus {
    const volumes = this.#directory.state.volumes.flatMap(({ name, number }) => {
      const mark = this.#needsSync.get(name)
      if (number === undefined || this.#indexOf(name) === -1) return []
      const { reason = '', sinceTimestampMicros = 0 } = mark ?? {}
      const sync = { sync: 'none' as const, syncTotalBytes: 0, syncDoneBytes: 0, syncSentBytes: 0, dirtyBytes: 0 }
      return [{ number, needsSync: mark !== undefined, reason, sinceTimestampMicros, ...sync }]
    })
    const { queuedBytes, queuedRecords } = this.#stream
    return { type: 'agent-status', queuedBytes, queuedRecords, volumes, noCheckpointsBecause: this.#whyNoCheckpoints() }
  }

  #noteNumbers(): void {
    const { volumes } = this.#directory.state
    this.#numbers = this.#config.volumes.map(({ name }) => volumes.find(volume => volume.name === name)?.number)
  }

  #indexOf(name: string): number {
    return this.#config.volumes.findIndex(volume => volume.name === name)
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

/** After writes nobody knows how far the VRA is; the stream is stopped then, and whatever the VRA has is accepted, to tell it why. */
function floatingThrough(run: { readonly written: readonly string[]; readonly markersThrough: number }): number {
  return run.written.length > 0 ? Number.MAX_SAFE_INTEGER : run.markersThrough
}

function checkConfig(config: AgentConfig): void {
  const names = config.volumes.map(volume => volume.name)
  if (names.length === 0 || names.length > volumesPerVpgMax)
    throw new Failure('CONFIG_INVALID', `an agent has 1 to ${volumesPerVpgMax} volumes, not ${names.length}`)
  if (new Set(names).size !== names.length) throw new Failure('CONFIG_INVALID', 'two volumes have the same name')
  if (new Set(config.volumes.map(volume => volume.path)).size !== names.length)
    throw new Failure('CONFIG_INVALID', 'two volumes have the same path')
}
