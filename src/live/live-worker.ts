import { parentPort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { standBehind } from '../base/priority.ts'
import { serveRpc } from '../base/rpc.ts'
import { LiveServer } from './live-server.ts'
import type { LiveService } from './service.ts'

// The live thread: a LiveServer at the other end of the parent's port. Protection comes first when both want the processor.

assert(parentPort !== null, 'this file is the start of a worker thread')
const port = parentPort
standBehind()
const server = new LiveServer((name, value) => notify(name, value))
const notify = serveRpc<LiveService>(port, {
  open: config => server.open(config),
  listen: () => server.listen(),
  attach: argument => server.attach(argument),
  replan: argument => server.replan(argument),
  detach: argument => server.detach(argument),
  keep: argument => server.keep(argument),
  cancelKeep: argument => server.cancelKeep(argument),
  discard: argument => server.discard(argument),
  status: () => server.status(),
  changedExtents: argument => server.changedExtents(argument),
  close: async () => {
    await server.close()
    setImmediate(() => port.close()) // after the answer to this call
  },
})
