import { Refusal } from './refusal.ts'

// What an account of one region holds. Everything that takes time in AWS takes time on the simulator's clock here: an object has a state from an
// instant on, and whoever looks sees the state of now.

export const blockSizeBytes = 524_288
export const blocksPerGiB = 2048
/** A terminated instance stays to be seen for so long. */
const terminatedShownMillis = 3_600_000

export type Tags = Map<string, string>
/** By index; what is absent is zeros. */
export type Blocks = Map<number, Buffer>

export interface Snapshot {
  readonly id: string
  readonly sizeGiB: number
  readonly parent: string | undefined
  /** Undefined: it is not encrypted. */
  readonly kmsKey: string | undefined
  readonly description: string
  readonly tags: Tags
  readonly timeoutMillis: number
  readonly startedMillis: number
  /** Written in this snapshot. */
  readonly own: Blocks
  /** Of the parents, as they were when this one was started. */
  readonly inherited: Blocks
  readonly digests: Map<number, Buffer>
  lastWriteMillis: number
  completesAtMillis: number | undefined
}

export interface Attachment {
  readonly instance: string
  readonly device: string
  deleteOnTermination: boolean
}

export interface Volume {
  readonly id: string
  readonly sizeGiB: number
  readonly snapshot: string | undefined
  readonly kmsKey: string | undefined
  readonly zone: string
  readonly type: string
  readonly iops: number | undefined
  readonly throughput: number | undefined
  readonly initializationRate: number | undefined
  readonly tags: Tags
  readonly blocks: Blocks
  readonly createdMillis: number
  readonly availableAtMillis: number
  attachment: Attachment | undefined
  /** Until then it is being attached, or being detached. */
  settlesAtMillis: number
}

export interface Image {
  readonly id: string
  readonly name: string
  readonly architecture: string
  readonly bootMode: string | undefined
  readonly rootDevice: string
  readonly rootSnapshot: string
  readonly tags: Tags
  readonly platform: string | undefined
  readonly createdMillis: number
  readonly availableAtMillis: number
}

export type InstanceState = 'pending' | 'running' | 'stopping' | 'stopped' | 'shutting-down' | 'terminated'

export interface Instance {
  readonly id: string
  readonly image: string
  readonly type: string
  readonly subnet: string
  readonly zone: string
  readonly groups: readonly string[]
  readonly key: string | undefined
  readonly profile: string | undefined
  readonly privateIp: string
  readonly userData: string | undefined
  readonly rootDevice: string
  readonly token: string | undefined
  readonly tags: Tags
  readonly nic: { readonly id: string; readonly tags: Tags }
  readonly createdMillis: number
  /** The state that it goes to, and when it is there. */
  heading: InstanceState
  settlesAtMillis: number
}

export interface Subnet {
  readonly id: string
  readonly vpc: string
  readonly zone: string
  readonly cidr: string
  /** Of those that no instance has; by default, what the network has beyond the five that AWS keeps. */
  addressesMax?: number
}

export interface InstanceType {
  readonly architectures: string[]
  readonly bootModes: string[]
  readonly vcpuCount: number
  /** Undefined: all. */
  readonly zones?: readonly string[]
}

export interface AccountOptions {
  /** Between completing a snapshot and its state completed. */
  readonly completionMillis: number
  /** A new snapshot is unknown to puts for so long. */
  readonly snapshotUnseenMillis: number
  /** What was created is in no listing for so long, and unknown by its id. */
  readonly unlistedMillis: number
  /** Volumes, images, instances: between two states. */
  readonly settleMillis: number
}

export class Account {
  readonly options: AccountOptions
  readonly nowMillis: () => number
  readonly snapshots = new Map<string, Snapshot>()
  readonly volumes = new Map<string, Volume>()
  readonly images = new Map<string, Image>()
  #late = { fromMillis: Infinity, unlistedMillis: 0 }
  readonly instances = new Map<string, Instance>()
  readonly subnets = new Map<string, Subnet>()
  /** By id: its VPC. */
  readonly groups = new Map<string, string>()
  readonly keyPairs = new Set<string>()
  /** Of KMS, by ARN, those that are enabled. */
  readonly kmsKeys = new Set<string>()
  /** By name. */
  readonly instanceTypes = new Map<string, InstanceType>()
  /** By token: what was asked for with it, and what it gave. */
  readonly tokens = new Map<string, { readonly request: string; readonly id: string }>()
  #idCount = 0

  constructor(options: AccountOptions, nowMillis: () => number) {
    this.options = options
    this.nowMillis = nowMillis
  }

  newId(kind: string): string {
    return `${kind}-0${(++this.#idCount).toString(16).padStart(16, '0')}`
  }

  isListed({ createdMillis }: { readonly createdMillis: number }): boolean {
    const isLate = createdMillis >= this.#late.fromMillis
    return this.nowMillis() >= createdMillis + (isLate ? this.#late.unlistedMillis : this.options.unlistedMillis)
  }

  /** What is created at this moment, and from now on, is listed so late. */
  listLate(unlistedMillis: number): void {
    this.#late = { fromMillis: this.nowMillis(), unlistedMillis }
  }

  stateOfSnapshot(snapshot: Snapshot): 'pending' | 'completed' | 'error' {
    const now = this.nowMillis()
    if (snapshot.completesAtMillis !== undefined) return now >= snapshot.completesAtMillis ? 'completed' : 'pending'
    return now > snapshot.lastWriteMillis + snapshot.timeoutMillis ? 'error' : 'pending'
  }

  freeAddressCount({ id, cidr, addressesMax }: Subnet): number {
    const max = addressesMax ?? 2 ** (32 - Number(cidr.split('/')[1])) - 5
    const own = [...this.instances.values()].filter(each => each.subnet === id)
    return max - own.filter(each => this.stateOfInstance(each) !== 'terminated').length
  }

  /** The snapshot's whole content. */
  blocksOf(snapshot: Snapshot): Blocks {
    return new Map([...snapshot.inherited, ...snapshot.own])
  }

  stateOfVolume(volume: Volume): 'creating' | 'available' | 'in-use' {
    if (this.nowMillis() < volume.availableAtMillis) return 'creating'
    this.#settleVolume(volume)
    return volume.attachment === undefined && this.nowMillis() >= volume.settlesAtMillis ? 'available' : 'in-use'
  }

  isSettled(volume: Volume): boolean {
    return this.nowMillis() >= volume.settlesAtMillis
  }

  #settleVolume(volume: Volume): void {
    const { attachment } = volume
    const instance = attachment === undefined ? undefined : this.instances.get(attachment.instance)
    if (instance !== undefined && this.stateOfInstance(instance) === 'terminated') volume.attachment = undefined
  }

  stateOfInstance(instance: Instance): InstanceState {
    if (this.nowMillis() >= instance.settlesAtMillis) return instance.heading
    const on = { running: 'pending', stopped: 'stopping', terminated: 'shutting-down' } as const
    return on[instance.heading as keyof typeof on]
  }

  isShown(instance: Instance): boolean {
    const gone = this.stateOfInstance(instance) === 'terminated'
    return this.isListed(instance) && !(gone && this.nowMillis() > instance.settlesAtMillis + terminatedShownMillis)
  }

  /** Runs the create once for a token; fails as the service does where the same token comes with another request. */
  once(token: string | undefined, request: string, mismatch: () => Refusal, create: () => string): string {
    const known = token === undefined ? undefined : this.tokens.get(token)
    if (known !== undefined) {
      if (known.request !== request) throw mismatch()
      return known.id
    }
    const id = create()
    if (token !== undefined) this.tokens.set(token, { request, id })
    return id
  }

  /** Ids of everything, except instances that are terminated, that has this tag. */
  tagged(key: string, value: string): string[] {
    const has = (of: { readonly tags: Tags }): boolean => of.tags.get(key) === value
    const live = [...this.instances.values()].filter(each => this.stateOfInstance(each) !== 'terminated')
    return [...this.snapshots.values(), ...this.volumes.values(), ...this.images.values(), ...live]
      .filter(has)
      .map(({ id }) => id)
  }

  contentOf(blocks: Blocks, sizeBytes: number): Buffer {
    const bytes = Buffer.alloc(sizeBytes)
    for (const [index, block] of blocks) block.copy(bytes, index * blockSizeBytes)
    return bytes
  }
}
