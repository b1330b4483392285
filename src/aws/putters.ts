import { Worker } from 'node:worker_threads'
import type { Clock } from '../base/clock.ts'
import { threadYoungSizeMiBMax } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { RpcClient } from '../base/rpc.ts'
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

/** In threads of their own, in turn: one event loop does some 600 blocks a second, less than EBS takes. */
export async function putInThreads(aws: AwsConfig, memory: SharedArrayBuffer): Promise<Putters> {
  const threads = Array.from({ length: aws.putThreads }, () => {
    const worker = new Worker(new URL('./put-worker.js', import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: threadYoungSizeMiBMax },
    })
    worker.on('error', () => undefined) // its calls fail PEER_LOST
    return { worker, client: new RpcClient<PutService>(worker) }
  })
  await Promise.all(threads.map(({ client }) => client.call('open', { aws, memory })))
  const permits = new Permits(aws.putsAtOnceMax)
  let next = 0
  return {
    put: block => {
      const thread = threads[next++ % threads.length]!
      return permits.with(() => thread.client.call('put', block))
    },
    abandon: async snapshot => {
      await Promise.allSettled(threads.map(({ client }) => client.call('abandon', { snapshot })))
    },
    close: async () => {
      await Promise.allSettled(threads.map(({ client }) => client.call('close', undefined)))
      await Promise.all(threads.map(({ worker }) => worker.terminate()))
    },
  }
}
