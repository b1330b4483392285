import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { putInThreads, type Putters } from '../../src/aws/putters.ts'
import { AwsWorld, Model } from '../support/aws-world.ts'

// Threads that are like put-worker's to whoever calls them, and die at a block's index that says so.

const thread = `
const { parentPort } = require('node:worker_threads')
parentPort.on('message', ({ id, method, argument }) => {
  if (method === 'open' && argument.aws.putsPerSecondMax === 13) process.exit(3)
  if (method === 'put' && argument.index >= 100) throw new Error('out of memory, say')
  parentPort.postMessage({ type: 'reply', id, value: method === 'put' ? new Uint8Array([argument.index]) : undefined })
  if (method === 'close') parentPort.close()
})`

async function open(
  t: Test,
  putsPerSecondMax: number,
): Promise<{ putters: Promise<Putters>; said: string[]; begun(): number }> {
  const world = await AwsWorld.start(new Model({ 1: 512 }), {})
  t.teardown(() => world.close())
  const said: string[] = []
  let begunCount = 0
  const start = (): Worker => {
    begunCount++
    return new Worker(thread, { eval: true })
  }
  const aws = world.config({ putThreads: 2, putsAtOnceMax: 4, putsPerSecondMax })
  const putters = putInThreads(aws, new SharedArrayBuffer(0), sentence => said.push(sentence), start)
  return { putters, said, begun: () => begunCount }
}

const block = (index: number) => ({ snapshot: 'snap-1', index, slot: 0 })

t.test('a thread that dies is replaced, what it had fails to be made again, and it is told', async t => {
  const { putters, said, begun } = await open(t, 1000)
  const opened = await putters
  t.strictSame([...(await opened.put(block(1)))], [1])
  for (let death = 1; death <= 8; death++) {
    await t.rejects(opened.put(block(100)), { code: 'PEER_LOST' })
    for (const index of [2, 3, 4, 5]) t.strictSame([...(await opened.put(block(index)))], [index], `after ${death}`)
    t.equal(said.length, death)
    t.match(said.at(-1), /has died \(out of memory, say\); another takes its place/)
  }
  t.equal(begun(), 2 + 8)
  await opened.close()
})

t.test('threads that die again and again are not begun for ever', async t => {
  const { putters, said, begun } = await open(t, 1000)
  const opened = await putters
  for (let death = 1; death <= 10; death++) await t.rejects(opened.put(block(100)), { code: 'PEER_LOST' })
  await t.rejects(opened.put(block(1)), { code: 'CLOUD_REFUSED', message: /start the daemon again/ })
  t.match(said.at(-1), /none takes its place/)
  t.equal(begun(), 2 + 2 * 4)
  await opened.close()
})

t.test('threads that cannot be begun at all fail the start', async t => {
  const { putters } = await open(t, 13)
  await t.rejects(putters, { code: 'PEER_LOST' })
})
