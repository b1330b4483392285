import t from 'tap'
import { firstBroken, sharesOf } from '../support/simulation/runs.ts'

// As histories.ts, with other seeds.

for (const share of sharesOf({ first: 1_001, count: 400 }, 100))
  t.test(
    `nothing that was promised is broken by links, hosts, disks and a store that fail, seeds from ${share[0]}`,
    async t => {
      t.equal(await firstBroken(share), undefined)
    },
  )
