import * as path from 'node:path'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { Closable } from '../base/shutdown.ts'
import { lockDirectory } from '../disk/directory-lock.ts'
import { readWholeFile, replaceFile, type Disk, type VolumeFileIdentity } from '../disk/disk.ts'
import { decodeFrame, type Coordinator } from '../wire/wire.ts'
import type { QueuedFrame } from './stream.ts'

// What the agent must know after a restart: `state.json`, replaced as a whole, and `queue.frames`, what was numbered and not
// acknowledged at a clean stop. Both are written with the disk's atomic replacement, so a power cut leaves the old or the new.

export interface NeedsSync {
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
  readonly needsSync?: NeedsSync
}

/**
 * 'stopped': the disks are as they were then, and the stream goes on exactly behind lastNumbered. It stays so after a start until
 * the first record is numbered. 'running': the volumes in `written` have changed since; found at a start, the agent was killed.
 * Where `written` is empty, all records behind lastNumbered are markers, at most up to markersThrough: nothing is lost, and the
 * VRA knows where to go on.
 */
export type RunState =
  | {
      readonly kind: 'stopped'
      readonly lastNumbered: number
      readonly durable: number
      /** The frames in queue.frames, in order. */
      readonly frames: readonly { firstSequence: number; lastSequence: number; sizeBytes: number }[]
    }
  | {
      readonly kind: 'running'
      readonly lastNumbered: number
      readonly durable: number
      readonly written: readonly string[]
      readonly markersThrough: number
    }

export interface AgentState {
  readonly formatVersion: 1
  readonly agent: string
  readonly vpg: string
  /** 32 hexadecimal digits, once the VRA has said it. */
  readonly vpgId?: VpgId
  readonly sessionNumber: number
  /** The highest that any VRA has shown. */
  readonly epoch: number
  readonly incarnation: number
  readonly generation: number
  readonly stream?: number
  readonly coordinator?: Coordinator
  /** A higher term than the VRA has told, heard of from another agent: it is obeyed after a restart, too. */
  readonly seenTerm?: { readonly term: number; readonly coordinator: string }
  /** The newest marker that this agent made, as far as it was saved. */
  readonly lastMarker: { readonly term: number; readonly counter: number }
  readonly run: RunState
  readonly volumes: readonly VolumeState[]
}

/** A frame of queue.frames, and the volumes that it writes. */
export interface KeptFrame {
  readonly frame: QueuedFrame
  readonly volumeNumbers: readonly number[]
}

/** The state directory of one agent, held against any other for as long as this is open. */
export class StateDirectory {
  readonly #disk: Disk
  readonly #directory: string
  readonly #lock: Closable
  #state: AgentState

  private constructor(disk: Disk, directory: string, lock: Closable, state: AgentState) {
    this.#disk = disk
    this.#directory = directory
    this.#lock = lock
    this.#state = state
  }

  /** Fails BUSY where another process holds it, CONFIG_INVALID where it belongs to another agent or VPG. */
  static async open(
    disk: Disk,
    directory: string,
    owner: { agent: string; vpg: string },
    lock = lockDirectory,
  ): Promise<StateDirectory> {
    disk.makeDirectory(directory)
    const held = await lock(directory)
    try {
      const state = readState(disk, directory) ?? firstState(owner)
      if (state.agent !== owner.agent || state.vpg !== owner.vpg)
        throw new Failure(
          'CONFIG_INVALID',
          `the state directory ${directory} belongs to agent "${state.agent}" of VPG "${state.vpg}": give "${owner.agent}" of "${owner.vpg}" one of its own`,
        )
      return new StateDirectory(disk, directory, held, state)
    } catch (error) {
      await held.close()
      throw error
    }
  }

  get state(): AgentState {
    return this.#state
  }

  /** On return the change is durable. */
  save(change: Partial<AgentState>): void {
    const next = { ...this.#state, ...change }
    replaceFile(this.#disk, this.#stateFile, Buffer.from(JSON.stringify(next, undefined, 2)))
    this.#state = next
  }

  /** Changes what is known of one volume. */
  saveVolume(name: string, change: Partial<VolumeState>): void {
    this.save({ volumes: this.#state.volumes.map(each => (each.name === name ? { ...each, ...change } : each)) })
  }

  /** Writes the frames durably, beside the state that will refer to them. */
  saveFrames(frames: readonly QueuedFrame[]): void {
    replaceFile(this.#disk, this.#framesFile, Buffer.concat(frames.map(frame => frame.bytes)))
  }

  /** The frames that the stopped state refers to, each checked; undefined where they are not whole. */
  readFrames(): readonly KeptFrame[] | undefined {
    const run = this.#state.run
    if (run.kind === 'running' || run.frames.length === 0) return []
    const contents = readWholeFile(this.#disk, this.#framesFile)
    let at = 0
    const frames: KeptFrame[] = []
    for (const { firstSequence, lastSequence, sizeBytes } of run.frames) {
      const bytes = Buffer.from(contents?.subarray(at, at + sizeBytes) ?? [])
      const volumeNumbers = readVolumeNumbers(bytes)
      if (volumeNumbers === undefined) return undefined
      frames.push({ frame: { firstSequence, lastSequence, bytes }, volumeNumbers })
      at += sizeBytes
    }
    return frames
  }

  close(): Promise<void> {
    return this.#lock.close()
  }

  get #stateFile(): string {
    return path.join(this.#directory, 'state.json')
  }
  get #framesFile(): string {
    return path.join(this.#directory, 'queue.frames')
  }
}

/** The volumes that a frame writes; undefined where it is not a whole frame. */
function readVolumeNumbers(bytes: Buffer): readonly number[] | undefined {
  try {
    const message = decodeFrame(bytes)
    if (message.type !== 'write-batch') return []
    const numbers = new Set<number>()
    for (let index = 0; index < message.writeCount; index++) numbers.add(message.volume(index))
    return [...numbers]
  } catch {
    return undefined
  }
}

function firstState(owner: { agent: string; vpg: string }): AgentState {
  return {
    formatVersion: 1,
    ...owner,
    sessionNumber: 0,
    epoch: 0,
    incarnation: 0,
    generation: 1,
    lastMarker: { term: 0, counter: 0 },
    run: { kind: 'stopped', lastNumbered: 0, durable: 0, frames: [] },
    volumes: [],
  }
}

function readState(disk: Disk, directory: string): AgentState | undefined {
  const file = path.join(directory, 'state.json')
  const contents = readWholeFile(disk, file)
  if (contents === undefined) return undefined
  let state: Partial<AgentState>
  try {
    state = JSON.parse(Buffer.from(contents).toString('utf8')) as Partial<AgentState>
  } catch (cause) {
    throw new Failure(
      'RECORD_CORRUPT',
      `${file} is damaged: it is not JSON. Without it the stream cannot go on.`,
      {},
      { cause },
    )
  }
  if (state.formatVersion !== 1)
    throw new Failure('VERSION_UNSUPPORTED', `${file} is of version ${String(state.formatVersion)}, this agent knows 1`)
  return state as AgentState
}
