import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { systemClock } from '../base/clock.ts'
import { realDisk } from '../disk/disk.ts'
import type { PreparerOptions, ToPreparer } from './commit-messages.ts'
import { Preparer } from './preparer.ts'

// The thread that makes log files ready, so that zeroing 64 MiB delays nobody.

const port = parentPort
assert(port !== null, 'this file is the entry of a worker thread')
const preparer = new Preparer(workerData as PreparerOptions, {
  disk: realDisk,
  clock: systemClock,
  say: message => port.postMessage(message),
})

port.on('message', (message: ToPreparer) => {
  preparer.take(message)
  if (message.type === 'close') port.close()
})
