import * as path from 'node:path'
import type { EBSClient } from '@aws-sdk/client-ebs'
import type { EC2Client } from '@aws-sdk/client-ec2'
import type { ImagePlan } from '../aging/service.ts'
import { assert } from '../base/assert.ts'
import { systemClock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { Permits } from '../base/permits.ts'
import { MiB } from '../base/units.ts'
import type { RpcClient } from '../base/rpc.ts'
import {
  changedExtents,
  ImageSources,
  openImage,
  spoolFailedSentence,
  SpoolRoom,
  type SpoolableImage,
  type VolumeRange,
} from '../image/image.ts'
import type { StandbyAdvance, StandbyContext, TargetPlan } from '../recovery/target.ts'
import type { Json } from '../timeline/recovery.ts'
import { Attempts } from './attempts.ts'
import { Chains } from './chains.ts'
import { newEbsClient, newEc2Client, newQuotaClient } from './clients.ts'
import { EbsCalls } from './ebs-calls.ts'
import { Ec2Calls } from './ec2-calls.ts'
import { Pace, PutPaces } from './pace.ts'
import { putInThreads, type Putters } from './putters.ts'
import { PutQuota } from './put-quota.ts'
import { QuotaCalls } from './quota-calls.ts'
import { AwsRecoveries } from './recovery.ts'
import type { AwsAsks, AwsNotices, AwsService, StandbyWork } from './service.ts'
import { Windows } from './windows.ts'

const cacheSizeBytes = 64 * MiB

interface Opened {
  readonly sources: ImageSources
  readonly putters: Putters
  readonly clients: readonly Pick<EBSClient | EC2Client, 'destroy'>[]
  readonly chains: Chains
  readonly recoveries: AwsRecoveries
}

export type Notify = <K extends keyof AwsNotices>(name: K, notice: AwsNotices[K]) => void

/** The aws service itself, in the thread that it runs in. */
export class AwsServer implements AwsService {
  readonly #asks: RpcClient<AwsAsks>
  readonly #notify: Notify
  readonly #works = new Map<number, { readonly abort: AbortController; readonly ended: Promise<unknown> }>()
  #opened: Opened | undefined

  constructor(asks: RpcClient<AwsAsks>, notify: Notify) {
    this.#asks = asks
    this.#notify = notify
  }

  async open({ aws, image, spoolRoom }: Parameters<AwsService['open']>[0]): Promise<void> {
    const clock = systemClock
    const sources = await ImageSources.open(image.store, image.dataDirectory, undefined)
    const windows = new Windows()
    const putters = await putInThreads(aws, windows.memory, sentence =>
      this.#notify('told', { vpg: undefined, sentence, failure: undefined }),
    )
    const attempts = new Attempts(aws.requestTimeoutMillis, clock)
    const clients = [newEbsClient(aws, aws.putsAtOnceMax), newEc2Client(aws)] as const
    const quotaClient = newQuotaClient(aws)
    const quotas = new QuotaCalls(quotaClient, attempts)
    const newPace = (): Pace => new Pace(aws.putsPerSecondMax, clock)
    const paces = new PutPaces(aws.putsPerSecondMax, clock)
    const open = (plan: ImagePlan, signal: AbortSignal): Promise<SpoolableImage> =>
      openImage(plan, sources.tools(cacheSizeBytes), signal)
    const shared = {
      config: aws,
      clock,
      attempts: new Attempts(aws.requestTimeoutMillis, clock), // puts are many: they spend a budget of their own
      putters,
      windows,
      spool: {
        fileName: path.join(image.dataDirectory, 'scratch', 'aws.spool'),
        failed: (cause: unknown) =>
          this.#notify('told', { vpg: undefined, sentence: spoolFailedSentence(cause), failure: undefined }),
        room: SpoolRoom.open(spoolRoom, 'aws'),
      },
      spoolPermit: new Permits(1),
      accountPace: paces.account,
      newPace,
      ebs: new EbsCalls(clients[0], attempts),
      ec2: new Ec2Calls(clients[1], attempts),
      quotas,
      putQuota: new PutQuota(quotas, paces, clock),
      openImage: open,
    }
    const chains = new Chains({
      ...shared,
      newPace: () => paces.standby,
      changedRanges: async (plans, signal) => {
        const tools = sources.tools(cacheSizeBytes)
        return rangesOf((await changedExtents(plans, tools, plan => open(plan, signal), signal)).extents)
      },
      standbyOf: vpg => this.#asks.call('standbyOf', { vpg }),
      openPlanAt: (vpg, checkpoint) => this.#asks.call('openPlanAt', { vpg, checkpoint }),
      release: (vpg, plan) => this.#asks.call('release', { vpg, pinId: plan.pinId }),
      told: (vpg, sentence, failure) => this.#notify('told', { vpg, sentence, failure }),
    })
    const all = quotaClient === undefined ? clients : [...clients, quotaClient]
    this.#opened = { sources, putters, clients: all, chains, recoveries: new AwsRecoveries({ ...shared, chains }) }
  }

  async plan({ work, request }: Parameters<AwsService['plan']>[0]): Promise<TargetPlan> {
    return await this.#run(work, signal => this.#parts.recoveries.plan(request, signal))
  }

  async carryOut({ work, step, record, definition }: Parameters<AwsService['carryOut']>[0]): Promise<void> {
    const remembering = this.#remembering(work, record)
    await this.#run(work, signal =>
      this.#parts.recoveries[step]({
        get record() {
          return remembering.record
        },
        definition,
        remember: remembering.remember,
        openPlan: () => this.#asks.call('openPlan', { work }),
        release: plan => this.#asks.call('release', { vpg: definition.id, pinId: plan.pinId }),
        progress: (volume, doneBytes, totalBytes) => this.#notify('progress', { work, volume, doneBytes, totalBytes }),
        signal,
      }),
    )
  }

  async advance(argument: StandbyWork): Promise<StandbyAdvance> {
    return await this.#run(argument.work, signal => this.#parts.chains.advance(this.#standbyContext(argument, signal)))
  }

  async removeChains(argument: StandbyWork): Promise<void> {
    await this.#run(argument.work, signal => this.#parts.chains.removeAll(this.#standbyContext(argument, signal)))
  }

  #standbyContext({ work, record, definition }: StandbyWork, signal: AbortSignal): StandbyContext {
    const remembering = this.#remembering(work, record)
    return {
      get record() {
        return remembering.record
      },
      definition,
      remember: remembering.remember,
      signal,
    }
  }

  /** The record as it is once the daemon has made durable what is to be remembered. */
  #remembering<R extends { readonly memory: Json }>(work: number, record: R) {
    const remembering = {
      record,
      remember: async (memory: Json): Promise<void> => {
        await this.#asks.call('remember', { work, memory })
        remembering.record = { ...remembering.record, memory }
      },
    }
    return remembering
  }

  cancel({ work }: { readonly work: number }): Promise<void> {
    this.#works.get(work)?.abort.abort(new Failure('CLOSING', 'the work in AWS was ended'))
    return Promise.resolve()
  }

  async close(): Promise<void> {
    for (const [work, { ended }] of this.#works) {
      await this.cancel({ work })
      await ended
    }
    await this.#opened?.putters.close()
    for (const client of this.#opened?.clients ?? []) client.destroy()
    await this.#opened?.sources.close()
    this.#opened = undefined
  }

  get #parts(): Opened {
    assert(this.#opened !== undefined, 'open() is the first call')
    return this.#opened
  }

  async #run<T>(work: number, act: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const abort = new AbortController()
    const acting = act(abort.signal)
    this.#works.set(work, { abort, ended: acting.catch(() => undefined) })
    try {
      return await acting
    } finally {
      this.#works.delete(work)
    }
  }
}

function rangesOf(extents: Float64Array): VolumeRange[] {
  return Array.from({ length: extents.length / 2 }, (_, index) => {
    const startBytes = extents[2 * index]!
    return { startBytes, endBytes: startBytes + extents[2 * index + 1]! }
  })
}
