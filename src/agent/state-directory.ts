import * as path from 'node:path'
import { Failure } from '../base/failure.ts'
import type { Closable } from '../base/shutdown.ts'
import { lockDirectory, makeHeldDirectory } from '../disk/directory-lock.ts'
import { readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'
import { decodeFrame } from '../wire/wire.ts'
import { firstState, parseState, type AgentState, type VolumeState } from './state.ts'
import type { QueuedFrame } from './stream.ts'

// What the agent must know after a restart: `state.json`, replaced as a whole; `queue.frames`, what was numbered and not acknowledged
// at a clean stop; and a dirty map for each volume. README.md has their formats. State and queue are written with the disk's atomic
// replacement, so a power cut leaves the old or the new.

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

  /** Fails BUSY where another process holds it, CONFIG_INVALID where it belongs to another agent or VPG, or cannot be used. */
  static async open(
    disk: Disk,
    directory: string,
    owner: { agent: string; vpg: string },
    lock = lockDirectory,
  ): Promise<StateDirectory> {
    makeHeldDirectory(disk, directory)
    const held = await lock(directory)
    try {
      const stateFile = path.join(directory, 'state.json')
      const contents = readWholeFile(disk, stateFile)
      const state =
        contents === undefined ? firstState(owner) : parseState(Buffer.from(contents).toString('utf8'), stateFile)
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
    this.replace({ ...this.#state, ...change })
  }

  /** On return the whole state is durable. */
  replace(next: AgentState): void {
    replaceFile(this.#disk, this.#stateFile, Buffer.from(JSON.stringify(next, undefined, 2)))
    this.#state = next
  }

  /** Puts what is known of some volumes in the place of what was. */
  saveVolumes(changed: readonly VolumeState[]): void {
    this.save({ volumes: this.volumesWith(changed) })
  }

  /** With what is known of others, too: a volume that is not served at the moment, for its disk is opened anew, is not forgotten. */
  volumesWith(changed: readonly VolumeState[]): VolumeState[] {
    const others = this.#state.volumes.filter(each => !changed.some(({ name }) => name === each.name))
    return [...others, ...changed]
  }

  /** Writes the frames durably, beside the state that will refer to them. */
  saveFrames(frames: readonly QueuedFrame[]): void {
    replaceFile(this.#disk, this.#framesFile, Buffer.concat(frames.map(frame => frame.bytes)))
  }

  /** The frames that the stopped state refers to, each checked; undefined where they are not whole. */
  readFrames(): readonly QueuedFrame[] | undefined {
    const { run } = this.#state
    if (run.kind === 'running' || run.exact === undefined || run.exact.frames.length === 0) return []
    const contents = readWholeFile(this.#disk, this.#framesFile) ?? new Uint8Array(0)
    let at = 0
    const frames: QueuedFrame[] = []
    for (const { firstSequence, lastSequence, sizeBytes } of run.exact.frames) {
      const bytes = Buffer.from(contents.subarray(at, at + sizeBytes))
      if (!isWholeFrame(bytes)) return undefined
      frames.push({ firstSequence, lastSequence, bytes })
      at += sizeBytes
    }
    return frames
  }

  /** The dirty map's file of a volume. */
  mapFile(volumeName: string): string {
    return path.join(this.#directory, `${encodeURIComponent(volumeName)}.map`)
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

function isWholeFrame(bytes: Buffer): boolean {
  try {
    decodeFrame(bytes)
    return true
  } catch {
    return false
  }
}
