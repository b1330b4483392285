import { Worker } from 'node:worker_threads'
import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { threadYoungSizeMiBMax } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { RpcClient } from '../base/rpc.ts'
import { endThread } from '../base/threads.ts'
import { PutServer } from './put-server.ts'
import type { PutService } from './put-service.ts'
import type { AwsConfig } from './service.ts'

/** Who puts blocks: one try a call. What lies in the slot is the caller's again when the call has ended. */
export interface Putters {
  put(block: { readonly snapshot: string; readonly index: number; readonly slot: number }): Promise<Uint8Array>
  abandon(snapshot: string): Promise<void>
  close(): Promise<void>
}

/** In the thread that calls. */
export function putHere(aws: AwsConfig, memory: SharedArrayBuffer, clock: Clock): Putters {
  const server = new PutServer(clock)
  void server.open({ aws, memory })
  const permits = new Permits(aws.putsAtOnceMax)
  return {
    put: block => permits.with(() => server.put(block)),
    abandon: snapshot => server.abandon({ snapshot }),
    close: () => server.close(),
  }
}

/** One that put something is begun anew so often in a row, with nothing put between. */
const deathsInARowMax = 5

/** How a thread of putters is begun; the tests begin others. */
export type StartPutWorker = () => Worker

const startPutWorker: StartPutWorker = () =>
  new Worker(new URL('./put-worker.js', import.meta.url), {
    resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
  })

/**
 * In threads of their own, in turn: one event loop does some 900 blocks a second at best, less than EBS takes. A thread that dies is replaced: the puts that it had
 * fail PEER_LOST, to be made again, and `told` hears of it. Where threads die again and again, and nothing is put between, puts fail CLOUD_REFUSED.
 */
export async function putInThreads(
  aws: AwsConfig,
  memory: SharedArrayBuffer,
  told: (sentence: string) => void,
  start: StartPutWorker = startPutWorker,
): Promise<Putters> {
  const threads = Array.from({ length: aws.putThreads }, () => new PutThread({ aws, memory, told, start }))
  const close = async (): Promise<void> => {
    await Promise.all(threads.map(thread => thread.close()))
  }
  try {
    await Promise.all(threads.map(thread => thread.opened))
  } catch (error) {
    await close()
    throw error
  }
  const permits = new Permits(aws.putsAtOnceMax)
  let next = 0
  return {
    put: block => {
      const alive = threads.filter(thread => !thread.isSpent)
      const thread = alive[next++ % alive.length]
      if (thread !== undefined) return permits.with(() => thread.put(block))
      return Promise.reject(
        new Failure('CLOUD_REFUSED', 'the threads that put blocks die again and again: start the daemon again'),
      )
    },
    abandon: async snapshot => {
      await Promise.allSettled(threads.map(thread => thread.abandon(snapshot)))
    },
    close,
  }
}

interface PutThreadParts {
  readonly aws: AwsConfig
  readonly memory: SharedArrayBuffer
  readonly told: (sentence: string) => void
  readonly start: StartPutWorker
}

/** One thread after another, each in the place of the one that died. */
class PutThread {
  readonly #parts: PutThreadParts
  #worker: Worker
  #client: RpcClient<PutService>
  /** Resolves when it takes puts; rejects PEER_LOST where it died before that. */
  opened: Promise<void>
  #deathsInARow = 0
  #isClosing = false

  constructor(parts: PutThreadParts) {
    this.#parts = parts
    ;[this.#worker, this.#client, this.opened] = this.#begin()
  }

  /** None takes its place any more. */
  get isSpent(): boolean {
    return this.#deathsInARow >= deathsInARowMax
  }

  async put(block: Parameters<PutService['put']>[0]): Promise<Uint8Array> {
    await this.opened
    const digest = await this.#client.call('put', block)
    this.#deathsInARow = 0
    return digest
  }

  abandon(snapshot: string): Promise<void> {
    return this.#client.call('abandon', { snapshot })
  }

  async close(): Promise<void> {
    this.#isClosing = true
    await this.#client.call('close', undefined).catch(() => undefined) // it has ended
    await endThread(this.#worker)
  }

  #begin(): [Worker, RpcClient<PutService>, Promise<void>] {
    const { aws, memory, start } = this.#parts
    const worker = start()
    const client = new RpcClient<PutService>(worker)
    let why = 'no reason'
    worker.on('error', error => (why = error instanceof Error ? error.message : String(error)))
    worker.on('exit', () => this.#ended(why))
    const opened = client.call('open', { aws, memory })
    opened.catch(() => undefined) // whoever puts hears of it
    return [worker, client, opened]
  }

  #ended(why: string): void {
    if (this.#isClosing) return
    this.#deathsInARow++
    const then = this.isSpent
      ? `the ${deathsInARowMax}th in a row, and none takes its place`
      : 'another takes its place'
    this.#parts.told(`a thread that puts blocks of EBS has died (${why}); ${then}`)
    if (!this.isSpent) [this.#worker, this.#client, this.opened] = this.#begin()
  }
}
