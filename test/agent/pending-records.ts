import t from 'tap'
import { PendingRecords, type Loan } from '../../src/agent/pending-records.ts'
import { KiB, MiB } from '../../src/base/units.ts'
import type { Pieces } from '../../src/agent/sealing/pieces.ts'
import { frameOf } from '../../src/agent/sealing/sealer.ts'
import { BatchBuilder, decodeFrame } from '../../src/wire/wire.ts'

/** All are in use. */
const noPieces: Pieces = { leftCount: 0, take: () => undefined, give: () => undefined }

// Data that is lent to the records is read where it lies, until it is given back; other data may change as soon as it has its number.

function changeAt(offsetBytes: number, data: Uint8Array | undefined, lengthBytes = data?.length ?? 0) {
  return { offsetBytes, lengthBytes, data }
}

function lent(giveBack: () => void): Loan {
  return { isPiece: false, giveBack }
}

/** Makes a frame of the first records. */
function sealFirst(records: PendingRecords): Buffer {
  const taken = records.takeFirst()
  if (taken.kind !== 'writes') throw new Error('a marker')
  const frame = frameOf(new BatchBuilder(), { generation: 1, isHurried: false, ...taken })
  taken.release()
  return frame
}

/** A byte of each write of a frame whose data is stored as it is. */
function storedBytes(frame: Buffer): number[] {
  const batch = decodeFrame(frame)
  t.equal(batch.type, 'write-batch')
  if (batch.type !== 'write-batch') return []
  t.equal(batch.payload.length, batch.rawSizeBytes, 'too little to be compressed')
  const found: number[] = []
  for (let index = 0, at = 0; index < batch.writeCount; index++) {
    if (batch.isZero(index)) continue
    found.push(batch.payload[at] ?? -1)
    at += batch.lengthBytes(index)
  }
  return found
}

/** Incompressible, with a first byte that tells whose it is. */
function noise(first: number, sizeBytes: number): Buffer {
  const data = Buffer.alloc(sizeBytes)
  for (let at = 0, state = first + 1; at < sizeBytes; at++) {
    state = (state * 48_271) % 2_147_483_647
    data[at] = state >>> 8
  }
  data[0] = first
  return data
}

void t.test('data is copied when it gets its number', t => {
  const records = new PendingRecords(noPieces)
  const data = noise(1, 4 * KiB)
  records.addChanges(1, 1, [changeAt(0, data)], 1, undefined)
  data[0] = 9
  t.same(storedBytes(sealFirst(records)), [1])
  t.end()
})

void t.test('lent data is given back once, when the last of it is in a frame', t => {
  const records = new PendingRecords(noPieces)
  let givenBackCount = 0
  const memory = noise(1, 512 * KiB)
  memory[256 * KiB] = 2
  const changes = [
    changeAt(0, memory.subarray(0, 256 * KiB)),
    changeAt(256 * KiB, undefined, 256 * KiB),
    changeAt(512 * KiB, memory.subarray(256 * KiB)),
  ]
  const count = records.addChanges(
    1,
    1,
    changes,
    1,
    lent(() => givenBackCount++),
  )
  t.equal(count, 3)
  memory[0] = 7
  t.same(storedBytes(sealFirst(records)), [7], 'no copy was made')
  t.equal(givenBackCount, 0)
  t.same(storedBytes(sealFirst(records)), [2])
  t.equal(givenBackCount, 1)
  t.ok(records.isEmpty)
  t.end()
})

void t.test('what is copied keeps its place between what is lent', t => {
  const records = new PendingRecords(noPieces)
  const order: string[] = []
  records.addChanges(1, 1, [changeAt(0, noise(1, 4 * KiB))], 1, undefined)
  records.addChanges(
    2,
    1,
    [changeAt(8 * KiB, noise(2, 8 * KiB))],
    1,
    lent(() => order.push('second')),
  )
  records.addChanges(3, 1, [changeAt(16 * KiB, noise(3, 4 * KiB))], 1, undefined)
  records.addChanges(
    4,
    1,
    [changeAt(32 * KiB, noise(4, 8 * KiB))],
    1,
    lent(() => order.push('fourth')),
  )
  records.addChanges(5, 1, [changeAt(64 * KiB, noise(5, 4 * KiB))], 1, undefined)
  const sealed = sealFirst(records)
  t.same(storedBytes(sealed), [1, 2, 3, 4, 5])
  t.same(order, ['second', 'fourth'])
  records.addChanges(
    6,
    1,
    [changeAt(0, noise(6, 1 * MiB))],
    1,
    lent(() => order.push('sixth')),
  )
  records.addChanges(8, 1, [changeAt(0, noise(8, 4 * KiB))], 1, undefined)
  while (!records.isEmpty) sealFirst(records)
  t.same(order, ['second', 'fourth', 'sixth'])
  t.equal(records.bytes, 0)
  t.end()
})

void t.test('lent data comes back when nothing of it is to be sent', t => {
  const records = new PendingRecords(noPieces)
  const order: string[] = []
  records.addChanges(
    1,
    1,
    [changeAt(0, undefined, 1 * MiB)],
    1,
    lent(() => order.push('zeros')),
  )
  t.same(order, ['zeros'], 'at once')
  records.addChanges(
    2,
    1,
    [changeAt(0, noise(1, 64 * KiB))],
    1,
    lent(() => order.push('cleared')),
  )
  records.clear()
  t.same(order, ['zeros', 'cleared'])
  t.ok(records.isEmpty)
  t.end()
})
