import t from 'tap'
import { KiB } from '../../src/base/units.ts'
import { changedExtents } from '../../src/image/image.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { testRegionSizeBytes, TestTimeline } from '../support/mirror-timeline.ts'

// Random histories, folded, merged, thinned and rewritten. Invariants: what differs of a volume between two retained checkpoints lies in the
// extents, in either order; extents are ascending and apart; two checkpoints without a write between them have none.

const sizeBytes = 500 * KiB
const volumes = [
  { number: 1, sizeBytes, included: true },
  { number: 2, sizeBytes, included: true },
]
const limits = { packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 2 ** 30, partitionSizeBytes: 2 ** 20 }
const mergeLimits = { packRawSizeBytesMax: 2 ** 20, extentCountMax: 2 ** 20, lotSizeBytes: 2 ** 20 }
const { signal } = new AbortController()

t.test('what differs between two checkpoints lies in the extents that are told', async t => {
  for (let seed = 1; seed <= 25; seed++) {
    const random = seeded(seed)
    const history = new History(random, volumes, 2)
    const timeline = new TestTimeline(history, t.testdir())
    let toldSizeBytes = 0
    for (let step = 0; step < 14; step++) {
      for (let count = random(4); count > 0; count--) history.write()
      timeline.checkpoint()
      const act = random(6)
      if (act === 0) timeline.thin()
      if (act === 1) await timeline.fold(limits)
      if (act === 2) history.seal('all')
      if (act === 3) await timeline.rewrite()
      if (act === 4) await timeline.merge(mergeLimits)
      timeline.drop()
    }
    for (let pairs = 0; pairs < 8; pairs++) {
      const from = timeline.retained[random(timeline.retained.length)]!
      const to = timeline.retained[random(timeline.retained.length)]!
      const tools = {
        store: timeline.store,
        openSegment: (span: { readonly commitNumber: number }) => history.segments[span.commitNumber - 1]!.source,
        openTail: () => history.tail().source,
        cacheSizeBytes: 32 * KiB,
        regionSizeBytes: testRegionSizeBytes,
      }
      const request = { from: timeline.plan(from), to: timeline.plan(to), volume: 1 }
      const found = await changedExtents(request, tools, plan => timeline.open(plan), signal)
      const before = history.contents.get(from.ordinal)!.get(1)!.slice()
      const after = history.contents.get(to.ordinal)!.get(1)!.slice()
      let lastEnd = -1
      for (let at = 0; at < found.extents.length; at += 2) {
        const [start, length] = [found.extents[at]!, found.extents[at + 1]!]
        if (start <= lastEnd || length <= 0 || start + length > sizeBytes) t.fail(`seed ${seed}: extents overlap`)
        lastEnd = start + length
        before.fill(0, start, lastEnd)
        after.fill(0, start, lastEnd)
      }
      if (Buffer.compare(before, after) !== 0) t.fail(`seed ${seed}: something differs outside of the extents`)
      if (from === to && found.sizeBytes > 0) t.fail(`seed ${seed}: a checkpoint differs from itself`)
      toldSizeBytes += found.sizeBytes
    }
    if (toldSizeBytes === 0) t.fail(`seed ${seed}: nothing was told at all`)
  }
})
