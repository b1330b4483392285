import t from 'tap'
import type { Clock } from '../../src/base/clock.ts'
import { StoreOpening, type StoreAway } from '../../src/aging/store-opening.ts'

/** An opening that takes until it is let through, on a clock that is moved by hand. */
function site(progress: () => string | undefined) {
  const sleepers: { wake: () => void; signal: AbortSignal }[] = []
  const clock: Clock = {
    timestampMicros: () => 1,
    monotonicMillis: () => 0,
    sleep: (_, signal) =>
      new Promise((resolve, reject) => {
        sleepers.push({ wake: resolve, signal })
        signal.addEventListener('abort', reject)
      }),
    after: () => () => undefined,
  }
  const told: StoreAway[] = []
  let letThrough: (opened: string) => void = () => undefined
  const attempted = new Promise<string>(resolve => (letThrough = resolve))
  const opening = new StoreOpening({
    ...{ clock, progress, signal: new AbortController().signal },
    attempt: () => attempted,
    mayPass: () => true,
    onAway: away => told.push(away),
  })
  const pass = async (): Promise<void> => {
    sleepers.pop()?.wake()
    await new Promise(resolve => setImmediate(resolve))
  }
  return { opening, told, pass, letThrough, sleepers }
}

t.test('a start over very many VPGs is told to be reading, as long as it gets further', async t => {
  let readCount = 0
  const { opening, told, pass, letThrough, sleepers } = site(() => `${readCount} of 3`)
  const first = opening.first()
  for (readCount = 1; readCount < 3; readCount++) await pass()
  t.equal(await first, undefined, 'nobody waits for it')
  t.strictSame(told, [
    { sinceMicros: 1, sentence: '1 of 3', isBusy: true },
    { sinceMicros: 1, sentence: '2 of 3', isBusy: true },
  ])
  readCount = 2
  await pass()
  t.match(told.at(-1), { sentence: /has not answered in full/ }, 'and to be away where it does not')
  t.notOk(told.at(-1)?.isBusy)
  letThrough('all')
  t.equal(await opening.done, 'all')
  await new Promise(resolve => setImmediate(resolve))
  t.ok(
    sleepers.every(({ signal }) => signal.aborted),
    'nothing is told any more',
  )
})

t.test('a store that says nothing is away', async t => {
  const { opening, told, pass } = site(() => undefined)
  const first = opening.first()
  await pass()
  t.equal(await first, undefined)
  t.match(told, [{ sentence: /has not answered in full for 20 s/ }])
})
