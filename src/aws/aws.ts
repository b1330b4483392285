import { MessageChannel, Worker } from 'node:worker_threads'
import type { ImagePlan } from '../aging/service.ts'
import { onAbort } from '../base/abort.ts'
import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { threadYoungSizeMiBMax } from '../base/limits.ts'
import { RpcClient, serveRpc } from '../base/rpc.ts'
import { endThread } from '../base/threads.ts'
import type { ImageConfig } from '../image/service.ts'
import type {
  RecoveredThing,
  RecoveryTarget,
  StandbyAdvance,
  StandbyContext,
  StandbyCopy,
  StandbyTarget,
  TargetContext,
  TargetPlan,
  TargetRequest,
} from '../recovery/target.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'
import type { StandbyRecord } from '../timeline/standby.ts'
import type { PermissionFinding } from './check.ts'
import { copiesOf } from './chain-memory.ts'
import type { AwsAsks, AwsConfig, AwsNotices, AwsService, StandbyWork } from './service.ts'
import { thingsOf } from './things.ts'

// Recovery to AWS, as the daemon has it: every call goes to a thread, which is started with the first one, and which asks back what only the daemon
// can do. README.md has the settings, the tags, and what is where in which thread.

export { policyDocument, callsUsed } from './policy.ts'
export type { AwsConfig } from './service.ts'

export interface AwsTools {
  readonly config: AwsConfig
  readonly image: ImageConfig
  /** Of newSpoolRoom(): one for the process. */
  readonly spoolRoom: SharedArrayBuffer
  /** As AgingService. */
  readonly openImage: (argument: {
    readonly vpg: VpgId
    readonly checkpoint: Checkpoint
    readonly owner: string
  }) => Promise<ImagePlan>
  readonly closeImage: (argument: { readonly vpg: VpgId; readonly pinId: string }) => Promise<void>
  /** The record of the VPG's standby chains; undefined where none are kept. */
  readonly standbyOf: (vpg: VpgId) => StandbyRecord | undefined
  /** No chain is being advanced on return, and none is until what it gives is called. */
  readonly suspendStandby: () => Promise<() => void>
  /** What people should know that no call's failure says. */
  readonly told: (vpg: VpgId | undefined, sentence: string) => void
}

/** As check.ts has it, which is loaded only when it is asked: the main thread never loads the SDK. */
export async function checkPermissions(config: AwsConfig, signal: AbortSignal): Promise<readonly PermissionFinding[]> {
  const check = await import('./check.ts')
  return await check.checkPermissions(config, signal)
}

interface Thread {
  readonly worker: Worker
  readonly client: RpcClient<AwsService>
}

type Step = 'prepare' | 'commit' | 'remove'

export class AwsTarget implements RecoveryTarget, StandbyTarget {
  readonly kind = 'aws'
  readonly #tools: AwsTools
  /** Calls that are under way, by what the thread calls them. */
  readonly #contexts = new Map<number, TargetContext>()
  readonly #standbys = new Map<number, StandbyContext>()
  #thread: Promise<Thread> | undefined
  #workCount = 0

  constructor(tools: AwsTools) {
    this.#tools = tools
  }

  async plan(request: TargetRequest, signal: AbortSignal): Promise<TargetPlan> {
    return await this.#work(signal, (thread, work) => thread.client.call('plan', { work, request }))
  }

  /** Who is in a hurry has the rate to himself, and the links that he puts upon stay. */
  async prepare(context: TargetContext): Promise<void> {
    const resume = await this.#tools.suspendStandby()
    try {
      await this.#carryOut('prepare', context)
    } finally {
      resume()
    }
  }

  /** Nothing of it lives in the process. */
  async resume(): Promise<void> {}

  async commit(context: TargetContext): Promise<void> {
    await this.#carryOut('commit', context)
  }

  async remove(context: TargetContext): Promise<void> {
    await this.#carryOut('remove', context)
  }

  things(record: RecoveryRecord, definition: VpgDefinition): readonly RecoveredThing[] {
    return thingsOf(record, definition)
  }

  async advance(context: StandbyContext): Promise<StandbyAdvance> {
    return await this.#standby(context, (thread, argument) => thread.client.call('advance', argument))
  }

  async end(context: StandbyContext): Promise<void> {
    await this.#standby(context, (thread, argument) => thread.client.call('removeChains', argument))
  }

  copies({ memory }: StandbyRecord): readonly StandbyCopy[] {
    return copiesOf(memory)
  }

  async #standby<T>(context: StandbyContext, call: (thread: Thread, argument: StandbyWork) => Promise<T>): Promise<T> {
    const { record, definition, signal } = context
    return await this.#work(signal, async (thread, work) => {
      this.#standbys.set(work, context)
      try {
        return await call(thread, { work, record, definition })
      } finally {
        this.#standbys.delete(work)
      }
    })
  }

  async close(): Promise<void> {
    const thread = await this.#thread?.catch(() => undefined)
    await thread?.client.call('close', undefined).catch(() => undefined)
    await endThread(thread?.worker)
  }

  async #carryOut(step: Step, context: TargetContext): Promise<void> {
    const { record, definition, signal } = context
    await this.#work(signal, async (thread, work) => {
      this.#contexts.set(work, context)
      try {
        await thread.client.call('carryOut', { work, step, record, definition })
      } finally {
        this.#contexts.delete(work)
      }
    })
  }

  /** Aborted, the thread ends the work, and only then the call ends. */
  async #work<T>(signal: AbortSignal, act: (thread: Thread, work: number) => Promise<T>): Promise<T> {
    signal.throwIfAborted()
    this.#thread ??= this.#start()
    const thread = await this.#thread
    signal.throwIfAborted()
    const work = ++this.#workCount
    let cancelling: Promise<unknown> = Promise.resolve()
    const forget = onAbort(signal, () => {
      cancelling = thread.client.call('cancel', { work }).catch(() => undefined) // the thread has ended: so does the work
    })
    try {
      return await act(thread, work)
    } finally {
      forget()
      await cancelling
    }
  }

  async #start(): Promise<Thread> {
    const { port1, port2 } = new MessageChannel()
    const worker = new Worker(new URL('./aws-worker.js', import.meta.url), {
      workerData: { asks: port2 },
      transferList: [port2],
      resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
    })
    const client = new RpcClient<AwsService>(worker, (name, value) => this.#hear(name, value))
    worker.on('error', () => undefined) // its calls fail PEER_LOST, and are made again to another thread
    worker.on('exit', () => {
      this.#thread = undefined
      port1.close()
    })
    serveRpc<AwsAsks>(port1, {
      remember: ({ work, memory }) => (this.#standbys.get(work) ?? this.#context(work)).remember(memory),
      openPlan: ({ work }) => this.#context(work).openPlan(),
      openPlanAt: ({ vpg, checkpoint }) => this.#tools.openImage({ vpg, checkpoint, owner: 'standby chain' }),
      release: argument => this.#tools.closeImage(argument),
      standbyOf: ({ vpg }) => Promise.resolve(this.#tools.standbyOf(vpg)),
    })
    try {
      const { config, image, spoolRoom } = this.#tools
      await client.call('open', { aws: config, image, spoolRoom })
    } catch (error) {
      this.#thread = undefined
      await endThread(worker)
      throw error
    }
    return { worker, client }
  }

  #context(work: number): TargetContext {
    const context = this.#contexts.get(work)
    if (context === undefined) throw new Failure('CLOSING', 'nobody waits for this work any more')
    return context
  }

  #hear(name: string, value: unknown): void {
    if (name === 'progress') {
      const { work, volume, doneBytes, totalBytes } = value as AwsNotices['progress']
      this.#contexts.get(work)?.progress(volume, doneBytes, totalBytes)
    } else {
      const { vpg, sentence } = value as AwsNotices['told']
      this.#tools.told(vpg, sentence)
    }
  }
}
