import t from 'tap'
import { GiB, MiB, TiB } from '../../src/base/units.ts'
import { Bitmap } from '../../src/agent/bitmap.ts'
import { DirtyMap } from '../../src/agent/dirty-map.ts'
import { fileSizeBytesOf, regionSizeBytesFor } from '../../src/agent/dirty-map-format.ts'
import { FaultyDisk, PowerCut } from '../support/faulty-disk.ts'
import { faultyVolumeFiles } from '../support/agent-faulty-files.ts'
import { Random } from '../support/journal-random.ts'

// Invariants: a region is marked on the medium before a write to it may be submitted, whatever operation the power goes at; it stays
// so until all is offloaded and the local disk is synced; damage widens what is sent, and is counted.

const sizeBytes = 5000 * MiB
const mapFile = '/var/agent/a.map'

function openMap(disk: FaultyDisk): DirtyMap | undefined {
  return DirtyMap.open(disk, faultyVolumeFiles(disk), mapFile, sizeBytes)
}

function createMap(disk: FaultyDisk): DirtyMap {
  return DirtyMap.create(disk, faultyVolumeFiles(disk), mapFile, { sizeBytes, identity: 7, pending: 'nothing' })
}

t.test('a bitmap is a set', async t => {
  const random = new Random(5)
  const [bits, model] = [new Bitmap(1001), new Set<number>()]
  for (let step = 0; step < 5000; step++) {
    const index = random.integer(0, 1000)
    if (random.chance(0.5)) {
      bits.add(index)
      model.add(index)
    } else {
      bits.delete(index)
      model.delete(index)
    }
  }
  t.equal(bits.count, model.size)
  t.same(
    [...bits],
    [...model].sort((a, b) => a - b),
  )
})

t.test('a map of the largest volume is small', async t => {
  t.equal(regionSizeBytesFor(4 * TiB), 1 * MiB)
  t.equal(regionSizeBytesFor(64 * TiB), 16 * MiB)
  const header = {
    identity: 1,
    regionSizeBytes: 16 * MiB,
    volumeSizeBytes: 64 * TiB,
    cleared: { generation: 0, sequence: 0 },
  }
  t.ok(fileSizeBytesOf(header) < 1.1 * MiB)
  t.equal(regionSizeBytesFor(1 * GiB), 1 * MiB)
})

t.test('writes into new regions share a sync, writes into marked ones cost nothing', async t => {
  const disk = new FaultyDisk()
  const map = createMap(disk)
  map.attach()
  const before = disk.operationCount
  const marks = Array.from({ length: 100 }, (_, index) => map.begin(index * 40 * MiB, 4096))
  await Promise.all(marks.map(mark => mark.durable))
  t.ok(disk.operationCount - before <= 4, `${disk.operationCount - before} operations: the pages and one sync`)
  const after = disk.operationCount
  t.equal(map.begin(40 * MiB + 8192, 4096).durable, undefined)
  t.equal(disk.operationCount, after)
})

t.test(
  'writes that go from region to region find the next ones marked, which a kill sends and an outage does not',
  async t => {
    const disk = new FaultyDisk()
    const map = createMap(disk)
    map.attach()
    const first = map.begin(100 * MiB, 4096)
    await first.durable
    t.equal(map.begin(103 * MiB, 4096).durable, undefined, 'neighbours share a mark')
    let waitCount = 0
    for (let region = 104; region < 1104; region++) {
      const mark = map.begin(region * MiB, 4096)
      if (mark.durable !== undefined) waitCount++
      await mark.durable
      await map.flush() // what was begun for those ahead is over
      map.end(mark)
    }
    t.ok(waitCount <= 3, `${waitCount} of 1000 writes waited for a mark`)
    const killed = openMap(disk.crash(new Random(1)))!
    killed.repeat()
    for (const region of [100, 104, 1103, 1104]) t.ok(killed.isPending(region), `region ${region} after a kill`)
    t.ok(killed.pendingCount <= 1004 + 16 + 3, `${killed.pendingCount} after a kill`)
    map.detach()
    t.equal(map.pendingCount, 1002, 'after an outage only what was written')
    t.notOk(map.isPending(1104))
  },
)

t.test('marks ahead go with those that are taken back, and at a clean stop', async t => {
  const disk = new FaultyDisk()
  const map = createMap(disk)
  map.attach()
  const mark = map.begin(100 * MiB, 4096)
  await mark.durable
  map.end(mark)
  t.equal(map.dirtyBytes, 4 * MiB)
  map.rotate()
  await map.clearOld({ generation: 1, sequence: 5 })
  t.equal(map.dirtyBytes, 0)
  t.equal(openMap(disk.crash(new Random(1)))?.dirtyBytes, 0)
  t.type(map.begin(101 * MiB, 4096).durable, Promise, 'they are not believed any more')
  await map.close()
  t.equal(openMap(disk)?.dirtyBytes, MiB)
})

t.test('whatever operation the power goes at, a submitted write is marked and nothing offloaded has to be', async t => {
  for (let operation = 1; ; operation++) {
    const random = new Random(operation)
    const disk = new FaultyDisk()
    const map = createMap(disk)
    map.attach()
    const base = disk.operationCount
    disk.failAt(base + operation, 'power')
    const needed = new Set<number>()
    let finished = false
    try {
      for (let round = 1; round <= 4; round++) {
        const begun = Array.from({ length: 5 }, () => map.begin(random.integer(0, 4999) * MiB, 4096))
        await Promise.all(begun.map(mark => mark.durable))
        for (const mark of begun) {
          needed.add(mark.firstRegion) // the disk may have it from here on
          map.end(mark)
        }
        if (round % 2 === 0) {
          const old = [...needed]
          map.rotate()
          const late = map.begin(random.integer(0, 4999) * MiB, 4096)
          await late.durable
          needed.add(late.firstRegion)
          const clearing = map.clearOld({ generation: 1, sequence: round })
          for (const region of old) if (region !== late.firstRegion) needed.delete(region)
          await clearing
          map.end(late)
        }
      }
      finished = true
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error
    }
    for (let chance = 0; chance < 3; chance++) {
      const found = openMap(disk.crash(new Random(operation * 10 + chance)))
      if (found === undefined) return t.fail(`no map after operation ${operation}`)
      t.equal(found.damagedPageCount, 0, 'a power cut is no damage')
      found.repeat()
      for (const region of needed)
        if (!found.isPending(region)) return t.fail(`region ${region}, operation ${operation}`)
    }
    if (finished) break
  }
  t.pass('every operation')
})

t.test('a write under way at a rotation keeps its mark', async t => {
  const disk = new FaultyDisk()
  const map = createMap(disk)
  map.attach()
  const mark = map.begin(9 * MiB, 4096)
  await mark.durable
  map.rotate()
  await map.clearOld({ generation: 1, sequence: 5 })
  const found = openMap(disk.crash(new Random(1)))!
  found.repeat()
  t.ok(found.isPending(9))
  t.same(found.cleared, { generation: 1, sequence: 5 })
})

t.test('a clearing that is overtaken by a lost queue clears nothing', async t => {
  const map = createMap(new FaultyDisk())
  map.attach()
  const mark = map.begin(9 * MiB, 4096)
  await mark.durable
  map.end(mark)
  map.rotate()
  const clearing = map.clearOld({ generation: 1, sequence: 5 })
  map.detach()
  await clearing
  t.ok(map.isPending(9))
})

t.test('a region that becomes pending while it is sent is sent again', async t => {
  const map = createMap(new FaultyDisk())
  await map.addPending(9 * MiB, 4096)
  map.claim(9)
  await map.addPending(9 * MiB, 4096)
  map.settle(9)
  t.ok(map.isPending(9))
  map.unclaim(9)
  map.claim(9)
  map.settle(9)
  t.notOk(map.isPending(9))
})

t.test('after a clean stop what is pending is told from what is only marked', async t => {
  const disk = new FaultyDisk()
  const map = createMap(disk)
  map.attach()
  const mark = map.begin(1 * MiB, 4096)
  await mark.durable
  map.end(mark)
  await map.addPending(4998 * MiB, 2 * MiB)
  await map.close()
  const found = openMap(disk)!
  t.equal(found.pendingCount, 2)
  t.equal(found.dirtyBytes, 3 * MiB)
})

t.test('what a start makes pending is so at the next, though it had a mark and the start was killed', async t => {
  const disk = new FaultyDisk()
  const map = createMap(disk)
  map.attach()
  const mark = map.begin(0, sizeBytes)
  await mark.durable
  map.end(mark)
  await map.close()
  const killed = openMap(disk)
  t.equal(killed?.pendingCount, 0)
  await killed?.addAllPending()
  const next = openMap(disk)
  t.equal(next?.pendingCount, sizeBytes / MiB)
  t.ok(next?.isPending(7))
})

t.test('a map in the place of one that could not be read has everything pending from its first moment', async t => {
  const disk = new FaultyDisk()
  const made = DirtyMap.create(disk, faultyVolumeFiles(disk), mapFile, {
    sizeBytes,
    identity: 7,
    pending: 'everything',
  })
  const killed = openMap(disk)! // before anybody has written to it
  for (const map of [made, killed]) {
    t.equal(map.pendingCount, 5000)
    t.equal(map.dirtyBytes, sizeBytes)
    t.ok(map.isPending(0) && map.isPending(4999))
  }
})

t.test('a damaged page is everything it could say, a damaged header no map', async t => {
  const disk = new FaultyDisk()
  await createMap(disk).close()
  disk.flip(mapFile, 512 + 100)
  const found = openMap(disk)!
  t.equal(found.damagedPageCount, 1)
  t.equal(found.pendingCount, 1984)
  disk.flip(mapFile, 30)
  t.equal(openMap(disk), undefined)
})

t.test('a map that cannot be written fails the mark, until somebody gives it up', async t => {
  const disk = new FaultyDisk()
  const map = createMap(disk)
  disk.failAt(disk.operationCount + 1, 'EIO')
  await t.rejects(map.begin(0, 4096).durable ?? Promise.resolve(), /EIO/)
  map.giveUp()
  t.equal(map.begin(MiB, 4096).durable, undefined)
})
