import { MiB } from '../base/units.ts'
import type { Clock } from '../base/clock.ts'
import type { Disk, OpenVolumeFile } from '../disk/disk.ts'
import type { NbdListen } from '../nbd/nbd.ts'
import type { AgentEvents } from './events.ts'

/** PEM texts, not paths: whoever reads the configuration reads the files. */
export interface AgentTls {
  readonly certificateAuthority: string
  readonly certificate: string
  readonly privateKey: string
  /** The name that the VRA's certificate must bear, where it is not the host that is connected to. */
  readonly serverName?: string
}

export interface AgentVolumeConfig {
  readonly name: string
  /** A raw file or a block device; its size is a multiple of 512. */
  readonly path: string
}

export interface AgentConfig {
  readonly agentId: string
  readonly vpg: string
  readonly vra: { readonly host: string; readonly port: number; readonly tls?: AgentTls }
  /** Belongs to one agent and one VPG; a second agent that wants it is refused. */
  readonly stateDirectory: string
  readonly volumes: readonly AgentVolumeConfig[]
  readonly nbd: { readonly listen: NbdListen; readonly clients?: 'one-address' | 'any' }
  /** Bytes that are numbered and not yet acknowledged; past it the queue is dropped and the volumes need a sync. */
  readonly queueSizeBytesMax?: number
  /** How long an incomplete batch waits for more writes while another is in flight. */
  readonly batchDelayMillisMax?: number
  /** How long close() waits for the VRA to acknowledge what is queued. */
  readonly drainTimeoutMillis?: number
}

export const queueSizeBytesMaxDefault = 256 * MiB
export const batchDelayMillisMaxDefault = 2
export const drainTimeoutMillisDefault = 10_000

/** What an agent stands on; a test puts a failing disk or another clock in. */
export interface AgentDeps {
  readonly events: AgentEvents
  readonly clock?: Clock
  readonly disk?: Disk
  readonly openVolumeFile?: OpenVolumeFile
}

export interface AgentVolumeStatus {
  readonly name: string
  readonly path: string
  readonly sizeBytes: number
  readonly clientCount: number
  readonly needsSync: boolean
  /** A sentence for people; empty where no sync is needed. */
  readonly reason: string
  /** 0 where no sync is needed. */
  readonly sinceTimestampMicros: number
}

export interface AgentStatusReport {
  readonly agentId: string
  readonly vpg: string
  readonly nbd: NbdListen
  readonly link: 'connected' | 'connecting' | 'refused' | 'closed'
  /** Why the link is not connected, for people; empty where it is. */
  readonly linkProblem: string
  readonly generation: number
  readonly lastNumbered: number
  readonly durable: number
  readonly offloaded: number
  readonly queuedBytes: number
  readonly queuedRecords: number
  readonly lastCheckpoint:
    { readonly term: number; readonly counter: number; readonly timestampMicros: number } | undefined
  readonly volumes: readonly AgentVolumeStatus[]
}
