import { EventEmitter } from 'node:events'
import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { vpgId } from '../../src/base/ids.ts'
import { hashImageIdleMillis, hashImagesOpenMax, hashImageTurnMillis } from '../../src/base/limits.ts'
import { Hashes, type HashesParts } from '../../src/daemon/hashes.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'
import type { HashRequest } from '../../src/wire/messages.ts'

const vpg = vpgId('5a'.repeat(16))
const request: HashRequest = {
  type: 'hash-request',
  ...{ requestId: 1, volume: 1, offsetBytes: 0, blockSizeBytes: 4096, blockCount: 1 },
}

/** Aging and the image thread as lists of what they were asked. */
function parts(answer: () => Promise<Uint8Array>, noteCompared: () => Promise<boolean> = async () => false) {
  const clock = new ManualClock()
  const steps: string[] = []
  let planCount = 0
  const call = async (method: string): Promise<unknown> => {
    steps.push(method)
    return method === 'hashBlocks' ? answer() : undefined
  }
  const thread = { worker: new EventEmitter(), client: { call } }
  const aging = {
    openReading: async () => ({ pinId: `plan${++planCount}` }),
    closeImage: async ({ pinId }: { pinId: string }) => void steps.push(`close ${pinId}`),
  }
  const made = {
    clock,
    aging: { ...aging, noteCompared },
    images: () => ({ openThread: async () => thread }),
  } as unknown as HashesParts
  return { clock, steps, hashes: new Hashes(made) }
}

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
}

t.test('an image is opened once a session, and given back at its end', async t => {
  const { steps, hashes } = parts(async () => Buffer.alloc(16, 7))
  const open = hashes.open(vpg, () => [])
  t.same(steps, [], 'not before somebody asks')
  t.same(await open.hashesOf(request), Buffer.alloc(16, 7))
  await open.hashesOf(request)
  t.same(steps, ['openHashes', 'hashBlocks', 'hashBlocks'])
  open.close()
  await settled()
  t.same(steps.slice(3), ['closeHashes', 'close plan1'])
  await t.rejects(
    hashes
      .open(vpg, () => [])
      .hashesOf(request)
      .then(() => Promise.reject(new Failure('BUSY', 'it works'))),
    {
      message: 'it works',
    },
  )
})

t.test('damage is told and costs its blocks only; an image that is lost is opened anew', async t => {
  const failures: Error[] = [new Failure('OBJECT_CORRUPT', 'damaged'), new Error('the thread has ended')]
  const { steps, hashes } = parts(async () => {
    const failure = failures.shift()
    if (failure !== undefined) throw failure
    return Buffer.alloc(16, 7)
  })
  const open = hashes.open(vpg, () => [])
  await t.rejects(open.hashesOf(request), { code: 'OBJECT_CORRUPT' })
  await t.rejects(open.hashesOf(request), { code: 'PEER_LOST' })
  await settled()
  t.ok(steps.includes('close plan1'), 'what was held is given back')
  t.same(await open.hashesOf(request), Buffer.alloc(16, 7))
  t.equal(steps.filter(step => step === 'openHashes').length, 2)
  open.close()
})

t.test('where it cannot be noted what is compared the question fails, and nothing else', async t => {
  let hasEnded = true
  const { steps, hashes } = parts(
    async () => Buffer.alloc(16, 7),
    async () => {
      if (hasEnded) throw new Error('a bug there')
      return true
    },
  )
  const open = hashes.open(vpg, () => [])
  await t.rejects(open.hashesOf(request), { code: 'PEER_LOST' })
  t.same(steps, [])
  hasEnded = false
  t.same(await open.hashesOf(request), Buffer.alloc(16, 7))
  open.close()
})

t.test('so many images are open at once; further sessions wait for one to end', async t => {
  const { steps, hashes } = parts(async () => Buffer.alloc(16))
  const open = Array.from({ length: hashImagesOpenMax }, () => hashes.open(vpg, () => []))
  for (const each of open) await each.hashesOf(request)
  const waiting = hashes.open(vpg, () => [])
  const answered = waiting.hashesOf(request)
  await settled()
  t.equal(steps.filter(step => step === 'openHashes').length, hashImagesOpenMax)
  open[0]?.close()
  t.same(await answered, Buffer.alloc(16))
  for (const each of [...open, waiting]) each.close()
})

t.test(
  'an image that nobody asks is closed, and its place goes to those that wait; the next question opens another',
  async t => {
    const { clock, steps, hashes } = parts(async () => Buffer.alloc(16))
    const stalled = Array.from({ length: hashImagesOpenMax }, () => hashes.open(vpg, () => []))
    for (const each of stalled) await each.hashesOf(request)
    const waiting = hashes.open(vpg, () => [])
    const answered = waiting.hashesOf(request)
    await settled()
    t.notOk(steps.includes('closeHashes'))
    await clock.advance(hashImageIdleMillis)
    await settled()
    t.same(await answered, Buffer.alloc(16), 'though no session has ended')
    t.ok(steps.filter(step => step === 'closeHashes').length >= hashImagesOpenMax)
    t.same(await stalled[0]?.hashesOf(request), Buffer.alloc(16))
    for (const each of [...stalled, waiting]) each.close()
  },
)

t.test('while others wait nobody has more than a turn, however busy', async t => {
  const { clock, hashes } = parts(async () => Buffer.alloc(16))
  const busy = Array.from({ length: hashImagesOpenMax }, () => hashes.open(vpg, () => []))
  for (const each of busy) await each.hashesOf(request)
  let isAnswered = false
  const waiting = hashes.open(vpg, () => [])
  const answered = waiting.hashesOf(request).then(() => (isAnswered = true))
  const stepMillis = hashImageIdleMillis / 2
  for (let millis = 0; millis < hashImageTurnMillis; millis += stepMillis) {
    t.notOk(isAnswered, 'within the turn of those before')
    await clock.advance(stepMillis)
    for (const each of busy) await each.hashesOf(request)
    await settled()
  }
  await answered
  for (const each of [...busy, waiting]) each.close()
})

t.test(
  'hashes are told of a volume when nothing is put below it any more, and of an image that was opened then',
  async t => {
    const order: string[] = []
    const { steps, hashes } = parts(
      async () => Buffer.alloc(16),
      async () => order.push('noted') < 2,
    )
    const open = hashes.open(vpg, () => [])
    await open.hashesOf(request)
    await open.hashesOf(request)
    t.same(order, ['noted'], 'once a volume')
    await open.hashesOf({ ...request, volume: 2 })
    await settled()
    t.equal(steps.filter(step => step === 'openHashes').length, 2, 'the image of before may lack it')
    await open.hashesOf({ ...request, volume: 3 })
    await settled()
    const openedCount = steps.filter(step => step === 'openHashes').length
    t.equal(openedCount, 3, 'one that says it was noted before, too: by a question that was given up waiting')
    open.close()
    const busy = parts(
      async () => Buffer.alloc(16),
      () => Promise.reject(new Failure('BUSY', 'an image is being read')),
    )
    await t.rejects(busy.hashes.open(vpg, () => []).hashesOf(request), { code: 'BUSY' })
    t.same(busy.steps, [], 'nothing is opened for it')
  },
)
