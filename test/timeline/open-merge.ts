import t from 'tap'
import type { Ordinal } from '../../src/base/ids.ts'
import { foldSizeBytesMax, openDeltaGrowth, openDeltasMergedMin } from '../../src/base/limits.ts'
import { GiB } from '../../src/base/units.ts'
import { afterOpenMerge, openRun, packBytes, planOpenMerge } from '../../src/timeline/open-merge.ts'
import type { DeltaSpan, PackRef } from '../../src/timeline/state.ts'
import { randomFrom } from '../support/segment-records.ts'

let keyCount = 0

function pack(startBytes: number, sizeBytes: number, rawSizeBytes = sizeBytes, volume = 1): PackRef {
  return {
    object: { key: `pack ${++keyCount}`, sizeBytes },
    volume,
    startBytes,
    endBytes: startBytes + sizeBytes,
    indexOffsetBytes: 0,
    extentCount: 1,
    rawSizeBytes,
    regionRawSizeBytes: new Uint32Array(),
  }
}

function openDelta(open: number, packs: readonly PackRef[]): DeltaSpan {
  return {
    kind: 'delta',
    fromOrdinal: 5 as Ordinal,
    toOrdinal: 6 as Ordinal,
    open,
    packs,
    checkpoints: { key: `page ${open}`, sizeBytes: 1 },
    checkpointCount: 0,
    rawSizeBytes: packBytes({ packs }),
  }
}

t.test(
  'however long a synchronisation lasts, few open deltas are left, and each byte is written few times',
  async t => {
    for (const liveShare of [1, 0.7, 0.2, 'random'] as const) {
      const random = randomFrom(3)
      let open: readonly DeltaSpan[] = []
      let [folded, written] = [0, 0]
      for (let number = 1; number <= 6000; number++) {
        const sizeBytes = Math.round(foldSizeBytesMax * (number % 7 === 0 ? 0.01 : 0.8 + random() / 5))
        folded += sizeBytes
        open = [...open, openDelta(number, [pack(0, sizeBytes)])]
        for (;;) {
          const run = openRun(open)
          if (run === undefined) break
          const share = liveShare === 'random' ? 0.1 + random() * 0.9 : liveShare
          const made = Math.round(run.reduce((sum, delta) => sum + packBytes(delta), 0) * share)
          written += made
          const at = open.indexOf(run[0]!)
          open = open.toSpliced(at, run.length, openDelta(run.at(-1)!.open!, [pack(0, made)]))
        }
        const classCount = 1 + Math.max(0, Math.floor(Math.log(folded / foldSizeBytesMax) / Math.log(openDeltaGrowth)))
        if (open.length >= openDeltasMergedMin * classCount) t.fail(`${open.length} open deltas of ${folded / GiB} GiB`)
      }
      t.ok(written <= 3 * folded, `${liveShare}: written again ${written / folded} times, ${open.length} are left`)
    }
  },
)

t.test('packs that lie alone are taken over, the others are merged with all that they lie over', async t => {
  const [a, b, c, d] = [pack(0, 10), pack(20, 10), pack(30, 10), pack(100, 50)]
  const [e, f, g] = [pack(15, 10), pack(40, 10), pack(0, 10, 10, 2)]
  const [h, i] = [pack(29, 1), pack(120, 1)]
  const run = [openDelta(1, [a, b, c, d]), openDelta(2, [e, f, g]), openDelta(3, [h, i])]
  const plan = planOpenMerge(run, 1000)
  t.strictSame(plan.alone, [a, c, f, g])
  t.strictSame(
    plan.groups.map(group => group.map(({ open, packs }) => [open, ...packs])),
    [
      [
        [1, b],
        [2, e],
        [3, h],
      ],
      [
        [1, d],
        [3, i],
      ],
    ],
  )
  const [first, second] = [pack(15, 15), pack(100, 50)]
  const whole = afterOpenMerge(run, plan, [first, second])
  t.strictSame(
    whole.map(({ open, packs }) => [open, ...packs]),
    [[3, a, first, c, f, second, g]],
  )
  const part = planOpenMerge(run, 30)
  t.equal(part.groups.length, 1, 'as much as is read at once')
  t.strictSame(
    afterOpenMerge(run, part, [first]).map(({ open, packs }) => [open, ...packs]),
    [[1, d], [2], [3, a, first, c, f, i, g]],
  )
})

t.test('in whatever steps, of every place the newest delta that has it stays in force', async t => {
  for (let seed = 1; seed <= 50; seed++) {
    const random = randomFrom(seed)
    const below = (end: number): number => Math.floor(random() * end)
    const placeCount = 200
    const holds = new Map<string, ReadonlyMap<number, number>>()
    const newest = new Map<number, number>()
    let run: readonly DeltaSpan[] = Array.from({ length: 2 + below(6) }, (_, age) => {
      const packs: PackRef[] = []
      for (let at = below(60); at < placeCount; at += 1 + below(60)) {
        const one = pack(at, 1 + below(Math.min(40, placeCount - at)))
        packs.push(one)
        at = one.endBytes
        const places = Array.from({ length: one.endBytes - one.startBytes }, (_each, index) => one.startBytes + index)
        holds.set(one.object.key, new Map(places.map(place => [place, age])))
        for (const place of places) newest.set(place, age)
      }
      return openDelta(age + 1, packs)
    })
    for (let step = 0; run.length > 1; step++) {
      const plan = planOpenMerge(run, 40)
      const made = plan.groups.map(group => {
        const packs = group.flatMap(part => part.packs)
        const start = Math.min(...packs.map(({ startBytes }) => startBytes))
        const one = pack(start, Math.max(...packs.map(({ endBytes }) => endBytes)) - start)
        holds.set(one.object.key, new Map(packs.flatMap(({ object }) => [...holds.get(object.key)!])))
        return one
      })
      run = afterOpenMerge(run, plan, made)
      const shown = new Map<number, number>()
      for (const { packs } of run) {
        for (const [index, { object, startBytes }] of packs.entries()) {
          if (index > 0 && packs[index - 1]!.endBytes > startBytes) t.fail(`seed ${seed}: packs of one delta overlap`)
          for (const [place, age] of holds.get(object.key)!) shown.set(place, age)
        }
      }
      if (shown.size !== newest.size || [...newest].some(([place, age]) => shown.get(place) !== age))
        t.fail(`seed ${seed}, step ${step}: an older write shows`)
      if (step > 100) t.fail(`seed ${seed}: it does not end`)
      if (step > 100) break
    }
  }
})
