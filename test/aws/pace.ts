import t from 'tap'
import { Pace, PutPaces } from '../../src/aws/pace.ts'
import { ManualClock } from '../support/wire-manual-clock.ts'

const { signal } = new AbortController()

/** How many of a hundred are let through within so many seconds. */
async function letThrough(pace: Pace, clock: ManualClock, seconds: number): Promise<number> {
  let count = 0
  for (let each = 0; each < 100; each++)
    void pace.take(signal).then(
      () => count++,
      () => undefined,
    )
  await clock.advance(seconds * 1000)
  return count
}

t.test('the pace is that of the quota where it is lower, and never above what is configured', async t => {
  const paces = new PutPaces(40, new ManualClock())
  t.strictSame([paces.account.rate, paces.standby.rate], [40, 10])
  paces.followQuota(20)
  t.strictSame([paces.account.rate, paces.standby.rate], [20, 5])
  paces.followQuota(5_000)
  t.strictSame([paces.account.rate, paces.standby.rate], [40, 10], 'a quota that was raised counts at once')
  paces.followQuota(0)
  t.strictSame([paces.account.rate, paces.standby.rate], [1, 1], 'something is always put')
})

t.test('a limit that falls holds for those who come next', async t => {
  const clock = new ManualClock()
  const pace = new Pace(1_000, clock)
  await clock.advance(1_000)
  pace.limitTo(10)
  const count = await letThrough(pace, clock, 5)
  t.ok(count >= 50 && count <= 52, `${count} in 5 s at 10 a second`)
})

t.test('what AWS refused stays slow when the limit is told again, and grows back to it, not above', async t => {
  const clock = new ManualClock()
  const paces = new PutPaces(1_000, clock)
  paces.followQuota(100)
  paces.account.slower()
  t.equal(paces.account.rate, 50)
  paces.followQuota(100)
  t.equal(paces.account.rate, 50)
  await clock.advance(60_000)
  await paces.account.take(signal)
  t.equal(paces.account.rate, 100)
})
