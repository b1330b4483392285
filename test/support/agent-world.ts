import { Agent, silentAgentEvents, type AgentDeps, type Connect } from '../../src/agent/agent.ts'
import type { Clock } from '../../src/base/clock.ts'
import { MiB } from '../../src/base/units.ts'
import type { Disk, DiskFile, OpenVolumeFile } from '../../src/disk/disk.ts'
import type { NbdExport, NbdServerOptions } from '../../src/nbd/nbd.ts'
import { FakeVra } from './agent-fake-vra.ts'
import { FaultyDisk } from './faulty-disk.ts'
import type { Random } from './journal-random.ts'

// The real agent on a clock, a network and disks in memory, with a VRA in memory at the other end: everything that happens follows
// from the seed. A life of the agent ends by close(), by a kill (nothing of the kernel is lost) or by a power cut.

const directory = '/var/agent'

/** A clock that moves when it is told to. Its microseconds and milliseconds are the world's, for all lives of the agent. */
export class WorldClock implements Clock {
  #nowMillis = 0
  #timers: { readonly atMillis: number; readonly call: () => void }[] = []

  timestampMicros(): number {
    return 1_790_000_000_000_000 + Math.round(this.#nowMillis * 1000)
  }

  monotonicMillis(): number {
    return this.#nowMillis
  }

  sleep(delayMillis: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        takeBack()
        reject(new DOMException('aborted', 'AbortError'))
      }
      const takeBack = this.after(delayMillis, () => {
        signal.removeEventListener('abort', abort)
        resolve()
      })
      if (signal.aborted) abort()
      else signal.addEventListener('abort', abort, { once: true })
    })
  }

  after(delayMillis: number, call: () => void): () => void {
    if (delayMillis <= 0) {
      const immediate = setImmediate(call)
      return () => clearImmediate(immediate)
    }
    const timer = { atMillis: this.#nowMillis + delayMillis, call }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter(each => each !== timer)
    }
  }

  advance(byMillis: number): void {
    this.#nowMillis += byMillis
    const due = this.#timers.filter(timer => timer.atMillis <= this.#nowMillis)
    this.#timers = this.#timers.filter(timer => timer.atMillis > this.#nowMillis)
    for (const { call } of due.sort((a, b) => a.atMillis - b.atMillis)) call()
  }
}

export function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

/** What a marker stands for: the disks as they are when it gets its number, and which places are being written to. */
interface Instant {
  readonly disks: ReadonlyMap<string, Buffer>
  readonly busy: readonly Busy[]
}

interface Busy {
  readonly name: string
  readonly offsetBytes: number
  readonly lengthBytes: number
}

interface Life {
  readonly agent: Agent
  readonly exports: ReadonlyMap<string, NbdExport>
  /** Nothing that this life does has any effect any more. */
  end(): void
}

export class World {
  readonly vra: FakeVra
  readonly clock = new WorldClock()
  readonly names: readonly string[]
  readonly sizeBytes: number
  readonly faults: string[] = []
  linkIsUp = true
  disk = new FaultyDisk()
  readonly #random: Random
  readonly #instants = new Map<string, Instant>()
  readonly #versions = new Map<string, number>()
  readonly #busy = new Set<Busy>()
  #life: Life | undefined
  #cutLink: (() => void) | undefined
  #checkedCount = 0

  constructor(random: Random, names: readonly string[], sizeBytes: number) {
    this.#random = random
    this.names = names
    this.sizeBytes = sizeBytes
    this.vra = new FakeVra(
      'agent-1',
      names.map(name => ({ name, sizeBytes })),
    )
    for (const name of names) {
      const file = this.disk.open(pathOf(name), 'create')
      file.write([Buffer.alloc(sizeBytes)], 0)
      file.sync()
      file.close()
    }
    this.disk.syncDirectory(directory)
  }

  get agent(): Agent | undefined {
    return this.#life?.agent
  }

  contents(name: string): Buffer {
    return Buffer.from(this.disk.contents(pathOf(name)))
  }

  async start(): Promise<void> {
    let isAlive = true
    const exports = new Map<string, NbdExport>()
    const deps = this.#deps(
      () => isAlive,
      options => options.exports.forEach(each => exports.set(each.name, each)),
    )
    const agent = await Agent.open(
      {
        agentId: 'agent-1',
        vpg: 'shop',
        vra: { host: 'vra', port: 1 },
        stateDirectory: directory,
        volumes: this.names.map(name => ({ name, path: pathOf(name) })),
        nbd: { listen: { host: '127.0.0.1', port: 0 } },
        queueSizeBytesMax: 1 * MiB,
        drainTimeoutMillis: 50,
        markRotationMillisMin: 20,
      },
      deps,
    )
    const end = (): void => {
      isAlive = false
      this.#busy.clear()
      this.#cutLink?.()
    }
    this.#life = { agent, exports, end }
  }

  /** A clean stop. */
  async stop(): Promise<void> {
    const life = this.#life
    this.#life = undefined
    let closed = false
    const closing = life?.agent.close().then(() => {
      closed = true
    })
    while (!closed && life !== undefined) await this.pass(5)
    await closing
    life?.end()
  }

  /** The process is gone; with `power` so is what was not synced. */
  async kill(power: 'kept' | 'lost'): Promise<void> {
    this.#life?.end()
    this.#life = undefined
    await turn()
    await turn() // calls of the disk that were under way have happened, or never do
    if (power === 'lost') this.disk = this.disk.crash(this.#random)
    else this.disk.restartProcess()
  }

  cutLink(): void {
    this.#cutLink?.()
  }

  /** Somebody else writes to a disk while no agent runs. */
  changeBehind(name: string, offsetBytes: number, data: Buffer): void {
    const file = this.disk.open(pathOf(name), 'write')
    file.write([data], offsetBytes)
    file.sync()
    file.close()
    this.#wrote(name)
  }

  /** A guest's request. Resolves when it is answered, or when the agent's life is over before that: never. */
  async guest(name: string, offsetBytes: number, content: Buffer | number): Promise<void> {
    const target = this.#life?.exports.get(name)
    if (target === undefined) return
    const lengthBytes = typeof content === 'number' ? content : content.length
    const busy = { name, offsetBytes, lengthBytes }
    this.#busy.add(busy)
    if (typeof content === 'number') await target.zero(offsetBytes, content, { fua: false, mayTrim: true })
    else await target.write(offsetBytes, content, { fua: this.#random.chance(0.2) })
    this.#busy.delete(busy)
  }

  /** Lets the world go on for so many milliseconds. */
  async pass(millis: number): Promise<void> {
    for (let at = 0; at < millis; at++) {
      for (let step = 0; step < 4; step++) await turn()
      this.clock.advance(1)
      this.#check()
    }
  }

  /** The VRA's images of the volumes in new checkpoints against what the disks were. */
  #check(): void {
    const { checkpoints } = this.vra
    this.#checkedCount = Math.min(this.#checkedCount, checkpoints.length)
    for (; this.#checkedCount < checkpoints.length; this.#checkedCount++) {
      const { marker, images } = checkpoints[this.#checkedCount]!
      const instant = this.#instants.get(idOf(marker))
      if (instant === undefined) this.faults.push(`nobody made marker ${idOf(marker)}`)
      else
        for (const [index, name] of this.names.entries()) {
          const isIncluded = marker.volumes.some(volume => volume.number === index + 1 && volume.included)
          const at = isIncluded ? firstDifference(images.get(name)!, instant, name) : undefined
          if (at !== undefined) this.faults.push(`checkpoint ${idOf(marker)} of "${name}" differs at ${at}`)
        }
    }
  }

  #deps(isAlive: () => boolean, serve: (options: NbdServerOptions) => void): AgentDeps {
    return {
      events: {
        ...silentAgentEvents,
        markerNumbered: marker => {
          const disks = new Map(this.names.map(name => [name, this.contents(name)]))
          this.#instants.set(idOf(marker), { disks, busy: [...this.#busy] })
        },
      },
      clock: lifeOf(this.clock, isAlive),
      random: () => this.#random.fraction(),
      connect: this.#connect(isAlive),
      disk: this.#diskOf(isAlive),
      openVolumeFile: this.#openFile(isAlive),
      lockDirectory: async () => ({ close: async () => undefined }),
      openGuestServer: async options => {
        serve(options)
        return {
          address: () => ({ host: '127.0.0.1', port: 0 }),
          connectionCount: () => 0,
          addExport: () => undefined,
          removeExport: async () => undefined,
          close: async () => {
            while (isAlive() && this.#busy.size > 0) await turn()
          },
        }
      },
    }
  }

  #connect(isAlive: () => boolean): Connect {
    return (_target, events) => {
      let isOpen = true
      const close = (by: 'peer' | 'network'): void => {
        if (!isOpen) return
        isOpen = false
        line.closed()
        setImmediate(() => {
          if (isAlive()) events.closed({ by, cause: undefined })
        })
      }
      const line = this.vra.accept({
        write: bytes => deliver(() => events.received(Buffer.from(bytes))),
        end: bytes => {
          deliver(() => events.received(Buffer.from(bytes as Uint8Array)))
          deliver(() => close('peer'))
        },
        destroy: () => close('peer'),
      })
      const deliver = (call: () => void): void => {
        setImmediate(() => {
          if (isOpen && isAlive()) call()
        })
      }
      this.#cutLink = () => close('network')
      setImmediate(() => {
        if (!isAlive()) return
        if (this.linkIsUp) events.opened()
        else close('network')
      })
      return {
        bufferedBytes: 0,
        write: (bytes, taken) =>
          deliver(() => {
            line.received(Buffer.from(bytes)) // not before: whoever uses their memory too early is found out
            taken?.()
          }),
        end: () => deliver(() => close('peer')),
        destroy: () => close('network'),
      }
    }
  }

  #diskOf(isAlive: () => boolean): Disk {
    const { disk } = this
    const alive = <T>(call: () => T): T => {
      if (!isAlive()) throw new Error('this process is gone')
      return call()
    }
    const fileOf = (file: DiskFile): DiskFile => ({
      read: (target, offsetBytes) => alive(() => file.read(target, offsetBytes)),
      write: (pieces, offsetBytes) => alive(() => file.write(pieces, offsetBytes)),
      sync: () => alive(() => file.sync()),
      sizeBytes: () => file.sizeBytes(),
      truncate: sizeBytes => alive(() => file.truncate(sizeBytes)),
      close: () => file.close(),
    })
    return {
      open: (file, mode) => alive(() => fileOf(disk.open(file, mode))),
      list: name => disk.list(name),
      makeDirectory: () => undefined,
      rename: (from, to) => alive(() => disk.rename(from, to)),
      link: (from, to) => alive(() => disk.link(from, to)),
      remove: file => alive(() => disk.remove(file)),
      exists: file => disk.exists(file),
      syncDirectory: name => alive(() => disk.syncDirectory(name)),
      freeBytes: () => disk.freeBytes(),
    }
  }

  /** Calls of a dead process may or may not have come as far as the disk; they never answer. */
  #openFile(isAlive: () => boolean): OpenVolumeFile {
    const { disk } = this
    return path => {
      const file = disk.open(path, 'write')
      const name = this.names.find(each => pathOf(each) === path)
      const later = async <T>(call: () => T): Promise<T> => {
        for (let delay = this.#random.integer(1, 3); delay > 0; delay--) await turn()
        if (!isAlive()) return new Promise<T>(() => undefined)
        const result = call()
        if (this.#random.chance(0.3)) await turn()
        return isAlive() ? result : new Promise<T>(() => undefined)
      }
      return {
        sizeBytes: file.sizeBytes(),
        isOneHole: false,
        claim: async () => undefined,
        currentSizeBytes: () => file.sizeBytes(),
        read: (target, offsetBytes) => later(() => void file.read(target, offsetBytes)),
        write: (data, offsetBytes) =>
          later(() => {
            file.write([data], offsetBytes)
            if (name !== undefined) this.#wrote(name)
          }),
        sync: () => later(() => file.sync()),
        identity: () => ({
          device: '1',
          inode: path,
          sizeBytes: file.sizeBytes(),
          modifiedNanos: String(this.#versions.get(path) ?? 0),
          changedNanos: String(this.#versions.get(path) ?? 0),
        }),
        close: () => later(() => file.close()),
      }
    }
  }

  #wrote(name: string): void {
    this.#versions.set(pathOf(name), (this.#versions.get(pathOf(name)) ?? 0) + 1)
  }
}

function pathOf(name: string): string {
  return `${directory}/${name}.raw`
}

function idOf({ term, counter }: { readonly term: number; readonly counter: number }): string {
  return `${term}.${counter}`
}

function lifeOf(clock: Clock, isAlive: () => boolean): Clock {
  return {
    timestampMicros: () => clock.timestampMicros(),
    monotonicMillis: () => clock.monotonicMillis(),
    sleep: async (delayMillis, signal) => {
      await clock.sleep(delayMillis, signal)
      if (!isAlive()) await new Promise(() => undefined)
    },
    after: (delayMillis, call) => clock.after(delayMillis, () => void (isAlive() && call())),
  }
}

function firstDifference(image: Buffer, { disks, busy }: Instant, name: string): number | undefined {
  const disk = disks.get(name)!
  if (image.equals(disk)) return undefined
  const skip = busy.filter(each => each.name === name)
  for (let at = 0; at < disk.length; at += 512) {
    if (skip.some(each => at < each.offsetBytes + each.lengthBytes && at + 512 > each.offsetBytes)) continue
    if (!image.subarray(at, at + 512).equals(disk.subarray(at, at + 512))) return at
  }
  return undefined
}
