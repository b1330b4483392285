import { Worker } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { agingHeapSizeMiBMax, durableNoticeIntervalMillis, threadYoungSizeMiBMax } from '../base/limits.ts'
import { RpcClient } from '../base/rpc.ts'
import { endThread } from '../base/threads.ts'
import { decodeCheckpoints } from '../timeline/checkpoint-page.ts'
import type {
  AgingConfig,
  AgingEvents,
  AgingNotices,
  AgingService,
  LogMark,
  OpenedVpg,
  PackedVpg,
  StopNote,
} from './service.ts'

// Journal to mirror, seen from the daemon. The work itself runs in one thread (aging-worker.ts), so that ingest never
// waits for an upload, a merge or a checksum:
//
//   commit log ──tail──> unsealed records ──seal──> segment = commit N+1
//                                                      │ enough raw bytes wait
//                                                      v
//                                   delta (fold) ──> manifest = commit N+2
//                                                      │ a region's deltas outgrow its live bytes
//                                                      v
//                                   base region (rewrite) ──> manifest = commit N+3 ... edge, garbage
//
// That thread is the single writer of every VPG's commit sequence, so definitions, tags, pins and recoveries go through it, too.

export { noStoreRequests } from './store-requests.ts'
export { newPaceFlag, setPaced, type PaceFlag } from './turns.ts'

/** What the daemon does with each notice; one that is left out is dropped. */
export type AgingHandlers = Partial<AgingEvents>

/** The calls that a client of the thread may make after open; see AgingService for their promises. */
type Call<K extends keyof AgingService> = (
  argument: Parameters<AgingService[K]>[0],
) => Promise<Awaited<ReturnType<AgingService[K]>>>

export class Aging {
  /** Every VPG that the store holds and this appliance owns, as it was when the thread opened it; while the store is away those that are remembered. */
  readonly vpgs: readonly (OpenedVpg & { forgetCheckpoints(): void })[]
  /** True where the store did not answer: storeOpened tells when it has. */
  readonly isStoreAway: boolean
  /** Resolves when the thread ends, with the error that ended it, or undefined after close(). */
  readonly ended: Promise<Error | undefined>
  readonly #worker: Worker
  readonly #client: RpcClient<AgingService>
  #mark: LogMark | undefined
  #sending: NodeJS.Timeout | undefined
  #closed = false

  private constructor(
    worker: Worker,
    client: RpcClient<AgingService>,
    opened: { readonly vpgs: readonly PackedVpg[]; readonly isStoreAway: boolean },
    ended: Promise<Error | undefined>,
  ) {
    this.#worker = worker
    this.#client = client
    this.vpgs = opened.vpgs.map(unpacked)
    this.isStoreAway = opened.isStoreAway
    this.ended = ended
  }

  /**
   * Starts the thread and has it read every VPG's newest manifest. A VPG that cannot be read is told by damageFound and left out, the
   * others are served. Where the store does not answer, what is remembered takes its place; where nothing is, and the store refuses us,
   * it fails as the store does. `notes` are of the stop before; what they fail with, this does.
   */
  static async open(
    config: AgingConfig,
    handlers: AgingHandlers = {},
    notes: Promise<readonly StopNote[]> = Promise.resolve([]),
  ): Promise<Aging> {
    const worker = new Worker(new URL('./aging-worker.js', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: agingHeapSizeMiBMax, maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
    })
    const ended = endOf(worker)
    let aging: Aging | undefined
    const client = new RpcClient<AgingService>(worker, (name, value) => {
      const handler = handlers[name as keyof AgingHandlers] as ((notice: unknown) => void) | undefined
      handler?.(value)
      if (name === 'checkpointsGivenUp' && aging !== undefined)
        aging.#answer(value as AgingNotices['checkpointsGivenUp'])
    })
    try {
      aging = new Aging(worker, client, await client.call('open', { ...config, notes: await notes }), ended)
      return aging
    } catch (error) {
      await endThread(worker)
      throw error
    }
  }

  readonly start: Call<'start'> = argument => this.#client.call('start', argument)
  readonly createVpg: Call<'createVpg'> = definition => this.#client.call('createVpg', definition)
  readonly deleteVpg: Call<'deleteVpg'> = argument => this.#client.call('deleteVpg', argument)
  readonly changeVpg: Call<'changeVpg'> = argument => this.#client.call('changeVpg', argument)
  readonly changeWriting: Call<'changeWriting'> = argument => this.#client.call('changeWriting', argument)
  readonly changeVolumes: Call<'changeVolumes'> = argument => this.#client.call('changeVolumes', argument)
  readonly tag: Call<'tag'> = argument => this.#client.call('tag', argument)
  readonly untag: Call<'untag'> = argument => this.#client.call('untag', argument)
  readonly closeImage: Call<'closeImage'> = argument => this.#client.call('closeImage', argument)
  readonly beginPreseed: Call<'beginPreseed'> = argument => this.#client.call('beginPreseed', argument)
  readonly preseedRegion: Call<'preseedRegion'> = argument => this.#client.call('preseedRegion', argument)
  readonly endPreseed: Call<'endPreseed'> = argument => this.#client.call('endPreseed', argument)
  readonly noteCompared: Call<'noteCompared'> = argument => this.#client.call('noteCompared', argument)
  readonly readHistory: Call<'readHistory'> = argument => this.#client.call('readHistory', argument)
  readonly status: Call<'status'> = argument => this.#client.call('status', argument)
  readonly statuses: Call<'statuses'> = argument => this.#client.call('statuses', argument)

  readonly queues: Call<'queues'> = argument => this.#client.call('queues', argument)

  /** The thread first reads the log up to what was durable when this was called. */
  readonly openImage: Call<'openImage'> = argument => {
    this.flush()
    return this.#client.call('openImage', argument)
  }

  /** As openImage. */
  readonly putRecovery: Call<'putRecovery'> = argument => {
    this.flush()
    return this.#client.call('putRecovery', argument)
  }

  /** As openImage. */
  readonly putStandby: Call<'putStandby'> = argument => {
    this.flush()
    return this.#client.call('putStandby', argument)
  }

  /** As openImage. */
  readonly dataSizes: Call<'dataSizes'> = argument => {
    this.flush()
    return this.#client.call('dataSizes', argument)
  }

  /** As openImage. */
  readonly generationOpened: Call<'generationOpened'> = argument => {
    this.flush()
    return this.#client.call('generationOpened', argument)
  }

  /** As openImage. */
  readonly openReading: Call<'openReading'> = argument => {
    this.flush()
    return this.#client.call('openReading', argument)
  }

  /** As openImage: all that was durable at the call is in the segment. */
  readonly seal: Call<'seal'> = argument => {
    this.flush()
    return this.#client.call('seal', argument)
  }

  /** How far the log is durable now. Cheap: the thread is told about ten times a second, and by flush(). */
  durable(mark: LogMark): void {
    this.#mark = mark
    if (this.#sending !== undefined || this.#closed) return
    this.#sending = setTimeout(() => this.flush(), durableNoticeIntervalMillis)
    this.#sending.unref()
  }

  /** Tells the thread the newest mark at once. Calls made after it find it there. */
  flush(): void {
    clearTimeout(this.#sending)
    this.#sending = undefined
    const mark = this.#mark
    if (mark === undefined || this.#closed) return
    this.#mark = undefined
    this.#worker.postMessage({ type: 'notice', name: 'durable', value: mark })
  }

  #answer({ question }: AgingNotices['checkpointsGivenUp']): void {
    this.flush()
    this.#client.call('givenUp', { question }).catch(() => undefined) // the thread has ended, and so has its question
  }

  /** Stops the thread between two steps; what was under way is found again at the next start. */
  async close(): Promise<void> {
    await this.stop()
  }

  /** See AgingService.close; nothing is noted where the thread has ended before, or was closed. */
  async stop(): Promise<readonly StopNote[]> {
    if (this.#closed) return []
    this.#closed = true
    clearTimeout(this.#sending)
    try {
      return await this.#client.call('close', undefined)
    } catch (error) {
      if (!failedWith(error, 'PEER_LOST')) throw error
      return []
    } finally {
      await endThread(this.#worker)
    }
  }
}

/** Its checkpoints are objects only while somebody looks at them, VPG by VPG; none are left after forgetCheckpoints. */
export function unpacked({ checkpointPage, ...vpg }: PackedVpg): OpenedVpg & { forgetCheckpoints(): void } {
  let page: Uint8Array | undefined = checkpointPage
  return {
    ...vpg,
    get checkpoints() {
      return page === undefined ? [] : decodeCheckpoints('the aging thread’s answer', page)
    },
    forgetCheckpoints() {
      page = undefined
    },
  }
}

function endOf(worker: Worker): Promise<Error | undefined> {
  return new Promise(resolve => {
    let cause: Error | undefined
    worker.on('error', (error: unknown) => {
      assert(error instanceof Error, 'a thread ends with an Error')
      cause = error
    })
    worker.on('exit', code => {
      const unasked = code !== 0 && code !== 1
      resolve(cause ?? (unasked ? new Failure('PEER_LOST', `the aging thread ended with status ${code}`) : undefined))
    })
  })
}
