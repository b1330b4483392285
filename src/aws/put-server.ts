import type { EBSClient } from '@aws-sdk/client-ebs'
import { assert } from '../base/assert.ts'
import { systemClock, type Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { Attempts } from './attempts.ts'
import { BlockRequests } from './block-requests.ts'
import { newEbsClient } from './clients.ts'
import { putBlock } from './ebs-calls.ts'
import type { PutService } from './put-service.ts'
import type { AwsConfig } from './service.ts'
import { blockAt } from './windows.ts'

/** The put service itself, in the thread that it runs in. */
export class PutServer implements PutService {
  readonly #clock: Clock
  readonly #aborts = new Map<string, AbortController>()
  #opened:
    | {
        readonly client: EBSClient
        readonly requests: BlockRequests
        readonly attempts: Attempts
        readonly memory: SharedArrayBuffer
      }
    | undefined

  constructor(clock: Clock = systemClock) {
    this.#clock = clock
  }

  open({ aws, memory }: { readonly aws: AwsConfig; readonly memory: SharedArrayBuffer }): Promise<void> {
    const client = newEbsClient(aws, aws.putsAtOnceMax)
    const attempts = new Attempts(aws.requestTimeoutMillis, this.#clock)
    this.#opened = { client, requests: new BlockRequests(client), attempts, memory }
    return Promise.resolve()
  }

  async put(block: { readonly snapshot: string; readonly index: number; readonly slot: number }): Promise<Uint8Array> {
    const { snapshot, index, slot } = block
    assert(this.#opened !== undefined, 'open() is the first call')
    const { requests, attempts, memory } = this.#opened
    const abort = this.#aborts.get(snapshot) ?? new AbortController()
    this.#aborts.set(snapshot, abort)
    return await putBlock(requests, attempts, { snapshot, index, bytes: blockAt(memory, slot) }, abort.signal)
  }

  abandon({ snapshot }: { readonly snapshot: string }): Promise<void> {
    this.#aborts.get(snapshot)?.abort(new Failure('CLOSING', 'the snapshot is not written any further'))
    this.#aborts.delete(snapshot)
    return Promise.resolve()
  }

  async close(): Promise<void> {
    for (const snapshot of [...this.#aborts.keys()]) await this.abandon({ snapshot })
    this.#opened?.client.destroy()
  }
}
