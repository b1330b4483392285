import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { VolumeFileIdentity } from '../disk/disk.ts'
import type { Coordinator, SyncKind } from '../wire/wire.ts'

/** A synchronisation that is open: the regions are in the dirty map, as pending. */
export interface OpenSync {
  readonly kind: Exclude<SyncKind, 'none'>
  /** A sentence for people. */
  readonly reason: string
  readonly sinceTimestampMicros: number
}

export interface VolumeState {
  readonly name: string
  /** The VRA's number of the volume, once it has said it. */
  readonly number?: number
  /** The disk as it was when the agent last knew it. */
  readonly identity: VolumeFileIdentity
  readonly sync?: OpenSync
  /** Why the dirty map cannot be believed at the next start, a sentence: its file could not be written. */
  readonly unmapped?: string
  /** A sync of the local disk failed: what the map has is sent once more at the next start. */
  readonly isSuspect?: boolean
}

/**
 * 'stopped': the disks are as they were then; with `exact` the stream goes on behind lastNumbered, without it a new generation is
 * opened. It stays so after a start until the first record is numbered. 'running': found at a start, the agent was killed; the volumes
 * in `written` may have changed since it was started, all others have not.
 */
export type RunState =
  | { readonly kind: 'stopped'; readonly exact?: ExactStop }
  | { readonly kind: 'running'; readonly written: readonly string[] }

export interface ExactStop {
  readonly lastNumbered: number
  readonly durable: number
  /** The frames in queue.frames, in order. */
  readonly frames: readonly {
    readonly firstSequence: number
    readonly lastSequence: number
    readonly sizeBytes: number
  }[]
}

/** A volume of the VPG, this agent's or another's, as the VRA has named it. */
export interface NamedVolume {
  readonly name: string
  readonly number: number
  readonly sizeBytes: number
}

export interface AgentState {
  readonly formatVersion: 3
  readonly agent: string
  readonly vpg: string
  /** 32 hexadecimal digits, once the VRA has said it. */
  readonly vpgId?: VpgId
  readonly sessionNumber: number
  /** The highest that any VRA has shown. */
  readonly epoch: number
  readonly incarnation: number
  /** The newest that was opened, or that a VRA was asked to open; 0 before the first. */
  readonly generation: number
  readonly stream?: number
  readonly coordinator?: Coordinator
  /** A higher term than the VRA has told, heard of from another agent: it is obeyed after a restart, too. */
  readonly seenTerm?: { readonly term: number; readonly coordinator: string }
  /** Every volume of the VPG, for markers. */
  readonly vpgVolumes: readonly NamedVolume[]
  readonly paused: boolean
  /** The operation for which guests write no more; absent or empty: they do. */
  readonly quiescedBy?: string
  /** The newest marker that this agent made, as far as it was saved. */
  readonly lastMarker: { readonly term: number; readonly counter: number }
  readonly run: RunState
  readonly volumes: readonly VolumeState[]
}

export function firstState(owner: { readonly agent: string; readonly vpg: string }): AgentState {
  return {
    formatVersion: 3,
    ...owner,
    sessionNumber: 0,
    epoch: 0,
    incarnation: 0,
    generation: 0,
    vpgVolumes: [],
    paused: false,
    lastMarker: { term: 0, counter: 0 },
    run: { kind: 'stopped' },
    volumes: [],
  }
}

/** Fails RECORD_CORRUPT where the text is damaged, VERSION_UNSUPPORTED where it is of another version. */
export function parseState(text: string, file: string): AgentState {
  let state: Partial<AgentState> & { readonly formatVersion?: number }
  try {
    state = JSON.parse(text) as typeof state
  } catch (cause) {
    const why = `${file} is damaged: it is not JSON. Move the whole directory away to begin anew with a synchronisation by hashes.`
    throw new Failure('RECORD_CORRUPT', why, {}, { cause })
  }
  if (state.formatVersion === 3) return state as AgentState
  if (state.formatVersion === 2) return { ...(state as AgentState), formatVersion: 3 } // of block devices it is not known whether they were written to
  if (state.formatVersion === 1) return fromVersion1(state)
  throw new Failure(
    'VERSION_UNSUPPORTED',
    `${file} is of version ${String(state.formatVersion)}, this agent knows 1 to 3`,
  )
}

/** Version 1 kept no dirty maps: its volumes begin with a synchronisation by hashes, as where a map is lost. */
function fromVersion1(state: Partial<AgentState>): AgentState {
  const volumes = state.volumes ?? []
  return {
    ...(state as AgentState),
    formatVersion: 3,
    vpgVolumes: [],
    paused: false,
    run: { kind: 'running', written: volumes.map(volume => volume.name) },
    volumes: volumes.map(({ name, number, identity }) => ({
      name,
      identity,
      ...(number === undefined ? {} : { number }),
    })),
  }
}
