import { randomUUID } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { Worker } from 'node:worker_threads'
import type { Aging } from '../aging/aging.ts'
import type { ImagePlan } from '../aging/service.ts'
import { onAbort } from '../base/abort.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, failureToRecord } from '../base/failure.ts'
import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import { threadYoungSizeMiBMax } from '../base/limits.ts'
import { RpcClient } from '../base/rpc.ts'
import { endThread } from '../base/threads.ts'
import type { ExportJob, ExportRequest } from '../control/service.ts'
import type { ExportArgument, ExportResult, ImageConfig, ImageNotices, ImageService } from '../image/service.ts'
import type { CacheFacts } from '../store/object-store.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgEntry } from './vpg-table.ts'

const exportsRunningMax = 4
const exportsKeptMax = 50

export type ImageOpener = Pick<Aging, 'openImage' | 'closeImage'>

/** The thread that reads images, and what ended it. */
export interface ImageThread {
  readonly worker: Worker
  readonly client: RpcClient<ImageService>
  cause: Error | undefined
}

/** Hears of damage that an export met. */
export type DamageHandler = (vpg: VpgId, sentence: string) => void

type Changing<T> = { -readonly [K in keyof T]: T[K] }

/** Exports of volumes to raw files: jobs in the image thread, so that no byte of an image passes the main thread. */
export class Exports {
  readonly #aging: ImageOpener
  readonly #clock: Clock
  readonly #config: ImageConfig
  readonly #damageFound: DamageHandler
  readonly #newWorker: () => Worker
  readonly #jobs = new Map<string, Changing<ExportJob>>()
  readonly #running = new Map<
    string,
    { readonly vpg: VpgId; readonly thread: ImageThread; readonly done: Promise<void> }
  >()
  readonly #listeners = new Map<string, (doneBytes: number, totalBytes: number) => void>()
  #thread: Promise<ImageThread> | undefined

  constructor(
    config: ImageConfig,
    aging: ImageOpener,
    clock: Clock,
    damageFound: DamageHandler,
    newWorker = (): Worker =>
      new Worker(new URL('../image/image-worker.js', import.meta.url), {
        resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
      }),
  ) {
    this.#config = config
    this.#aging = aging
    this.#clock = clock
    this.#damageFound = damageFound
    this.#newWorker = newWorker
  }

  /** Starts the thread, so that the first export need not wait for it. Where it cannot be started now, that export says why. */
  prepare(): void {
    void this.openThread().catch(() => undefined)
  }

  /** Pins the checkpoint, then copies as a job. Fails ALREADY_EXISTS before anything is pinned where the file exists. */
  async start(request: ExportRequest, entry: VpgEntry, checkpoint: Checkpoint): Promise<ExportJob> {
    if (this.#running.size >= exportsRunningMax)
      throw new Failure('BUSY', `${exportsRunningMax} exports are running: wait for one, or cancel one`)
    const volume = entry.volumeNamed(request.volume)
    const then = checkpoint.volumes.find(candidate => candidate.number === volume.number)
    if (then === undefined || !then.included)
      throw new Failure('CHECKPOINT_MISSING', `the checkpoint does not include the volume "${request.volume}"`)
    const found = await stat(request.file).catch(() => undefined)
    if (!request.overwrite && found?.isFile() === true)
      // what is no file is refused by the copy, however it is asked for
      throw new Failure(
        'ALREADY_EXISTS',
        `${request.file} exists; name another file, or ask to overwrite it (--overwrite)`,
      )
    const id = randomUUID()
    const thread = await this.openThread()
    const plan = await this.#aging.openImage({ vpg: entry.definition.id, checkpoint, owner: `export ${id}` })
    const job: Changing<ExportJob> = {
      id,
      state: 'running',
      vpg: entry.definition.name,
      volume: volume.name,
      checkpoint: formatCheckpointId(checkpoint.ordinal),
      checkpointTimestampMicros: checkpoint.timestampMicros,
      file: request.file,
      sizeBytes: then.sizeBytes,
      doneBytes: 0,
      dataBytes: 0,
      startedAtMicros: this.#clock.timestampMicros(),
      endedAtMicros: undefined,
      failure: undefined,
    }
    this.#jobs.set(id, job)
    this.#forgetOldest()
    const argument = {
      id,
      plan,
      volume: volume.number,
      file: request.file,
      existing: request.overwrite ? 'replace' : 'refuse',
    } as const
    const vpg = entry.definition.id
    this.#running.set(id, { vpg, thread, done: this.#run(job, { vpg, plan, thread, argument }) })
    return { ...job }
  }

  /** Newest first. */
  list(): ExportJob[] {
    return [...this.#jobs.values()].map(job => ({ ...job })).reverse()
  }

  /** Fails NOT_FOUND. */
  get(id: string): ExportJob {
    const job = this.#jobs.get(id)
    if (job === undefined) throw new Failure('NOT_FOUND', `there is no export ${id}`)
    return { ...job }
  }

  /** Returns when it has ended, cancelled or otherwise. */
  async cancel(id: string): Promise<ExportJob> {
    this.get(id)
    const running = this.#running.get(id)
    if (running !== undefined) {
      await running.thread.client.call('cancel', { id }).catch(() => undefined) // the thread has ended: so does the job
      await running.done
    }
    return this.get(id)
  }

  /** Writes a volume of a plan that somebody else holds into a file; no job, and bounded by whoever asks. As ImageService.exportRaw. */
  async write(
    argument: Omit<ExportArgument, 'id'>,
    onProgress: (doneBytes: number, totalBytes: number) => void,
    signal: AbortSignal,
  ): Promise<ExportResult> {
    signal.throwIfAborted()
    const id = randomUUID()
    const thread = await this.openThread()
    this.#listeners.set(id, onProgress)
    const cancel = onAbort(signal, () => void thread.client.call('cancel', { id }).catch(() => undefined))
    try {
      return await thread.client.call('exportRaw', { ...argument, id })
    } catch (error) {
      if (thread.cause === undefined) throw error
      throw new Failure('PEER_LOST', `the thread that reads images ended unexpectedly: ${String(thread.cause)}`)
    } finally {
      cancel()
      this.#listeners.delete(id)
    }
  }

  isReading(vpg: VpgId): boolean {
    return [...this.#running.values()].some(running => running.vpg === vpg)
  }

  async close(): Promise<void> {
    for (const id of [...this.#running.keys()]) await this.cancel(id).catch(() => undefined)
    const thread = await this.#thread?.catch(() => undefined)
    await thread?.client.call('close', undefined).catch(() => undefined)
    await endThread(thread?.worker)
  }

  /** Of the cache on the local disk; undefined where there is none, or no thread has opened it yet. */
  async cacheFacts(): Promise<CacheFacts | undefined> {
    const thread = await this.#thread?.catch(() => undefined)
    return await thread?.client.call('cacheFacts', undefined).catch(() => undefined)
  }

  /** The thread that reads images, or another where it has ended: what ends one reader must not end those that come next. */
  openThread(): Promise<ImageThread> {
    this.#thread ??= this.#startThread()
    return this.#thread
  }

  async #startThread(): Promise<ImageThread> {
    const worker = this.#newWorker()
    const client = new RpcClient<ImageService>(worker, (name, value) => {
      if (name === 'exportProgress') this.#progress(value as ImageNotices['exportProgress'])
    })
    const thread: ImageThread = { worker, client, cause: undefined }
    worker.on('error', (error: Error) => (thread.cause = error)) // its calls fail PEER_LOST; the job says so
    worker.on('exit', () => (this.#thread = undefined))
    try {
      await client.call('open', this.#config)
    } catch (error) {
      this.#thread = undefined
      await endThread(worker)
      throw error
    }
    return thread
  }

  async #run(
    job: Changing<ExportJob>,
    work: {
      readonly vpg: VpgId
      readonly plan: ImagePlan
      readonly thread: ImageThread
      readonly argument: ExportArgument
    },
  ): Promise<void> {
    const { vpg, plan, thread, argument } = work
    try {
      const result = await thread.client.call('exportRaw', argument)
      job.state = 'done'
      job.doneBytes = job.sizeBytes
      job.dataBytes = result.writtenSizeBytes
    } catch (error) {
      const failure =
        error instanceof Failure && thread.cause === undefined
          ? error
          : new Failure('PEER_LOST', `the export ended unexpectedly: ${String(thread.cause ?? error)}`)
      job.state = failure.code === 'CLOSING' ? 'cancelled' : 'failed'
      job.failure = failureToRecord(failure)
      if (failure.reaction === 'quarantine') this.#damageFound(vpg, failure.message)
    } finally {
      job.endedAtMicros = this.#clock.timestampMicros()
      this.#running.delete(job.id)
      // A pin that cannot be dropped now (store down) is dropped at the next start: it keeps data, it loses none.
      await this.#aging.closeImage({ vpg, pinId: plan.pinId }).catch(() => undefined)
    }
  }

  #progress(notice: ImageNotices['exportProgress']): void {
    this.#listeners.get(notice.id)?.(notice.doneBytes, notice.totalBytes)
    const job = this.#jobs.get(notice.id)
    if (job === undefined || job.state !== 'running') return
    job.doneBytes = notice.totalBytes === 0 ? 0 : Math.floor((notice.doneBytes / notice.totalBytes) * job.sizeBytes)
    job.dataBytes = notice.doneBytes
  }

  #forgetOldest(): void {
    for (const [id, job] of this.#jobs) {
      if (this.#jobs.size <= exportsKeptMax) return
      if (job.state !== 'running') this.#jobs.delete(id)
    }
  }
}
