import type { FailureCode } from '../base/failure.ts'
import { MiB } from '../base/units.ts'
import type { Clock } from '../base/clock.ts'
import type { Closable } from '../base/shutdown.ts'
import type { Disk, OpenVolumeFile } from '../disk/disk.ts'
import type { NbdListen, NbdServerOptions } from '../nbd/nbd.ts'
import type { CutStatus, PeerListenAddress, PeerNetwork } from '../cut/cut.ts'
import type { SyncKind } from '../wire/wire.ts'
import type { Connect, VraTarget } from './connect.ts'
import type { AgentEvents } from './events.ts'
import type { Sealer } from './sealing/sealer.ts'

export interface AgentVolumeConfig {
  readonly name: string
  /** A raw file or a block device; its size is a multiple of 512. */
  readonly path: string
}

export interface AgentConfig {
  readonly agentId: string
  readonly vpg: string
  readonly vra: VraTarget
  /** Belongs to one agent and one VPG; a second agent that wants it is refused. */
  readonly stateDirectory: string
  readonly volumes: readonly AgentVolumeConfig[]
  readonly nbd: { readonly listen: NbdListen; readonly clients?: 'one-address' | 'any' }
  /** Bytes that are numbered and not yet acknowledged; past it the queue is dropped, and the dirty maps say what is sent instead. */
  readonly queueSizeBytesMax?: number
  /** How long an incomplete batch waits for more writes while another is in flight. */
  readonly batchDelayMillisMax?: number
  /** How long close() waits for the VRA to acknowledge what is queued. */
  readonly drainTimeoutMillis?: number
  /** How often at most the marks of what is offloaded are taken back; each time the local disks are synced. */
  readonly markRotationMillisMin?: number
  /** The other agents of the VPG, for checkpoints over all of them; with TLS where the VRA is reached with TLS. */
  readonly peers?: AgentPeersConfig
}

export interface AgentPeersConfig {
  /** Undefined: they do not reach this agent. */
  readonly listen?: PeerListenAddress
  /** `host:port` as they reach it, where that is not where it listens. */
  readonly advertise?: string
  /** How long guests' writes are held at most; see proto/README.md, section 8. */
  readonly holdTimeoutMillis?: number
}

export const queueSizeBytesMaxDefault = 256 * MiB
export const batchDelayMillisMaxDefault = 5
export const drainTimeoutMillisDefault = 10_000
export const markRotationMillisMinDefault = 10_000

/** Serves exports to guests until it is closed; NbdServer is one. */
export interface GuestServer {
  address(): NbdListen
  connectionCount(exportName: string): number
  addExport(added: NbdServerOptions['exports'][number]): void
  /** Its clients are gone, and no call of it is under way, when it resolves; at the latest when close() does. */
  removeExport(name: string): Promise<void>
  close(): Promise<void>
}

/**
 * What an agent stands on, all that it knows of the world: with a clock, a network and a disk of a test's own, and guests that call
 * the exports, the whole agent runs without the machine's.
 */
export interface AgentDeps {
  readonly events: AgentEvents
  readonly clock?: Clock
  /** In [0, 1): so that many agents do not come back at once. */
  readonly random?: () => number
  readonly connect?: Connect
  readonly disk?: Disk
  readonly openVolumeFile?: OpenVolumeFile
  /** Keeps a state directory to one agent; fails BUSY. */
  readonly lockDirectory?: (directory: string) => Promise<Closable>
  readonly openGuestServer?: (options: NbdServerOptions) => Promise<GuestServer>
  /** Where it is not given, a thread of this process. */
  readonly sealer?: Sealer
  /** To the other agents of the VPG. */
  readonly peerNetwork?: PeerNetwork
}

export interface AgentVolumeStatus {
  readonly name: string
  readonly path: string
  readonly sizeBytes: number
  readonly clientCount: number
  /** The synchronisation that runs or waits; 'none' where the stream alone is exact. */
  readonly sync: SyncKind
  /** Why, a sentence for people; empty where there is none. */
  readonly reason: string
  /** Why the VRA does not take this volume, a sentence; empty where it does, or has not been asked. */
  readonly refusal: string
  /** 0 where there is none. */
  readonly sinceTimestampMicros: number
  readonly syncTotalBytes: number
  readonly syncDoneBytes: number
  readonly syncSentBytes: number
  readonly syncRateBytesPerSecond: number
  /** Undefined while it cannot be told. */
  readonly syncEtaSeconds: number | undefined
  /** Regions of the dirty map that are marked: what a kill or an outage would send again. */
  readonly dirtyBytes: number
  /** What the local disk does not give, and the synchronisation waits for. */
  readonly unreadable: readonly { readonly offsetBytes: number; readonly reason: string }[]
}

/** What the VRA refuses this agent for, since when, how often. */
export interface LinkRefusal {
  readonly code: FailureCode
  readonly sentence: string
  readonly count: number
  readonly firstTimestampMicros: number
  readonly lastTimestampMicros: number
}

export interface AgentStatusReport {
  readonly agentId: string
  readonly vpg: string
  readonly nbd: NbdListen
  readonly link: 'connected' | 'connecting' | 'refused' | 'closed'
  /** Why the link is not connected, for people; empty where it is. */
  readonly linkProblem: string
  /** Set while the VRA refuses this agent, or this agent the VRA: it does not pass by itself. */
  readonly refusal: LinkRefusal | undefined
  /** 0 where it is connected. */
  readonly linkDownSinceTimestampMicros: number
  /** 'exact': every write gets its number and waits in the queue. 'detached': writes are only marked, and sent by a synchronisation. */
  readonly stream: 'exact' | 'detached'
  readonly paused: boolean
  /** The operation for which guests write no more, durably; empty: they do. */
  readonly quiescedBy: string
  /** Why no checkpoints are made, for people; empty where they are. */
  readonly noCheckpointsBecause: string
  readonly generation: number
  readonly lastNumbered: number
  readonly durable: number
  readonly offloaded: number
  readonly queuedBytes: number
  readonly queuedRecords: number
  /** This agent's part in checkpoints over several agents. */
  readonly cut: CutStatus
  readonly lastCheckpoint:
    { readonly term: number; readonly counter: number; readonly timestampMicros: number } | undefined
  readonly volumes: readonly AgentVolumeStatus[]
}
