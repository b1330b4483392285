import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { vpgId } from '../../src/base/ids.ts'
import { StoreRequests } from '../../src/aging/store-requests.ts'
import { MemoryStore } from '../support/mirror-memory-store.ts'

const vpg = vpgId('00112233445566778899aabbccddeeff')
const never = new AbortController().signal

t.test('puts are counted by VPG and by form, reads and pages of listings by VPG', async t => {
  const requests = new StoreRequests(systemClock)
  const store = requests.counting(new MemoryStore())
  const segment = Buffer.from('VRAS, and more')
  await store.create(`vpg/${vpg}`, Buffer.alloc(7), never)
  await store.create(`${vpg}/commit/0000000000000001`, Buffer.from('VRAM'), never)
  await store.create(`${vpg}/commit/0000000000000002`, segment, never)
  await store.create(`${vpg}/delta/1-a`, Buffer.alloc(100), never)
  await store.create(`${vpg}/base/1-b`, Buffer.alloc(200), never)
  await t.rejects(store.create(`${vpg}/base/1-b`, Buffer.alloc(200), never), { code: 'ALREADY_EXISTS' })
  await store.create(`${vpg}/page/1-c`, Buffer.alloc(10), never)
  await store.readRange(`${vpg}/delta/1-a`, { startBytes: 10, endBytes: 30 }, never)
  for await (const _ of store.list(`${vpg}/commit/`, undefined, never));
  for await (const _ of store.list(`${vpg}/nothing/`, undefined, never));
  requests.addRaw(vpg, 5000)
  t.match(requests.factsOf(vpg), {
    puts: {
      segments: { count: 1, sizeBytes: segment.length },
      deltas: { count: 1, sizeBytes: 100 },
      base: { count: 2, sizeBytes: 400 },
      manifests: { count: 3, sizeBytes: 7 + 4 + 10 },
    },
    gets: { count: 1, sizeBytes: 20 },
    listCount: 2,
    rawSizeBytes: 5000,
  })
  requests.forget(vpg)
  t.equal(requests.factsOf(vpg).puts.base.count, 0)
})
