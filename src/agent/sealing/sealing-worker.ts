import { parentPort } from 'node:worker_threads'
import { assert } from '../../base/assert.ts'
import { prepareCrc32c } from '../../codec/crc32c.ts'
import { BatchBuilder } from '../../wire/batch-builder.ts'
import { fromMessage } from './batch-message.ts'
import { frameOf } from './sealer.ts'
import type { FromSealingWorker, ToSealingWorker } from './sealing-thread.ts'

// The thread that seals batches, one after another; see sealer.ts.

const port = parentPort
assert(port !== null, 'this file is the entry of a worker thread')
const builder = new BatchBuilder()
const say = (message: FromSealingWorker): void => port.postMessage(message)

port.on('message', (message: ToSealingWorker) => {
  const frame = frameOf(builder, fromMessage(message.batch), sizeBytes => Buffer.from(message.piece, 0, sizeBytes))
  say({ type: 'sealed', job: message.job, sizeBytes: frame.length })
})
prepareCrc32c()
say({ type: 'born' })
