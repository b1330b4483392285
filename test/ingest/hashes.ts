import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import type { PositionVector } from '../../src/base/ids.ts'
import { hashRequestsOpenMax } from '../../src/base/limits.ts'
import type { BlockHashes } from '../../src/ingest/hash-answers.ts'
import type { HashRequest } from '../../src/wire/messages.ts'
import { batchAt, openBench, TestPeer, until, volumeSizeBytes } from '../support/wire-ingest.ts'
import { position } from '../support/wire-samples.ts'

/** Hashes that the test answers when it wants to. */
class ManualHashes implements BlockHashes {
  readonly opened: PositionVector[] = []
  readonly asked: { request: HashRequest; resolve(hashes: Uint8Array): void; reject(error: Error): void }[] = []
  closedCount = 0

  open(_vpg: string, positions: () => PositionVector) {
    this.opened.push(positions())
    return {
      hashesOf: (request: HashRequest) =>
        new Promise<Uint8Array>((resolve, reject) => this.asked.push({ request, resolve, reject })),
      close: () => void this.closedCount++,
    }
  }
}

function ask(requestId: number, changes: Partial<HashRequest> = {}): HashRequest {
  return { type: 'hash-request', requestId, volume: 1, offsetBytes: 0, blockSizeBytes: 4096, blockCount: 2, ...changes }
}

const replies = (peer: TestPeer) => peer.received.filter(message => message.type === 'hash-reply')

t.test('questions are answered in their order, as of what was durable at the first', async t => {
  const hashes = new ManualHashes()
  const bench = await openBench(t, { automatic: true, hashes })
  const first = await TestPeer.open(bench)
  first.sendBytes(batchAt(1, 3))
  await until('an Ack', () => first.acked === 3)
  const changes = { openGeneration: 2, resumableFrom: position(2, 0), lastNumbered: position(2, 0) }
  const peer = await TestPeer.open(bench, changes)
  peer.send(ask(1))
  peer.send(ask(2, { offsetBytes: 8192 }))
  await until('the first is asked', () => hashes.asked.length === 1)
  t.same(hashes.opened, [[{ stream: 1, generation: 1, sequence: 3 }]], 'records, not a generation without any')
  hashes.asked[0]?.resolve(new Uint8Array(32).fill(7))
  await until('the second is asked', () => hashes.asked.length === 2)
  hashes.asked[1]?.reject(new Failure('OBJECT_CORRUPT', 'the pack is damaged'))
  await until('both are answered', () => replies(peer).length === 2)
  t.match(replies(peer), [
    { requestId: 1, failure: '' },
    { requestId: 2, failure: 'the pack is damaged', passing: false },
  ])
  t.same(Buffer.from(replies(peer)[0]?.hashes ?? []), Buffer.alloc(32, 7))
  peer.send(ask(3))
  await until('the third is asked', () => hashes.asked.length === 3)
  peer.socket.destroy()
  await until('what was held is given back', () => hashes.closedCount === 1)
  hashes.asked[2]?.reject(new Failure('CLOSING', 'nobody waits'))
  t.equal(hashes.opened.length, 1, 'one image a session')
})

t.test('when the synchronisation is over what was held is given back, though the session goes on', async t => {
  const hashes = new ManualHashes()
  const bench = await openBench(t, { automatic: true, hashes })
  const peer = await TestPeer.open(bench, {
    openGeneration: 2,
    resumableFrom: position(2, 0),
    lastNumbered: position(2, 0),
    volumes: [{ name: 'root', sizeBytes: volumeSizeBytes, sync: 'delta' }],
  })
  const say = (sync: 'none' | 'delta'): void => {
    const sizes = { syncTotalBytes: 0, syncDoneBytes: 0, syncSentBytes: 0, dirtyBytes: 0 }
    const volume = { number: 1, needsSync: sync !== 'none', reason: '', sinceTimestampMicros: 0, sync, ...sizes }
    peer.send({
      type: 'agent-status',
      queuedBytes: 0,
      queuedRecords: 0,
      noCheckpointsBecause: '',
      quiescedBy: '',
      volumes: [volume],
    })
  }
  peer.send(ask(1))
  say('none')
  await until('it is asked', () => hashes.asked.length === 1)
  hashes.asked[0]?.resolve(new Uint8Array(32))
  await until('the question that was open is answered all the same', () => replies(peer).length === 1)
  say('none')
  await until('what was held is given back', () => hashes.closedCount === 1)
  peer.send(ask(2))
  await until('a later question is answered from another image', () => hashes.opened.length === 2)
})

t.test('a question that may not be asked ends the session', async t => {
  const refused = async (...requests: HashRequest[]): Promise<string | undefined> => {
    const bench = await openBench(t, { automatic: true, hashes: new ManualHashes() })
    const peer = await TestPeer.open(bench)
    for (const request of requests) peer.send(request)
    return peer.refusal()
  }
  t.equal(await refused(ask(1, { volume: 2 })), 'UNKNOWN_VOLUME')
  t.equal(await refused(ask(1, { offsetBytes: volumeSizeBytes })), 'OUT_OF_BOUNDS')
  t.equal(await refused(ask(1, { offsetBytes: volumeSizeBytes - 4096, blockCount: 2 })), 'OUT_OF_BOUNDS')
  t.equal(await refused(ask(2), ask(2)), 'FRAME_INVALID', 'the same id again')
  const many = Array.from({ length: hashRequestsOpenMax + 1 }, (_, index) => ask(index + 1))
  t.equal(await refused(...many), 'FRAME_INVALID', 'too many at once')
})
