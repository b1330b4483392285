import { parentPort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { standBehind } from '../base/priority.ts'
import { serveRpc } from '../base/rpc.ts'
import { PutServer } from './put-server.ts'
import type { PutService } from './put-service.ts'

// A thread that puts blocks: a PutServer at the other end of the aws thread's port. Protection comes first when both want the processor.

assert(parentPort !== null, 'this file is the start of a worker thread')
const port = parentPort
standBehind()
const server = new PutServer()
serveRpc<PutService>(port, {
  open: argument => server.open(argument),
  put: argument => server.put(argument),
  abandon: argument => server.abandon(argument),
  close: async () => {
    await server.close()
    setImmediate(() => port.close()) // after the answer to this call
  },
})
