import { parentPort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { standBehind } from '../base/priority.ts'
import { serveLive } from './live-server.ts'

// The live thread: a LiveServer at the other end of the parent's port. Protection comes first when both want the processor.

assert(parentPort !== null, 'this file is the start of a worker thread')
const port = parentPort
standBehind()
serveLive(port, { onClosed: () => setImmediate(() => port.close()) }) // after the answer to that call
