import { randomBytes } from 'node:crypto'
import * as path from 'node:path'
import { Worker } from 'node:worker_threads'
import type { ImagePlan } from '../aging/service.ts'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { liveImagesMax, livePlanHeldMillis, liveTailHeldMillis, threadYoungSizeMiBMax } from '../base/limits.ts'
import { RpcClient } from '../base/rpc.ts'
import { endThread } from '../base/threads.ts'
import { MiB } from '../base/units.ts'
import type { ChangedExtents } from '../image/image.ts'
import { nbdUri, type NbdListen } from '../nbd/nbd.ts'
import type { RecoveredThing, RecoveryTarget, TargetContext, TargetPlan, TargetRequest } from '../recovery/target.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Json, RecoveryRecord, RecoveryVm } from '../timeline/recovery.ts'
import { realMachine, type LiveMachine } from './machine.ts'
import {
  hasImage,
  tooManyImages,
  type AttachedDisk,
  type LiveConfig,
  type LiveNotices,
  type LiveService,
  type LiveStatus,
} from './service.ts'

// Images as disks that are read and written, over NBD, at once and whatever their size: the recovery target `nbd`, read-only mounts, and what
// differs between two checkpoints. All of it happens in a thread of its own; no byte of an image passes this one.
//
//   NBD client ─> LiveDisk ─┬─ Overlay: what was written (scratch files; README.md)
//                           └─ Image: the checkpoint, block by block on demand, with read-ahead

export type { LiveStatus } from './service.ts'

export interface LiveOptions extends LiveConfig {
  readonly clock: Clock
  /** Where overlays lie of recoveries that name no place of their own. */
  readonly scratchDirectory: string
  /** Of a recovery that does not say it. */
  readonly scratchSizeBytesMax: number
  /** Hears what clients meet. */
  readonly told: <K extends keyof LiveNotices>(name: K, value: LiveNotices[K]) => void
}

export interface MountRequest {
  /** Its name on the server, of which every export's begins. */
  readonly id: string
  readonly vpg: string
  readonly volumes: readonly { readonly number: number; readonly name: string; readonly sizeBytes: number }[]
  /** As in TargetContext. */
  openPlan(): Promise<ImagePlan>
  release(plan: ImagePlan): Promise<void>
}

/** What the record of a recovery keeps as its settings. */
interface NbdSettings {
  readonly scratchSizeBytesMax: number
  /** An absolute directory; what is committed is kept below it, and its scratch lies there from the start. Undefined: it cannot be committed. */
  readonly keepDirectory: string | undefined
}

/** What the record of a recovery remembers: of all scratches that appliances made for it, the one that its machines write to. */
interface NbdMemory {
  readonly scratchId: string
}

type Planner = Pick<TargetContext, 'openPlan' | 'release'>

interface HeldPlan {
  readonly planner: Planner
  plan: ImagePlan
  /** Of the next look at it. */
  takeBack: () => void
}

/** What is to be served until it is released, whatever becomes of the thread. */
interface Wanted {
  /** Nothing happens where it is served already. */
  readonly serve: () => Promise<void>
  isLost: boolean
  /** While it is lost, and being served again: the attempt under way, or the last one. */
  attempt: Promise<void> | undefined
  delayMillis: number
  takeBack: () => void
}

/** After so long what a thread served that has ended is served by another one; each further attempt waits twice as long, up to a limit. */
const liveAgainMillis = 1_000
const liveAgainMillisMax = 60_000
const scratchSizeBytesMin = 1 * MiB

export class Live implements RecoveryTarget {
  readonly kind = 'nbd'
  readonly #options: LiveOptions
  readonly #newWorker: () => Worker
  readonly #machine: LiveMachine
  readonly #plans = new Map<string, HeldPlan>()
  readonly #wanted = new Map<string, Wanted>()
  readonly #keeping = new Map<string, TargetContext>()
  #thread: Promise<{ readonly worker: Worker; readonly client: RpcClient<LiveService> }> | undefined
  #listens: NbdListen
  #isClosed = false

  constructor(
    options: LiveOptions,
    newWorker = (): Worker =>
      new Worker(new URL('./live-worker.js', import.meta.url), {
        resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
      }),
    machine = realMachine,
  ) {
    this.#options = options
    this.#machine = machine
    this.#newWorker = newWorker
    this.#listens = options.listen
  }

  async plan(request: TargetRequest, signal: AbortSignal): Promise<TargetPlan> {
    const settings = checkedSettings(request.settings, this.#options.scratchSizeBytesMax)
    const { kind, definition, checkpoint, vms, sizes } = request
    if (kind !== 'test' && settings.keepDirectory === undefined)
      throw new Failure(
        'REQUEST_INVALID',
        `a ${kind} is to be kept: name the directory that its disks are kept in when it is committed`,
      )
    const place = settings.keepDirectory ?? this.#options.scratchDirectory
    const { disk, requireDirectory } = this.#machine
    if (settings.keepDirectory !== undefined) checkDirectory(settings.keepDirectory, requireDirectory)
    else disk.makeDirectory(place)
    const freeSizeBytes = disk.freeBytes(place)
    if (freeSizeBytes < scratchSizeBytesMin)
      throw new Failure('REQUEST_INVALID', `there is no room in ${place} for what is written to the disks`)
    await this.#call('listen', undefined)
    if ((await this.status()).filter(hasImage).length >= liveImagesMax) throw new Failure('BUSY', tooManyImages)
    signal.throwIfAborted()
    const diskSizeBytes = disksOf(vms, definition, checkpoint).reduce((sum, disk) => sum + disk.sizeBytes, 0)
    const dataSizeBytes = sizes.reduce((sum, size) => sum + size.dataSizeBytes, 0)
    if (settings.keepDirectory !== undefined && freeSizeBytes < dataSizeBytes)
      throw new Failure(
        'REQUEST_INVALID',
        `a commit needs up to ${inMiB(dataSizeBytes)} in ${place}, which has room for ${inMiB(freeSizeBytes)}`,
      )
    const isBounded = settings.scratchSizeBytesMax < diskSizeBytes
    const bound = `may take ${inMiB(settings.scratchSizeBytesMax)}; past that writes fail for want of space`
    const remarks = [
      'the disks are served by this appliance, from its store: they are lost with it until they are committed',
      `what machines write to them lies in ${place} and ${isBounded ? bound : `takes ${inMiB(diskSizeBytes)} at most`}`,
    ]
    if (freeSizeBytes < Math.min(diskSizeBytes, settings.scratchSizeBytesMax))
      remarks.push(`${place} has room for only ${inMiB(freeSizeBytes)} at this moment.`)
    if (settings.keepDirectory !== undefined)
      remarks.push(`A commit copies up to ${inMiB(dataSizeBytes)} into ${place}, while the disks are in use.`)
    return { settings: settingsAsJson(settings), copySizeBytes: 0, expectedMillis: 1_000, remarks }
  }

  /** Each time with a new scratch, which is durable in the record before it can be written to: another appliance, which prepared it before, has one that does not count. */
  async prepare(context: TargetContext): Promise<void> {
    if (!this.#plans.has(context.record.id)) {
      const memory: NbdMemory = { scratchId: randomBytes(8).toString('hex') }
      await context.remember({ ...memory })
    }
    await this.#attach(context)
    this.#want(context.record.id, () => this.#attach(context))
  }

  /** A committed one whose files were taken away is its user's, and served no more. */
  async resume(context: TargetContext): Promise<void> {
    // While it is handed over it is committed to its directory already.
    const isCommitted = context.record.state === 'committed' || context.record.handOver === 'begun'
    const serve = (): Promise<void> => (isCommitted ? this.#serveKept(context) : this.#attach(context))
    await serve()
    this.#want(context.record.id, serve)
  }

  /** Durable in its keepDirectory on return; it goes on being served, from there. Fails REQUEST_INVALID where there is no such directory. */
  async commit(context: TargetContext): Promise<void> {
    const { record } = context
    const { id } = record
    if (settingsOf(record).keepDirectory === undefined)
      throw new Failure(
        'REQUEST_INVALID',
        'this recovery has no directory to keep its disks in: it can be stopped, or copied while it runs',
      )
    await this.#settled(id)
    await this.#attach(context)
    this.#keeping.set(id, context)
    const stop = (): void => {
      this.#call('cancelKeep', { id }).catch(() => undefined) // the thread has ended: so does the call below
    }
    context.signal.addEventListener('abort', stop, { once: true })
    try {
      if (context.signal.aborted) stop()
      await this.#call('keep', { id })
    } finally {
      context.signal.removeEventListener('abort', stop)
      this.#keeping.delete(id)
    }
    this.#want(id, () => this.#serveKept(context))
    await this.#release(id)
  }

  async endService({ record: { id } }: TargetContext): Promise<void> {
    await this.#unwant(id)
    await this.#call('detach', { id })
    await this.#release(id)
  }

  async remove(context: TargetContext): Promise<void> {
    const { id, readyAtMicros } = context.record
    await this.#unwant(id)
    const directory = directoryOf(context.record, this.#options.scratchDirectory)
    if (readyAtMicros !== undefined && !this.#machine.disk.exists(directory))
      this.#options.told('scratchNotFound', { id, directory })
    await this.#call('discard', { id, directory })
    await this.#release(id)
  }

  sweep(record: RecoveryRecord): void {
    const directory = directoryOf(record, this.#options.scratchDirectory)
    this.#options.told('scratchMayBeLeft', { id: record.id, directory })
  }

  things(record: RecoveryRecord, definition: VpgDefinition): readonly RecoveredThing[] {
    const { checkpoint, vms } = record
    if (checkpoint === undefined) return []
    const disks = disksOf(vms, definition, checkpoint)
    if (record.isServiceEnded === true) {
      const directory = directoryOf(record, this.#options.scratchDirectory)
      const placeOf = ({ vm, name }: Disk): string => path.join(directory, vm, `${name}.raw`)
      return disks.map(disk => ({ vm: disk.vm, volume: disk.number, kind: 'file', place: placeOf(disk) }))
    }
    return disks.map(({ vm, number, name }) => ({
      vm,
      volume: number,
      kind: 'nbd',
      place: nbdUri(this.#listens, exportNameOf(record.id, vm, name)),
    }))
  }

  /** Serves volumes of the plan's checkpoint read-only, as `<id>/<VPG>/<volume>`, until unmount(). */
  async mount(request: MountRequest): Promise<readonly { readonly volume: number; readonly uri: string }[]> {
    const { id, vpg, volumes } = request
    const disks = volumes.map(({ number, name, sizeBytes }) => ({
      volume: number,
      exportName: exportNameOf(id, vpg, name),
      description: `${vpg}, ${name}: read-only`,
      sizeBytes,
      files: undefined,
    }))
    const serve = (): Promise<void> =>
      this.#attachWith(id, request, async plan => {
        this.#listens = await this.#call('listen', undefined)
        const { ordinal } = plan.checkpoint
        const writable = { scratchSizeBytesMax: 0, isMade: false, scratchId: undefined }
        await this.#call('attach', { id, plan, checkpoint: ordinal, disks, ...writable })
      })
    await serve()
    this.#want(id, serve)
    return disks.map(({ volume, exportName }) => ({ volume, uri: nbdUri(this.#listens, exportName) }))
  }

  async unmount(id: string): Promise<void> {
    await this.#unwant(id)
    await this.#call('detach', { id })
    await this.#release(id)
  }

  /** What may differ of the volume between the checkpoints of two plans. */
  async changedExtents(from: ImagePlan, to: ImagePlan, volume: number): Promise<ChangedExtents> {
    return await this.#call('changedExtents', { from, to, volume })
  }

  /** Of everything that is served now. */
  async status(): Promise<readonly LiveStatus[]> {
    return this.#thread === undefined ? [] : await this.#call('status', undefined)
  }

  /** What was written is durable then; the plans are released. */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all([...this.#wanted.keys()].map(id => this.#unwant(id)))
    const thread = await this.#thread?.catch(() => undefined)
    await thread?.client.call('close', undefined).catch(() => undefined)
    await endThread(thread?.worker)
    for (const id of [...this.#plans.keys()]) await this.#release(id)
  }

  async #attach(context: TargetContext): Promise<void> {
    const disks = this.#attachedDisks(context)
    await this.#attachWith(context.record.id, context, plan => this.#serve(context, disks, plan))
  }

  /** Of a recovery that is committed, from its files; where they were taken away it is its user's, and nothing happens. */
  async #serveKept(context: TargetContext): Promise<void> {
    const disks = this.#attachedDisks(context)
    if (disks.every(({ files }) => files !== undefined && this.#machine.disk.exists(files.keptFile)))
      await this.#serve(context, disks, undefined)
  }

  /** With a plan of its own, which it holds, and exchanges, as long as that is served. */
  async #attachWith(id: string, planner: Planner, serve: (plan: ImagePlan) => Promise<void>): Promise<void> {
    if (this.#plans.has(id)) return
    const plan = await planner.openPlan()
    const held = { planner, plan, takeBack: () => undefined }
    this.#plans.set(id, held)
    try {
      await serve(plan)
      this.#lookLater(id, held)
    } catch (error) {
      await this.#release(id)
      throw error
    }
  }

  async #serve({ record }: TargetContext, disks: readonly AttachedDisk[], plan: ImagePlan | undefined): Promise<void> {
    const { id, checkpoint } = record
    const { scratchSizeBytesMax } = settingsOf(record)
    this.#listens = await this.#call('listen', undefined)
    const isMade = record.readyAtMicros !== undefined // machines may have written to it since
    const { scratchId } = (record.memory ?? {}) as Partial<NbdMemory>
    const writable = { scratchSizeBytesMax, isMade, scratchId }
    await this.#call('attach', { id, plan, checkpoint: checkpoint!.ordinal, disks, ...writable })
  }

  #attachedDisks({ record, definition }: TargetContext): AttachedDisk[] {
    const { checkpoint, vms, id } = record
    if (checkpoint === undefined) throw new Failure('CHECKPOINT_MISSING', 'the recovery has no checkpoint yet')
    const directory = directoryOf(record, this.#options.scratchDirectory)
    return disksOf(vms, definition, checkpoint).map(({ vm, number, name, sizeBytes }) => {
      const base = path.join(directory, vm, name)
      return {
        volume: number,
        exportName: exportNameOf(id, vm, name),
        description: `${definition.name}, ${vm}, ${name}: ${record.kind}`,
        sizeBytes,
        files: { dataFile: `${base}.scratch`, mapFile: `${base}.map`, keptFile: `${base}.raw` },
      }
    })
  }

  async #release(id: string): Promise<void> {
    const held = this.#plans.get(id)
    this.#plans.delete(id)
    held?.takeBack()
    await held?.planner.release(held.plan)
  }

  /** A plan holds files of the log until its writes are in segments, and objects that nothing else needs: another one of the same bytes lets them go. */
  #lookLater(id: string, held: HeldPlan): void {
    const delayMillis = held.plan.tail.count > 0 ? liveTailHeldMillis : livePlanHeldMillis
    held.takeBack = this.#options.clock.after(delayMillis, () => {
      const over = (): void => {
        if (this.#plans.get(id) === held) this.#lookLater(id, held)
      }
      this.#replan(id, held).then(over, over) // it goes on with the one that it has
    })
  }

  async #replan(id: string, held: HeldPlan): Promise<void> {
    const plan = await held.planner.openPlan()
    let unneeded = plan
    try {
      await this.#call('replan', { id, plan })
      if (this.#plans.get(id) === held) {
        unneeded = held.plan
        held.plan = plan
      }
    } finally {
      await held.planner.release(unneeded)
    }
  }

  async #call<K extends keyof LiveService & string>(
    method: K,
    argument: Parameters<LiveService[K]>[0],
  ): Promise<Awaited<ReturnType<LiveService[K]>>> {
    this.#thread ??= this.#startThread()
    const { client } = await this.#thread
    return (await client.call(method, argument as never)) as Awaited<ReturnType<LiveService[K]>>
  }

  async #startThread(): Promise<{ readonly worker: Worker; readonly client: RpcClient<LiveService> }> {
    const worker = this.#newWorker()
    const client = new RpcClient<LiveService>(worker, (name, value) => this.#told(name as keyof LiveNotices, value))
    worker.on('error', () => undefined) // its calls fail PEER_LOST
    worker.on('exit', () => {
      this.#thread = undefined
      this.#lost()
    })
    try {
      const { store, dataDirectory, listen, cacheSizeBytes, cache, spoolRoom } = this.#options
      await client.call('open', { store, dataDirectory, listen, cacheSizeBytes, cache, spoolRoom })
    } catch (error) {
      this.#thread = undefined
      await endThread(worker)
      throw error
    }
    return { worker, client }
  }

  /** The thread has ended by itself: another one serves what it served. */
  #lost(): void {
    if (this.#isClosed) return
    for (const id of [...this.#plans.keys()]) this.#release(id).catch(() => undefined) // nothing reads by it any more
    for (const [id, wanted] of this.#wanted) {
      const isUnderWay = wanted.isLost || wanted.attempt !== undefined
      wanted.isLost = true
      if (!isUnderWay) this.#serveLater(id, wanted)
    }
  }

  #want(id: string, serve: () => Promise<void>): void {
    if (this.#isClosed) return
    this.#forget(id)
    const delayMillis = liveAgainMillis
    this.#wanted.set(id, { serve, isLost: false, attempt: undefined, delayMillis, takeBack: () => undefined })
  }

  /** On return it is served, or not, for good: no attempt to serve it again is under way, and none will come. */
  async #unwant(id: string): Promise<void> {
    const settled = this.#settled(id)
    this.#forget(id)
    await settled
  }

  #forget(id: string): void {
    this.#wanted.get(id)?.takeBack()
    this.#wanted.delete(id)
  }

  async #settled(id: string): Promise<void> {
    await this.#wanted.get(id)?.attempt
  }

  /** Again and again, until it is served or nobody wants it. */
  #serveLater(id: string, wanted: Wanted): void {
    wanted.takeBack = this.#options.clock.after(wanted.delayMillis, () => {
      wanted.isLost = false
      const again = (): void => void (wanted.isLost = true)
      wanted.attempt = wanted.serve().catch(again)
      void wanted.attempt.then(() => {
        wanted.attempt = undefined
        wanted.delayMillis = wanted.isLost ? Math.min(liveAgainMillisMax, 2 * wanted.delayMillis) : liveAgainMillis
        if (wanted.isLost && this.#wanted.get(id) === wanted) this.#serveLater(id, wanted)
      })
    })
  }

  #told(name: keyof LiveNotices, value: unknown): void {
    if (name === 'keepProgress') {
      const { id, volume, doneBytes, totalBytes } = value as LiveNotices['keepProgress']
      this.#keeping.get(id)?.progress(volume, doneBytes, totalBytes)
    }
    this.#options.told(name, value as LiveNotices[typeof name])
  }
}

interface Disk {
  readonly vm: string
  readonly number: number
  readonly name: string
  readonly sizeBytes: number
}

/** Of the machines that are recovered, as they were at the checkpoint; a volume that was removed since has its name all the same. */
function disksOf(vms: readonly RecoveryVm[], definition: VpgDefinition, checkpoint: Checkpoint): Disk[] {
  const names = new Map(
    [...definition.volumes, ...definition.removedVolumes].map(({ number, name }) => [number, name] as const),
  )
  return vms.flatMap(vm =>
    vm.volumes.map(number => {
      const then = checkpoint.volumes.find(volume => volume.number === number)
      const name = names.get(number)
      if (then?.included !== true || name === undefined)
        throw new Failure('UNKNOWN_VOLUME', `the checkpoint does not include volume ${number}`, { volume: number })
      return { vm: vm.name, number, name, sizeBytes: then.sizeBytes }
    }),
  )
}

function exportNameOf(id: string, vm: string, volume: string): string {
  return `${id}/${vm}/${volume}`
}

function directoryOf(record: RecoveryRecord, scratchDirectory: string): string {
  return path.join(settingsOf(record).keepDirectory ?? scratchDirectory, record.id)
}

/** Of a record, which has what plan() returned. */
function settingsOf(record: RecoveryRecord): NbdSettings {
  return checkedSettings(record.target.settings, scratchSizeBytesMin)
}

function settingsAsJson({ scratchSizeBytesMax, keepDirectory }: NbdSettings): Json {
  return { scratchSizeBytesMax, ...(keepDirectory === undefined ? {} : { directory: keepDirectory }) }
}

function checkedSettings(settings: Json, scratchSizeBytesDefault: number): NbdSettings {
  if (settings !== null && (typeof settings !== 'object' || Array.isArray(settings)))
    throw new Failure('REQUEST_INVALID', 'the settings of the target nbd are an object')
  const {
    scratchSizeBytesMax,
    directory: keepDirectory,
    ...others
  } = (settings ?? {}) as { readonly [key: string]: Json }
  const [other] = Object.keys(others)
  if (other !== undefined)
    throw new Failure(
      'REQUEST_INVALID',
      `the target nbd has no setting "${other}": it has scratchSizeBytesMax and directory`,
    )
  const size = scratchSizeBytesMax ?? scratchSizeBytesDefault
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < scratchSizeBytesMin)
    throw new Failure('REQUEST_INVALID', `scratchSizeBytesMax is a number of bytes, ${scratchSizeBytesMin} at least`)
  if (keepDirectory === undefined || keepDirectory === null)
    return { scratchSizeBytesMax: size, keepDirectory: undefined }
  if (typeof keepDirectory !== 'string' || !path.isAbsolute(keepDirectory))
    throw new Failure('REQUEST_INVALID', "the directory is an absolute path on the daemon's host")
  return { scratchSizeBytesMax: size, keepDirectory: path.normalize(keepDirectory) }
}

function checkDirectory(directory: string, requireDirectory: LiveMachine['requireDirectory']): void {
  try {
    requireDirectory(directory)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why =
      code === 'ENOENT'
        ? 'there is no such directory'
        : code === 'ENOTDIR'
          ? 'it is not a directory'
          : 'the VRA may not write there'
    throw new Failure('REQUEST_INVALID', `the disks cannot be kept in ${directory}: ${why}`, { directory }, { cause })
  }
}

function inMiB(sizeBytes: number): string {
  return `${Math.floor(sizeBytes / MiB)} MiB`
}
