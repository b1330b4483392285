import { createHash } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import type { Json } from '../timeline/recovery.ts'

// What the target remembers of a recovery: which creations have begun, and the ids of what they made. It is durable before the call that creates: a
// creation's number stands here before its token goes out, so that a process that dies in between is followed by one that asks with the same token. What AWS has refused is remembered, too
// (creation.ts): nothing of it is waited for.

export interface SnapshotMemory {
  /** Of the creation that is under way, from 1: part of its token. */
  readonly attempt: number
  /** The standby link that it is put upon. */
  readonly parent?: string
  /** Of that link. */
  readonly parentOrdinal?: number
  /** It is encrypted with: that of its parent, where it has one. */
  readonly kmsKey?: string
  /** This attempt was, at every try: there is no snapshot of it. */
  readonly isRefused?: true
  readonly snapshot?: string
  /** All of it is put, and these are to complete it. */
  readonly written?: { readonly blockCount: number; readonly checksum: string }
  /** AWS has taken it as whole: it becomes complete by itself, and must not be completed again. */
  readonly isTaken?: true
  readonly isComplete?: true
}

/** There may be something of it that only its tag finds. Of an attempt that failed the snapshot was deleted, perhaps before it was known. */
export function mayBeUnnoted({ attempt, snapshot, isRefused }: SnapshotMemory): boolean {
  return attempt > 1 || (snapshot === undefined && isRefused !== true)
}

export interface MachineMemory {
  /** False: its root volume has no boot record, so that there is no instance. */
  readonly isBootable?: boolean
  readonly imageBegun?: true
  /** Every try of it was: there is none. */
  readonly isImageRefused?: boolean
  readonly image?: string
  /** Of the instance that is being made, from 1. */
  readonly attempt?: number
  /** This attempt was, at every try: there is no instance of it. */
  readonly isInstanceRefused?: boolean
  readonly instance?: string
  /** Of root-swap: the helper's own root volume, which goes. */
  readonly helperRoot?: string
  readonly isHelperRootGone?: true
}

export interface VolumeMemory {
  /** Its creation by itself, not with an instance, has begun. */
  readonly begun?: true
  /** Every try of it was: there is none. */
  readonly isRefused?: boolean
  readonly volume?: string
}

export interface AwsMemory {
  /** By volume number. */
  readonly snapshots: Readonly<Record<string, SnapshotMemory>>
  readonly volumes: Readonly<Record<string, VolumeMemory>>
  /** By name. */
  readonly machines: Readonly<Record<string, MachineMemory>>
  /** Of the last change: nothing has been created since, but for what it says is begun. */
  readonly changedAtMicros?: number
}

const nothing: AwsMemory = { snapshots: {}, volumes: {}, machines: {} }

export function memoryOf(json: Json): AwsMemory {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return nothing
  return { ...nothing, ...(json as object) }
}

/** What is remembered while work goes on it, side by side: what is set is durable on return. */
export class Remembering<T extends { readonly changedAtMicros?: number }> {
  #now: T
  readonly #remember: (memory: Json) => Promise<void>
  readonly #clock: Clock
  #telling: Promise<void> = Promise.resolve()
  /** Set while a change waits for the one under way; all that come meanwhile go with it. */
  #next: Promise<void> | undefined

  constructor(first: T, remember: (memory: Json) => Promise<void>, clock: Clock) {
    this.#now = first
    this.#remember = remember
    this.#clock = clock
  }

  get now(): T {
    return this.#now
  }

  set(memory: T): Promise<void> {
    this.#now = { ...memory, changedAtMicros: this.#clock.timestampMicros() }
    this.#next ??= this.#telling.then(() => {
      this.#next = undefined
      this.#telling = this.#remember(this.#now as unknown as Json)
      return this.#telling
    })
    return this.#next
  }
}

/** The memory of a recovery. */
export class Memory {
  readonly #held: Remembering<AwsMemory>

  constructor(json: Json, remember: (memory: Json) => Promise<void>, clock: Clock) {
    this.#held = new Remembering(memoryOf(json), remember, clock)
  }

  get now(): AwsMemory {
    return this.#held.now
  }

  snapshot(volume: number): SnapshotMemory | undefined {
    return this.now.snapshots[volume]
  }

  volume(volume: number): VolumeMemory {
    return this.now.volumes[volume] ?? {}
  }

  machine(name: string): MachineMemory {
    return this.now.machines[name] ?? {}
  }

  async setSnapshots(changes: Readonly<Record<number, SnapshotMemory>>): Promise<void> {
    await this.#held.set({ ...this.now, snapshots: { ...this.now.snapshots, ...changes } })
  }

  async setVolume(volume: number, change: VolumeMemory): Promise<void> {
    const own = { ...this.volume(volume), ...change }
    await this.#held.set({ ...this.now, volumes: { ...this.now.volumes, [volume]: own } })
  }

  async setMachine(name: string, change: MachineMemory): Promise<void> {
    const own = { ...this.machine(name), ...change }
    await this.#held.set({ ...this.now, machines: { ...this.now.machines, [name]: own } })
  }
}

/** At most 64 characters, as all services take it; the same for the same parts. */
export function tokenOf(...parts: readonly (string | number)[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex')
}
