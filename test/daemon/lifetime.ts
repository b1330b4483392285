import t from 'tap'
import { untilAborted } from '../../src/daemon/lifetime.ts'

t.test('a part that ends because it is closed is no unhandled rejection, whenever the signal came', async t => {
  const unhandled: unknown[] = []
  const note = (error: unknown): void => void unhandled.push(error)
  process.on('unhandledRejection', note)
  t.teardown(() => process.removeListener('unhandledRejection', note))
  const stop = new AbortController()
  stop.abort()
  let end = (_: Error): void => undefined
  const ending = new Promise<never>((_, reject) => (end = reject))
  await untilAborted(stop.signal, [ending])
  end(new Error('closed'))
  for (let turn = 0; turn < 3; turn++) await new Promise(resolve => setImmediate(resolve))
  t.same(unhandled, [])
})

t.test('a part that ends by itself ends the role', async t => {
  const never = new AbortController()
  await t.rejects(untilAborted(never.signal, [Promise.reject(new Error('gone'))]), { message: 'gone' })
})
