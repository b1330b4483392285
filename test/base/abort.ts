import { getEventListeners } from 'node:events'
import t from 'tap'
import { onAbort } from '../../src/base/abort.ts'
import { systemClock } from '../../src/base/clock.ts'
import { Failure, failedWith } from '../../src/base/failure.ts'

t.test('however many wait for a signal, it has one listener, and none when they are gone', async t => {
  const controller = new AbortController()
  const { signal } = controller
  const listenerCount = (): number => getEventListeners(signal, 'abort').length
  const told: number[] = []
  const forgets = Array.from({ length: 30 }, (_, index) => onAbort(signal, () => void told.push(index)))
  t.equal(listenerCount(), 1)
  for (const forget of forgets) forget()
  t.equal(listenerCount(), 0)
  const sleeping = Array.from({ length: 30 }, () => systemClock.sleep(60_000, signal))
  const [first, second] = [onAbort(signal, () => second()), onAbort(signal, () => void told.push(2))]
  onAbort(signal, () => void told.push(3))
  t.equal(listenerCount(), 1, 'sleepers share it')
  controller.abort(new Failure('CLOSING', 'enough'))
  t.same(told, [3], 'who was forgotten meanwhile is not told')
  for (const { status, ...outcome } of await Promise.allSettled(sleeping))
    t.ok(status === 'rejected' && 'reason' in outcome && failedWith(outcome.reason, 'CLOSING'), 'with its reason')
  first()
  t.equal(listenerCount(), 0)
})

t.test('a sleep ends in its time and leaves nothing at the signal', async t => {
  const { signal } = new AbortController()
  await systemClock.sleep(1, signal)
  t.equal(getEventListeners(signal, 'abort').length, 0)
  await t.rejects(systemClock.sleep(60_000, AbortSignal.abort(new Failure('CLOSING', 'before'))), { code: 'CLOSING' })
})
