import t from 'tap'
import { runHistory } from '../support/simulation/history.ts'
import { firstBroken, sharesOf } from '../support/simulation/runs.ts'

// Histories of a protected site, a link and a recovery site with all their misfortunes; the invariants are at the head of history.ts. SEED in
// the environment repeats one; `npm run soak` runs many more. Three more files have other seeds, so that processors share them, and none takes
// longer than a test file may.

const asked = process.env['SEED']
const seeds = asked === undefined ? { first: 1, count: 400 } : { first: Number(asked), count: 1 }

for (const share of sharesOf(seeds, 100))
  t.test(
    `nothing that was promised is broken by links, hosts, disks and a store that fail, seeds from ${share[0]}`,
    async t => {
      t.equal(await firstBroken(share), undefined)
    },
  )

t.test('a seed decides its history wholly', async t => {
  for (const seed of [3, 17, 29]) {
    const [first, second] = [await runHistory({ seed }), await runHistory({ seed })]
    t.strictSame(second, first, `seed ${seed}`)
  }
  t.not((await runHistory({ seed: 3 })).hash, (await runHistory({ seed: 4 })).hash)
})
