import { parentPort, workerData, type MessagePort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { standBehind } from '../base/priority.ts'
import { RpcClient, serveRpc } from '../base/rpc.ts'
import { AwsServer } from './aws-server.ts'
import type { AwsAsks, AwsService } from './service.ts'

// The aws thread: an AwsServer at the other end of the parent's port; what it asks back goes by a port of its own.

assert(parentPort !== null, 'this file is the start of a worker thread')
const port = parentPort
standBehind()
const { asks } = workerData as { readonly asks: MessagePort }
const server = new AwsServer(new RpcClient<AwsAsks>(asks), (name, notice) => notify(name, notice))
const notify = serveRpc<AwsService>(port, {
  open: argument => server.open(argument),
  plan: argument => server.plan(argument),
  carryOut: argument => server.carryOut(argument),
  advance: argument => server.advance(argument),
  removeChains: argument => server.removeChains(argument),
  cancel: argument => server.cancel(argument),
  close: async () => {
    await server.close()
    asks.close()
    setImmediate(() => port.close()) // after the answer to this call
  },
})
