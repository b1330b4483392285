import t from 'tap'
import { KiB } from '../../src/base/units.ts'
import { GrowingBuffer, verifyPack } from '../../src/mirror/mirror.ts'
import { PackWriter } from '../../src/mirror/pack-writer.ts'
import { newVpgId } from '../../src/base/ids.ts'
import { testRegionSizeBytes } from '../support/mirror-timeline.ts'
import { MemoryStore } from '../support/mirror-memory-store.ts'

const { signal } = new AbortController()
const identity = { kind: 'delta', volume: 1, vpg: newVpgId(), key: 'pack', epoch: 1, fromOrdinal: 0 } as const

t.test('what a multiple of 64 KiB divides is in order with what an older checkpoint has from there on', async t => {
  const writer = new PackWriter(new GrowingBuffer())
  const unitSectors = 128
  writer.begin({ ...identity, toOrdinal: 2, regionSizeBytes: testRegionSizeBytes }, [1, 2], {
    rawSizeBytes: 128 * KiB,
    extentCount: 4,
  })
  writer.add(unitSectors - 8, 2, new Uint8Array(16 * 512).fill(2))
  writer.add(unitSectors, 1, new Uint8Array(8 * 512).fill(1))
  const { bytes, ref } = writer.finish()
  const store = new MemoryStore()
  await store.create(identity.key, bytes)
  t.equal(ref.extentCount, 3)
  t.strictSame((await verifyPack(store, ref.object, signal)).faults, [])
})
