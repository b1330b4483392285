import { setTimeout as pause } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { endThread } from '../../src/base/threads.ts'
import { below, seededRandom } from './wire-samples.ts'

// A process that ends threads at any moment of their beginning, and ends itself in the middle of some: `ending-threads.js SEED MILLIS`, where threads begin within so long.

const random = seededRandom(Number(process.argv[2]))
const beginMillisMax = Number(process.argv[3])
const start = (): Worker => new Worker(new URL('./summing-thread.js', import.meta.url))

const ends = Array.from({ length: 12 }, async () => {
  const worker = start()
  await pause(below(random, beginMillisMax))
  await endThread(worker)
})
await Promise.all(ends)
for (let count = 0; count < 6; count++) start().unref()
await pause(below(random, beginMillisMax))
console.log('it ends in order')
process.exit()
