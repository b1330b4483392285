import { EventEmitter } from 'node:events'
import type { Worker } from 'node:worker_threads'
import type { Clock } from '../../../src/base/clock.ts'
import { Failure } from '../../../src/base/failure.ts'
import { KiB, MiB } from '../../../src/base/units.ts'
import { newSpoolRoom } from '../../../src/image/service.ts'
import { Live } from '../../../src/live/live.ts'
import { serveLive, type LiveSurroundings } from '../../../src/live/live-server.ts'
import type { LiveMachine } from '../../../src/live/machine.ts'
import type { NbdExport } from '../../../src/nbd/nbd.ts'
import type { ObjectStore } from '../../../src/store/object-store.ts'
import type { SimulatedDisk } from './disk.ts'
import { imageTools } from './images.ts'
import type { Life } from './world.ts'

// The target nbd of one process of the VRA: the real client and the real service, and between them a thread that is none: what is posted
// arrives later, in its order. The service lies on the simulated disk, and its exports are called instead of served.

export const liveDirectory = '/var/lib/vra/live'
export const keptDirectory = '/srv/kept'

/** Plans are exchanged after seconds, where the product waits for minutes and hours. */
const hastenedFromMillis = 60_000
const hastenedBy = 100
/** So little that what is read again is read from where it lies. */
const imageCacheSizeBytes = 8 * KiB

export interface LiveSite {
  readonly life: Life
  readonly disk: SimulatedDisk
  readonly store: ObjectStore
  /** The log's. */
  readonly directory: string
}

export class SimulatedLive {
  readonly live: Live
  readonly #site: LiveSite
  #thread: LiveThread | undefined

  constructor(site: LiveSite) {
    this.#site = site
    const { life, disk } = site
    this.live = new Live(
      {
        store: { kind: 'directory', directory: '/nowhere' },
        dataDirectory: site.directory,
        listen: { host: '127.0.0.1', port: 10_809 },
        cacheSizeBytes: imageCacheSizeBytes,
        scratchDirectory: liveDirectory,
        scratchSizeBytesMax: 64 * MiB,
        clock: hastened(life.clock),
        spoolRoom: newSpoolRoom(),
        told: () => undefined,
      },
      () => (this.#thread = new LiveThread(site)).worker,
      machineOf(life, disk),
    )
  }

  /** The exports of the thread that there is now. */
  get exports(): SimulatedExports | undefined {
    return this.#thread?.exports
  }

  /** It ends by itself, as for want of memory. */
  killThread(): void {
    this.#site.life.host.world.count('the thread of live disks dies')
    this.#thread?.kill()
  }
}

/** Whoever connects to an export calls it; a call of a thread that dies is never answered. */
export class SimulatedExports {
  readonly life: Life
  readonly #exports = new Map<string, NbdExport>()
  readonly #calls = new Map<string, Set<Promise<unknown>>>()

  constructor(life: Life) {
    this.life = life
  }

  address(): { readonly host: string; readonly port: number } {
    return { host: '127.0.0.1', port: 10_809 }
  }

  connectionCount(name: string): number {
    return this.#calls.get(name)?.size ?? 0
  }

  addExport(added: NbdExport): void {
    this.#exports.set(added.name, added)
  }

  async removeExport(name: string): Promise<void> {
    this.#exports.delete(name)
    await Promise.allSettled([...(this.#calls.get(name) ?? [])])
  }

  close(): Promise<void> {
    this.#exports.clear()
    return Promise.resolve()
  }

  has(name: string): boolean {
    return this.#exports.has(name)
  }

  /** Fails PEER_LOST where nobody serves it. */
  async call<T>(name: string, work: (disk: NbdExport) => Promise<T>): Promise<T> {
    const found = this.#exports.get(name)
    if (found === undefined) throw new Failure('PEER_LOST', `nobody serves ${name}`)
    const calls = this.#calls.get(name) ?? new Set()
    this.#calls.set(name, calls)
    const call = work(found)
    calls.add(call)
    try {
      return await call
    } finally {
      calls.delete(call)
    }
  }
}

class LiveThread {
  readonly worker: Worker
  readonly exports: SimulatedExports
  readonly #life: Life
  readonly #process: Life
  readonly #near: End

  constructor({ life, disk, store, directory }: LiveSite) {
    this.#process = life
    const own = (this.#life = life.thread('live'))
    const exports = (this.exports = new SimulatedExports(own))
    const [near, far] = [new End(life), new End(own)]
    ;[near.other, far.other] = [far, near]
    this.#near = near
    const surroundings: LiveSurroundings = {
      machine: machineOf(own, disk),
      openSources: () => {
        const tools = imageTools(store, disk.of(own), directory)
        return Promise.resolve({
          tools: cacheSizeBytes => ({ ...tools, cacheSizeBytes }),
          close: () => Promise.resolve(),
        })
      },
      openServer: () => Promise.resolve(exports),
    }
    serveLive(far as never, { surroundings })
    this.worker = Object.assign(near, { terminate: () => Promise.resolve(this.kill()) }) as unknown as Worker
  }

  kill(): void {
    if (!this.#life.isAlive) return
    this.#life.kill()
    this.#process.after(0, () => this.#near.emit('exit', 1))
  }
}

/** One of the two ends of a thread's port, with whoever is there. */
class End extends EventEmitter {
  other: End | undefined
  readonly #life: Life
  readonly #arriving: unknown[] = []

  constructor(life: Life) {
    super()
    this.#life = life
  }

  postMessage(message: unknown): void {
    if (this.#life.isAlive) this.other?.arrives(message)
  }

  arrives(message: unknown): void {
    this.#arriving.push(message)
    if (this.#arriving.length === 1) this.#deliver()
  }

  #deliver(): void {
    this.#life.after(this.#life.host.world.delay(0, 2), () => {
      this.emit('message', this.#arriving.shift())
      if (this.#arriving.length > 0) this.#deliver()
    })
  }
}

function machineOf(life: Life, disk: SimulatedDisk): LiveMachine {
  return {
    disk: disk.of(life),
    openFile: file => disk.openAsVolume(life, file),
    requireDirectory: () => undefined,
    removeTree: directory => Promise.resolve(disk.removeTree(life, directory)),
    bootId: () => (disk.cutCount + 1).toString(16).padStart(32, '0'), // zeros are nobody's
  }
}

function hastened(clock: Clock): Clock {
  const millisOf = (delayMillis: number): number =>
    delayMillis < hastenedFromMillis ? delayMillis : delayMillis / hastenedBy
  return { ...clock, after: (delayMillis, call) => clock.after(millisOf(delayMillis), call) }
}
