import t from 'tap'
import type { Mutations } from '../support/simulation/history.ts'
import { firstBroken, sharesOf } from '../support/simulation/runs.ts'

// The checks of histories.ts can fail: what is broken on purpose is found.

const broken: Readonly<Record<string, Mutations>> = {
  'acknowledgements before the sync': { acknowledgesBeforeSync: true },
  'a disk that only pretends to sync': { diskIgnoresSync: true },
  'marks that never reach the medium': { losesMarks: true },
  'markers one record late': { movesMarkers: true },
  'markers of two hosts that are no cut': { tearsCuts: true },
  'a hole that nobody repairs': { neverRepairs: true },
  'an index that is not told what leaves the history': { indexMisses: 'what leaves' },
  'an index that is not told what is new': { indexMisses: 'what is new' },
  'a recovery that does not hold its checkpoint': { losesHolds: true },
  'a preseed of which nothing is in the mirror': { preseedsNothing: true },
}

const seedCountMax = 600

/** From where on it is found soon. */
const firstSeeds: Readonly<Record<string, number>> = {
  'an index that is not told what leaves the history': 100,
  'a recovery that does not hold its checkpoint': 480, // few histories let one go that somebody holds
}

for (const [what, mutations] of Object.entries(broken))
  t.test(`the checks find ${what}`, async t => {
    const [seeds] = sharesOf({ first: firstSeeds[what] ?? 1, count: seedCountMax }, seedCountMax)
    t.match(
      await firstBroken(seeds!, mutations),
      /called durable|is not what the disks were|is lost|damage is told of|cannot be read|is torn|without damage|no checkpoint of what|the index of a start|an index that was kept|was thinned away|after its preseed from/,
    )
  })
