import { randomUUID } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import type { Clock } from '../base/clock.ts'
import { Failure, failureToRecord } from '../base/failure.ts'
import { RpcClient } from '../base/rpc.ts'
import { endThread } from '../base/threads.ts'
import type { Finding, VerifyJob } from '../control/service.ts'
import type { VerifyNotices, VerifyService } from './verify-service.ts'

const findingsKeptMax = 1000
const jobsKeptMax = 20

type Changing<T> = { -readonly [K in keyof T]: T[K] }
/** Hears of every finding, also of those that the job does not keep. */
type FindingHandler = (what: VerifyJob['what'], finding: Finding) => void
type Call<T> = (client: RpcClient<VerifyService>) => Promise<T>

/** Verifications as jobs, each in a thread of its own that ends with it. */
export class VerifyJobs {
  readonly #clock: Clock
  readonly #onFinding: FindingHandler
  readonly #jobs = new Map<string, Changing<VerifyJob>>()
  readonly #running = new Map<string, { readonly worker: Worker; readonly done: Promise<void> }>()

  constructor(clock: Clock, onFinding: FindingHandler) {
    this.#clock = clock
    this.#onFinding = onFinding
  }

  /** Fails BUSY while one of this kind is running. */
  start(what: 'journal' | 'mirror', vpg: string | undefined, call: Call<void>): VerifyJob {
    if ([...this.#jobs.values()].some(job => job.state === 'running' && job.what === what))
      throw new Failure('BUSY', `the ${what} is being verified already`)
    const job: Changing<VerifyJob> = {
      id: randomUUID(),
      what,
      vpg,
      state: 'running',
      checkedCount: 0,
      checkedSizeBytes: 0,
      totalSizeBytes: undefined,
      findings: [],
      moreFindings: 0,
      startedAtMicros: this.#clock.timestampMicros(),
      endedAtMicros: undefined,
      failure: undefined,
    }
    this.#jobs.set(job.id, job)
    for (const [id, old] of this.#jobs) {
      if (this.#jobs.size <= jobsKeptMax) break
      if (old.state !== 'running') this.#jobs.delete(id)
    }
    const worker = startThread()
    const client = new RpcClient<VerifyService>(worker, (name, value) => {
      note(job, name, value)
      if (name === 'finding') this.#onFinding(what, value as Finding)
    })
    this.#running.set(job.id, { worker, done: this.#run(job, worker, () => call(client)) })
    return { ...job }
  }

  list(): VerifyJob[] {
    return [...this.#jobs.values()].map(job => ({ ...job })).reverse()
  }

  /** Fails NOT_FOUND. */
  get(id: string): VerifyJob {
    const job = this.#jobs.get(id)
    if (job === undefined) throw new Failure('NOT_FOUND', `there is no verification ${id}`)
    return { ...job }
  }

  async cancel(id: string): Promise<VerifyJob> {
    this.get(id)
    const running = this.#running.get(id)
    if (running !== undefined) {
      const job = this.#jobs.get(id)
      if (job !== undefined) job.state = 'cancelled'
      await endThread(running.worker)
      await running.done
    }
    return this.get(id)
  }

  async close(): Promise<void> {
    for (const id of [...this.#running.keys()]) await this.cancel(id)
  }

  async #run(job: Changing<VerifyJob>, worker: Worker, work: () => Promise<void>): Promise<void> {
    try {
      await work()
      job.state = 'done'
    } catch (error) {
      if (job.state !== 'cancelled') {
        job.state = 'failed'
        job.failure = failureToRecord(asFailure(error))
      }
    } finally {
      job.endedAtMicros = this.#clock.timestampMicros()
      this.#running.delete(job.id)
      await endThread(worker)
    }
  }
}

/** One page of a dump, or what else is one answer, in a thread that ends with it. */
export async function askThread<T>(call: Call<T>): Promise<T> {
  const worker = startThread()
  try {
    return await call(new RpcClient<VerifyService>(worker))
  } finally {
    await endThread(worker)
  }
}

function startThread(): Worker {
  const worker = new Worker(new URL('./verify-worker.js', import.meta.url))
  worker.on('error', () => undefined) // its call fails PEER_LOST, which the job tells
  return worker
}

function note(job: Changing<VerifyJob>, name: string, value: unknown): void {
  if (name === 'progress') Object.assign(job, value as VerifyNotices['progress'])
  else if (name !== 'finding') return
  else if (job.findings.length < findingsKeptMax) job.findings = [...job.findings, value as VerifyNotices['finding']]
  else job.moreFindings++
}

function asFailure(error: unknown): Failure {
  return error instanceof Failure
    ? error
    : new Failure('PEER_LOST', `the verification ended unexpectedly: ${String(error)}`)
}
