import { Counter, Gauge, Registry } from 'prom-client'
import type { AgentStatusReport } from '../agent/agent.ts'
import type { AgentEvents } from '../agent/events.ts'
import { FastHistogram } from './histogram.ts'
import { watchLoopDelay } from './loop-delay.ts'
import { counter, gauge, registerCertificate, registerProcessMetrics } from './process.ts'

/** The agent's events as Prometheus text. */
export class AgentMetrics {
  readonly events: AgentEvents
  readonly #registry = new Registry()
  readonly #linkLosses = new Map<string, number>()
  readonly #holds = new FastHistogram(holdBoundsSeconds)
  readonly #holdEnds = new Map<string, number>()
  readonly #holdRefusals = new Map<string, number>()
  readonly #checkpointFailures = new Map<string, number>()
  readonly #counts = {
    records: 0,
    bytes: 0,
    batches: 0,
    rawBytes: 0,
    frameBytes: 0,
    markers: 0,
    diskFailures: 0,
    stateFailures: 0,
    clients: 0,
    refusals: 0,
    syncRecords: 0,
    syncBytes: 0,
    syncReadFailures: 0,
    detachments: 0,
  }
  readonly #now = { linkUp: 0, refused: 0, clients: 0, peers: 0, lastMarkerSeconds: 0 }
  readonly #status: () => AgentFacts | undefined
  readonly #loopDelay = watchLoopDelay()

  /** `status` is asked at a scrape: no event tells how a queue grows or a synchronisation goes on. Undefined before the agent is open. */
  constructor(options: {
    readonly version: string
    readonly certificateEndSeconds?: number | undefined
    readonly status: () => AgentFacts | undefined
  }) {
    this.#status = options.status
    this.events = this.#agentEvents()
    registerProcessMetrics(this.#registry, options.version, this.#loopDelay)
    registerCertificate(this.#registry, 'vra_agent', options.certificateEndSeconds)
    this.#register()
  }

  render(): Promise<string> {
    return this.#registry.metrics()
  }

  async close(): Promise<void> {
    this.#loopDelay.disable()
  }

  #agentEvents(): AgentEvents {
    const [counts, now] = [this.#counts, this.#now]
    return {
      linkUp: () => {
        now.linkUp = 1
        now.refused = 0
      },
      linkDown: ({ code, refused }) => {
        now.linkUp = 0
        now.refused = refused ? 1 : 0
        countOne(this.#linkLosses, code)
      },
      detached: () => void counts.detachments++,
      generationOpened: () => undefined,
      paused: () => undefined,
      quiesced: () => undefined,
      volumeRefused: () => undefined,
      syncOpened: () => undefined,
      syncNumbered: (_, { recordCount, sizeBytes }) => {
        counts.syncRecords += recordCount
        counts.syncBytes += sizeBytes
      },
      syncReadFailed: () => void counts.syncReadFailures++,
      syncEnded: () => undefined,
      marksNotCleared: () => undefined,
      localDiskFailed: () => void counts.diskFailures++,
      stateNotSaved: () => void counts.stateFailures++,
      writeNumbered: (_, { recordCount, sizeBytes }) => {
        counts.records += recordCount
        counts.bytes += sizeBytes
      },
      batchSealed: ({ rawSizeBytes, frameSizeBytes }) => {
        counts.batches++
        counts.rawBytes += rawSizeBytes
        counts.frameBytes += frameSizeBytes
      },
      sealingThreadEnded: () => undefined,
      markerNumbered: () => {
        counts.markers++
        now.lastMarkerSeconds = Date.now() / 1000
      },
      holdEnded: ({ end, heldMillis }) => {
        this.#holds.observe(heldMillis / 1000)
        countOne(this.#holdEnds, end)
      },
      holdRefused: ({ reason }) => countOne(this.#holdRefusals, reason),
      checkpointFailed: ({ reason }) => countOne(this.#checkpointFailures, reason),
      checkpointCut: () => undefined,
      peerUp: () => void now.peers++,
      peerDown: () => void now.peers--,
      peerRefused: () => countOne(this.#holdRefusals, 'peer'),
      acknowledged: () => undefined,
      clientConnected: () => {
        counts.clients++
        now.clients++
      },
      clientGone: () => void now.clients--,
      clientRefused: () => void counts.refusals++,
    }
  }

  /** Of each volume, as its status says it. */
  #registerSync(): void {
    const status = (): readonly VolumeFacts[] => this.#status()?.volumes ?? []
    for (const { name, help, of } of volumeGauges)
      new Gauge({
        name,
        help,
        labelNames: ['volume'],
        registers: [this.#registry],
        collect() {
          this.reset()
          for (const volume of status()) this.set({ volume: volume.name }, of(volume))
        },
      })
  }

  #register(): void {
    const registry = this.#registry
    const [counts, now, losses] = [this.#counts, this.#now, this.#linkLosses]
    gauge(registry, 'vra_agent_link_up', '1 while the session with the VRA is open.', () => now.linkUp)
    gauge(
      registry,
      'vra_agent_link_refused',
      '1 while the VRA refuses this agent, or the agent the VRA: /v1/status says why.',
      () => now.refused,
    )
    gauge(
      registry,
      'vra_agent_queue_bytes',
      'Bytes that wait for their acknowledgement.',
      () => this.#status()?.queuedBytes ?? 0,
    )
    gauge(
      registry,
      'vra_agent_volumes_needing_sync',
      'Volumes with a synchronisation that runs or waits.',
      () => this.#status()?.volumes.filter(volume => volume.sync !== 'none').length ?? 0,
    )
    gauge(
      registry,
      'vra_agent_exact',
      '1 while every write is numbered, 0 while writes are only marked as dirty.',
      () => (this.#status()?.stream === 'exact' ? 1 : 0),
    )
    this.#registerSync()
    counter(
      registry,
      'vra_agent_detached_total',
      'Times that the queue was given up and the dirty map took over.',
      () => counts.detachments,
    )
    counter(registry, 'vra_agent_sync_records_total', 'Records numbered by synchronisations.', () => counts.syncRecords)
    counter(registry, 'vra_agent_sync_sent_bytes_total', 'Data sent by synchronisations.', () => counts.syncBytes)
    counter(
      registry,
      'vra_agent_sync_read_failures_total',
      'Places that the local disk did not give to a synchronisation.',
      () => counts.syncReadFailures,
    )
    gauge(registry, 'vra_agent_nbd_clients', 'NBD connections of guests that are open.', () => now.clients)
    counter(
      registry,
      'vra_agent_nbd_clients_total',
      'NBD connections of guests that were opened.',
      () => counts.clients,
    )
    counter(
      registry,
      'vra_agent_nbd_refusals_total',
      'NBD connections closed because of what they sent.',
      () => counts.refusals,
    )
    counter(
      registry,
      'vra_agent_records_total',
      'Records numbered: guest writes, split where they are long.',
      () => counts.records,
    )
    counter(registry, 'vra_agent_written_bytes_total', 'Bytes of guest writes.', () => counts.bytes)
    counter(registry, 'vra_agent_batches_total', 'Write batches closed for sending.', () => counts.batches)
    counter(
      registry,
      'vra_agent_batch_raw_bytes_total',
      'Bytes of write batches before compression.',
      () => counts.rawBytes,
    )
    counter(registry, 'vra_agent_batch_frame_bytes_total', 'Bytes of write batches as sent.', () => counts.frameBytes)
    counter(
      registry,
      'vra_agent_checkpoint_markers_total',
      'Checkpoint markers put into the stream.',
      () => counts.markers,
    )
    counter(
      registry,
      'vra_agent_disk_failures_total',
      'Guest requests answered with an error of the local disk.',
      () => counts.diskFailures,
    )
    counter(
      registry,
      'vra_agent_state_failures_total',
      'Times that the agent could not write down what it must remember.',
      () => counts.stateFailures,
    )
    gauge(
      registry,
      'vra_agent_last_marker_timestamp_seconds',
      'When the newest checkpoint marker was put into the stream; 0 before the first.',
      () => now.lastMarkerSeconds,
    )
    gauge(
      registry,
      'vra_agent_peers',
      'Connections to and from other agents of the VPG that are open.',
      () => now.peers,
    )
    this.#holds.register(
      registry,
      'vra_agent_hold_seconds',
      "How long guests' writes were held for a checkpoint over several agents.",
    )
    counterBy(registry, 'end', {
      name: 'vra_agent_holds_total',
      help: 'Holds by how they ended: cut with the marker, else without a checkpoint.',
      counts: this.#holdEnds,
    })
    counterBy(registry, 'reason', {
      name: 'vra_agent_hold_refusals_total',
      help: 'Holds and cuts that this agent refused, and connections of who is no other agent.',
      counts: this.#holdRefusals,
    })
    counterBy(registry, 'reason', {
      name: 'vra_agent_checkpoint_failures_total',
      help: 'Checkpoints that this agent coordinated and that came to nothing.',
      counts: this.#checkpointFailures,
    })
    counterBy(registry, 'code', {
      name: 'vra_agent_link_losses_total',
      help: 'Times that the session with the VRA ended or could not be opened, by failure code.',
      counts: losses,
    })
  }
}

/** From one step to the bound of a hold. */
const holdBoundsSeconds: readonly number[] = [
  0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 10,
]

function countOne(counts: Map<string, number>, label: string): void {
  counts.set(label, (counts.get(label) ?? 0) + 1)
}

function counterBy(
  registry: Registry,
  label: string,
  {
    name,
    help,
    counts,
  }: { readonly name: string; readonly help: string; readonly counts: ReadonlyMap<string, number> },
): void {
  new Counter({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset()
      for (const [value, count] of counts) this.inc({ [label]: value }, count)
    },
  })
}
type AgentFacts = Pick<AgentStatusReport, 'stream' | 'volumes' | 'queuedBytes'>
type VolumeFacts = AgentStatusReport['volumes'][number]

const volumeGauges: readonly {
  readonly name: string
  readonly help: string
  readonly of: (volume: VolumeFacts) => number
}[] = [
  {
    name: 'vra_agent_dirty_bytes',
    help: 'Marked regions: what a kill would send again, until it is in the store.',
    of: each => each.dirtyBytes,
  },
  {
    name: 'vra_agent_sync_total_bytes',
    help: 'What the open synchronisation looks at.',
    of: each => each.syncTotalBytes,
  },
  {
    name: 'vra_agent_sync_done_bytes',
    help: 'What the open synchronisation has looked at.',
    of: each => each.syncDoneBytes,
  },
  {
    name: 'vra_agent_sync_unreadable',
    help: 'Regions that cannot be read for the open synchronisation.',
    of: each => each.unreadable.length,
  },
]
