import t from 'tap'
import { BrokenHistory, runHistory, type Mutations } from '../support/simulation/history.ts'

// Histories of a protected site, a link and a recovery site with all their misfortunes; the invariants are at the head of history.ts. SEED in
// the environment repeats one; `npm run soak` runs many more.

const firstSeed = Number(process.env['SEED'] ?? 1)
const historyCount = process.env['SEED'] === undefined ? 400 : 1
/** Of some tests each: a test file is given up after five minutes. */
const shareCount = 4

/** What the first broken history says; undefined where none is. */
async function firstBroken(seeds: readonly number[], mutations: Mutations): Promise<string | undefined> {
  for (const seed of seeds) {
    try {
      await runHistory({ seed, mutations })
    } catch (error) {
      if (!(error instanceof BrokenHistory)) throw error
      return error.message
    }
  }
  return undefined
}

function seedsFrom(first: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, index) => first + index)
}

for (let share = 0; share < Math.min(shareCount, historyCount); share++) {
  const count = Math.ceil(historyCount / shareCount)
  const first = firstSeed + share * count
  t.test(
    `nothing that was promised is broken by links, hosts, disks and a store that fail, seeds from ${first}`,
    async t => {
      t.equal(await firstBroken(seedsFrom(first, count), {}), undefined)
    },
  )
}

t.test('a seed decides its history wholly', async t => {
  for (const seed of [3, 17, 29]) {
    const [first, second] = [await runHistory({ seed }), await runHistory({ seed })]
    t.strictSame(second, first, `seed ${seed}`)
  }
  t.not((await runHistory({ seed: 3 })).hash, (await runHistory({ seed: 4 })).hash)
})

const broken: Readonly<Record<string, Mutations>> = {
  'acknowledgements before the sync': { acknowledgesBeforeSync: true },
  'a disk that only pretends to sync': { diskIgnoresSync: true },
  'marks that never reach the medium': { losesMarks: true },
  'markers one record late': { movesMarkers: true },
  'markers of two hosts that are no cut': { tearsCuts: true },
}

for (const [what, mutations] of Object.entries(broken))
  t.test(`the checks find ${what}`, async t => {
    t.match(
      await firstBroken(seedsFrom(1, 100), mutations),
      /called durable|is not what the disks were|is lost|damage is told of|cannot be read|is torn|without damage/,
    )
  })
