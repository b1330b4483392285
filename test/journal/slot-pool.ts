import t from 'tap'
import { frameSizeBytesMax } from '../../src/base/limits.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import { type PoolSlot, SlotPool } from '../../src/journal/slot-pool.ts'
import { Random } from '../support/journal-random.ts'

t.test('slots never overlap, whatever is reserved and released, and all memory comes back', async t => {
  const random = new Random(11)
  const pool = new SlotPool(8 * MiB)
  const held: PoolSlot[] = []
  const sizes = [1, 4 * KiB, 64 * KiB, 300 * KiB, frameSizeBytesMax]
  for (let step = 0; step < 5_000; step++) {
    const slot = random.chance(0.55) ? pool.reserve(random.integer(1, sizes[random.integer(0, 4)] ?? 1)) : undefined
    if (slot !== undefined) {
      const clash = held.find(
        other =>
          slot.offsetBytes < other.offsetBytes + other.record.length &&
          other.offsetBytes < slot.offsetBytes + slot.record.length,
      )
      if (clash !== undefined) return t.fail(`step ${step}, seed 11: ${slot.offsetBytes} is taken`)
      held.push(slot)
    } else {
      const [released] = held.splice(random.integer(0, held.length - 1), 1)
      if (released !== undefined) pool.release(released)
    }
  }
  for (const slot of held) pool.release(slot)
  t.equal(pool.freeBytes(), 8 * MiB)
  const largest = Array.from({ length: 7 }, () => pool.reserve(frameSizeBytesMax))
  t.notOk(largest.includes(undefined), 'nothing stays in pieces')
})

t.test('a slot has room for the header in front of its frame, and zeros behind it', async t => {
  const slot = new SlotPool(2 * MiB).reserve(1001)
  t.equal(slot?.frame.length, 1001)
  t.equal(slot?.record.length, 1136)
  t.equal(slot?.frame.byteOffset, (slot?.record.byteOffset ?? 0) + 128)
  t.ok(slot?.record.subarray(128 + 1001).every(byte => byte === 0))
})

t.test('who asked first for room is served first, however small the others are', async t => {
  const pool = new SlotPool(2 * MiB)
  const taken = [pool.reserve(MiB), pool.reserve(900 * KiB)]
  const served: string[] = []
  pool.whenRoom(MiB, () => {
    served.push('large')
    t.ok(pool.reserve(MiB))
  })
  pool.whenRoom(4 * KiB, () => void served.push('small'))
  t.strictSame(served, [], 'the small one fits, but came later')
  t.equal(pool.reserve(4 * KiB), undefined, 'and nobody overtakes who waits')
  for (const slot of taken) if (slot !== undefined) pool.release(slot)
  pool.serveWaiting()
  t.strictSame(served, ['large', 'small'])
})
