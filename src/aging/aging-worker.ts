import { parentPort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { systemClock } from '../base/clock.ts'
import { standBehind } from '../base/priority.ts'
import { serveRpc, type RpcMethods } from '../base/rpc.ts'
import { MirrorWorker } from './mirror-worker.ts'
import type { AgingService, LogMark } from './service.ts'

// The thread's entry: the service over the port to the daemon's thread.

const port = parentPort
assert(port !== null, 'aging-worker runs as a thread')
standBehind()
const worker = new MirrorWorker(systemClock, (name, value) => notify(name, value))
const notify = serveRpc<AgingService>(port, worker satisfies RpcMethods<AgingService>)

port.on('message', (message: { readonly type: string; readonly name?: string; readonly value?: unknown }) => {
  if (message.type === 'notice' && message.name === 'durable') worker.durable(message.value as LogMark)
})
