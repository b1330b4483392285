import t from 'tap'
import { coordinatorAwayMillisMax } from '../../src/base/limits.ts'
import { Coordination } from '../../src/ingest/coordination.ts'

function onDisk() {
  let last = 0
  const disk = {
    errorCode: undefined as string | undefined,
    issueTerm(above: number): number {
      if (disk.errorCode !== undefined) throw Object.assign(new Error(disk.errorCode), { code: disk.errorCode })
      return (last = Math.max(last, above) + 1)
    },
  }
  return disk
}
const both = [1, 2].map(number => ({ number, isConnected: true }))
const withoutFirst = both.map(({ number }) => ({ number, isConnected: number !== 1 }))

t.test('a full disk puts a successor off, and ends nothing', t => {
  const disk = onDisk()
  const coordination = new Coordination(disk.issueTerm)
  coordination.review(both, 0)
  coordination.review(withoutFirst, 1)
  disk.errorCode = 'ENOSPC'
  const due = 1 + coordinatorAwayMillisMax
  for (const late of [0, 1000]) t.equal(coordination.review(withoutFirst, due + late), false)
  t.same([coordination.term, coordination.stream], [1, 1], 'nobody is told what is not kept')
  disk.errorCode = undefined
  t.equal(coordination.review(withoutFirst, due + 2000), true)
  t.same([coordination.term, coordination.stream], [2, 2])
  t.end()
})

t.test('a term that an agent has heard of is gone above when the disk lets it', t => {
  const disk = onDisk()
  const coordination = new Coordination(disk.issueTerm)
  coordination.review(both, 0)
  disk.errorCode = 'EIO'
  t.equal(coordination.raiseAbove(7), false)
  t.equal(coordination.review(both, 1), false)
  t.equal(coordination.term, 1)
  disk.errorCode = undefined
  t.equal(coordination.review(both, 2), true, 'the agents are told')
  t.same([coordination.term, coordination.stream], [8, 1])
  t.equal(coordination.review(both, 3), false)
  t.end()
})

t.test('on a disk that is full from the start there is no coordinator until it keeps a term', t => {
  const disk = onDisk()
  disk.errorCode = 'ENOSPC'
  const coordination = new Coordination(disk.issueTerm)
  t.equal(coordination.review(both, 0), false)
  t.same([coordination.obtainTerm(), coordination.term, coordination.stream], [false, 0, undefined])
  disk.errorCode = undefined
  t.equal(coordination.review(both, 1), false, 'nobody was told of another')
  t.same([coordination.obtainTerm(), coordination.term, coordination.stream], [true, 1, 1])
  t.end()
})

t.test('what is not of the disk is a bug, and passes', t => {
  const disk = onDisk()
  const coordination = new Coordination(disk.issueTerm)
  disk.errorCode = 'ERR_ASSERTION'
  t.throws(() => coordination.raiseAbove(7), { code: 'ERR_ASSERTION' })
  t.end()
})
