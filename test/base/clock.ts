import t from 'tap'
import { systemClock } from '../../src/base/clock.ts'

t.test('a wait of months is no wait of a millisecond', async t => {
  const stop = new AbortController()
  const long = systemClock.sleep(2 ** 32, stop.signal).then(
    () => 'the long one',
    () => 'aborted',
  )
  let isCalled = false
  const takeBack = systemClock.after(40 * 86_400_000, () => (isCalled = true))
  const short = systemClock.sleep(30, stop.signal).then(() => 'the short one')
  t.equal(await Promise.race([long, short]), 'the short one')
  t.notOk(isCalled)
  takeBack()
  stop.abort(new Error('enough'))
  t.equal(await long, 'aborted')
})
