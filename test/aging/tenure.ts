import t from 'tap'
import { TakeoverWatch } from '../../src/aging/takeover-watch.ts'
import { Tenure } from '../../src/aging/tenure.ts'
import { failedWith, Failure } from '../../src/base/failure.ts'
import { realDisk } from '../../src/disk/disk.ts'
import type { ListedObject, ObjectStore } from '../../src/store/object-store.ts'
import { AgingModel } from '../support/aging-model.ts'
import { FatefulStore, SteppedClock, type Fate } from '../support/aging-surroundings.ts'
import { randomFrom } from '../support/segment-records.ts'
import { MemoryStore } from '../support/segment-store.ts'

// Of several processes that bear one appliance's id one goes on, and no others. Invariants: who runs and looks is not displaced by a copy of it; who starts
// alone goes on, however the one before it ended; whoever may be a copy commits nothing by itself before that is known; two that go on find it at their next looks,
// and one of the two stops; whatever the store does.

const never = new AbortController().signal
const lookMillis = 10_000

interface Place {
  readonly file: string
  readonly place: string
}

/** A process of the appliance, as far as its tenure goes. */
class Process {
  readonly store: FatefulStore
  readonly tenure: Tenure
  readonly watch: TakeoverWatch
  readonly refusedCopies: string[] = []
  stopped: string | undefined
  isAlive = true

  constructor(
    surroundings: { clock: SteppedClock; memory: ObjectStore },
    at: Place,
    fateOf?: (operation: number, key: string) => Fate,
  ) {
    const { clock, memory } = surroundings
    this.store = new FatefulStore(memory as MemoryStore, fateOf)
    this.tenure = new Tenure({
      ...{ store: this.store, clock, disk: realDisk, applianceId: 'one' },
      config: { ...at, host: at.place },
      notify: (name, notice) => {
        if (name === 'superseded') this.stopped = (notice as { sentence: string }).sentence
        if (name === 'tenureTold') this.refusedCopies.push((notice as { sentence: string }).sentence)
      },
    })
    this.watch = new TakeoverWatch(this.store, clock, 'one', this.tenure)
  }

  /** As the thread looks. */
  async look(): Promise<void> {
    if (!this.isAlive || this.stopped !== undefined) return
    await this.watch.look(never).catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error
      if (failedWith(error, 'CLOSING')) this.isAlive = false
    })
  }

  get goesOn(): boolean {
    return this.isAlive && this.stopped === undefined
  }
}

function site(directory: string) {
  const clock = new SteppedClock()
  const memory = new MemoryStore()
  const own: Place = { file: `${directory}/own.json`, place: 'own' }
  const copied: Place = { file: `${directory}/copy.json`, place: 'copy' }
  const start = (at: Place, fateOf?: (operation: number, key: string) => Fate): Process =>
    new Process({ clock, memory }, at, fateOf)
  /** Each of them looks, in this order, every ten seconds. */
  const looks = async (count: number, ...processes: readonly Process[]): Promise<void> => {
    for (let look = 0; look < count; look++) {
      for (const process of processes) await process.look()
      clock.advance(lookMillis)
    }
  }
  const keys = (): string[] => [...memory.objects.keys()].map(key => key.replace('taken/one/', '')).sort()
  return { clock, memory, own, copied, start, looks, keys }
}

t.test('one that runs stays, and costs one listing a look; its copy stops, and has committed nothing', async t => {
  const { own, copied, start, looks, keys } = site(t.testdir())
  const first = start(own)
  t.notOk(first.tenure.mayCommit)
  await looks(1, first)
  t.ok(first.tenure.mayCommit, 'where nobody was before it goes on at once')
  t.notOk(first.tenure.isContested)
  const before = first.store.operationCount
  await looks(5, first)
  t.equal(first.store.operationCount, before + 5)

  const copy = start(copied)
  for (let look = 0; look < 4; look++) {
    await looks(1, copy, first)
    t.notOk(copy.tenure.mayCommit)
  }
  t.match(copy.stopped, /runs already, and this is a copy/)
  t.match(copy.stopped, /process \d+ on own/, 'where it runs')
  t.ok(first.goesOn)
  t.equal(first.refusedCopies.length, 1)
  t.match(first.refusedCopies[0], /process \d+ on copy/)
  t.ok(first.tenure.isContested, 'what a person may have had it commit is looked for')
  await looks(6, first)
  t.notOk(first.tenure.isContested)
  t.strictSame(keys(), ['tenure-0000000002'])
})

t.test('one that cannot be asked is followed, and stops when it looks again', async t => {
  const { own, copied, start, looks } = site(t.testdir())
  const hung = start(own)
  await looks(1, hung)
  const next = start(copied)
  await looks(2, next)
  t.notOk(next.tenure.mayCommit, 'it has waited for ten seconds')
  await looks(1, next)
  t.ok(next.tenure.mayCommit)
  t.ok(hung.tenure.mayCommit, 'it does not know')
  await looks(1, hung, next)
  t.match(hung.stopped, /was started from a copy of this one's data directory/)
  t.notOk(hung.tenure.mayCommit)
  t.ok(next.goesOn)
})

t.test('a start in the same boot of the machine follows a killed process at once; any other asks', async t => {
  const { own, copied, start, looks, keys } = site(t.testdir())
  await looks(1, start(own))
  const again = start(own)
  await looks(1, again)
  t.ok(again.tenure.mayCommit)
  t.strictSame(keys(), ['tenure-0000000002'])
  const afterPowerLoss = start({ ...own, place: 'own, next boot' })
  await looks(1, afterPowerLoss)
  t.notOk(afterPowerLoss.tenure.mayCommit)
  await looks(2, afterPowerLoss)
  t.ok(afterPowerLoss.tenure.mayCommit)
  t.ok(afterPowerLoss.goesOn)
  t.strictSame(keys(), ['tenure-0000000003'])
  await looks(1, start(copied)) // and dies
  const last = start({ ...own, place: 'own, next boot' })
  await looks(1, last)
  t.ok(last.tenure.mayCommit, 'a claim alone is no tenure')
})

t.test('a directory that was put back as it once was asks, whatever it has written down', async t => {
  const { own, copied, start, looks } = site(t.testdir())
  await looks(1, start(own)) // tenure 1, as the backup of its directory says
  const moved = start(copied)
  await looks(3, moved)
  t.ok(moved.tenure.mayCommit)
  const restored = start(own)
  await looks(1, restored)
  t.notOk(restored.tenure.mayCommit)
  await looks(3, moved, restored)
  t.ok(restored.stopped)
  t.ok(moved.goesOn)
})

t.test('of two that start at once one goes on', async t => {
  for (const isFollowing of [false, true]) {
    const { own, copied, start, looks, keys } = site(t.testdir())
    if (isFollowing) await looks(1, start({ ...own, place: 'dead' }))
    const [one, two] = [start(own), start(copied)]
    await looks(6, one, two)
    t.equal([one, two].filter(({ goesOn }) => goesOn).length, 1)
    t.ok([one, two].find(({ goesOn }) => goesOn)?.tenure.mayCommit)
    t.equal(keys().length, 1, keys().join())
  }
})

t.test('where nothing can be removed a copy is answered once, and a start is a start', async t => {
  const { clock, memory, own, copied, start, looks } = site(t.testdir())
  memory.remove = async () => {
    throw new Failure('CONFIG_INVALID', 'the bucket keeps all')
  }
  const first = start(own)
  await looks(1, first)
  const copy = start(copied)
  await looks(4, copy, first)
  t.ok(copy.stopped)
  const createdCount = first.store.created.length
  await looks(10, first)
  t.equal(first.store.created.length, createdCount)
  t.ok(first.goesOn)
  clock.advance(lookMillis)
  const again = start(own)
  await looks(1, again)
  t.ok(again.tenure.mayCommit)
  await looks(10, again)
  t.equal(again.store.created.length, 1, 'what was claimed before it is over')
})

t.test('a store that takes no claim is not waited for, and every VPG asks for itself', async t => {
  const { clock, own, copied, start, looks } = site(t.testdir())
  await looks(1, start(own))
  const refused = start(copied, (_, key) => (key.includes('claim-') ? 'refused' : 'works'))
  await looks(3, refused)
  t.notOk(refused.tenure.mayCommit)
  clock.advance(60_000)
  t.ok(refused.tenure.mayCommit)
  t.ok(refused.tenure.isContested)
})

t.test('a listing that is late misleads nobody for longer than it is', async t => {
  const { clock, memory, own, copied, start, looks } = site(t.testdir())
  const first = start(own)
  await looks(1, first)
  /** Shows what was there a while ago. */
  const shown: ListedObject[][] = [[], []]
  const late: ObjectStore = {
    create: (key, body) => memory.create(key, body),
    readRange: (key, range, signal) => memory.readRange(key, range, signal),
    remove: key => memory.remove(key),
    close: () => memory.close(),
    async *list(prefix, after) {
      const now: ListedObject[] = []
      for await (const listed of memory.list(prefix, after)) now.push(listed)
      shown.push(now)
      yield* shown.shift() ?? []
    },
  }
  const misled = new Process({ clock, memory: late }, copied)
  await looks(8, misled, first)
  t.equal([misled, first].filter(({ goesOn }) => goesOn).length, 1)
})

t.test('whatever the store does, and whoever dies where, one goes on and the others stop', async t => {
  for (let seed = 1; seed <= 100; seed++) {
    const random = randomFrom(seed)
    const { own, copied, clock, start, looks } = site(t.testdir())
    const places = [own, copied, { file: `${copied.file}-2`, place: 'copy 2' }]
    let isFaulty = true
    const fates = ['fails-before', 'fails-after', 'dies-before', 'dies-after'] as const
    const fateOf = (): Fate => (isFaulty && random() < 0.15 ? (fates[Math.floor(random() * 4)] ?? 'works') : 'works')
    const running = new Map<Place, Process>()
    const all: Process[] = []
    for (let step = 0; step < 60; step++) {
      const place = places[Math.floor(random() * places.length)] ?? own
      const process = running.get(place)
      if (process === undefined || !process.isAlive || process.stopped !== undefined) {
        if (random() < 0.5) continue
        const started = start(place, fateOf)
        running.set(place, started)
        all.push(started)
      } else if (random() < 0.05) process.isAlive = false
      else await process.look()
      clock.advance(Math.floor(random() * 5000))
    }
    isFaulty = false
    const alive = (): Process[] => all.filter(({ goesOn }) => goesOn)
    await looks(8, ...alive())
    if (alive().length === 0) {
      const next = start(own)
      all.push(next)
      await looks(4, next)
    }
    t.equal(alive().length, 1, `seed ${seed}`)
    t.ok(alive()[0]?.tenure.mayCommit, `seed ${seed}`)
    // Who runs and looks stays.
    const [stays] = alive()
    const late = start({ file: `${own.file}-late`, place: 'late' })
    if (stays !== undefined) await looks(5, late, stays)
    t.ok(stays?.goesOn === true && late.stopped !== undefined, `seed ${seed}`)
  }
})

t.test('what waits in the log of a process that may be a copy is sealed when it is known to be none', async t => {
  const model = new AgingModel(randomFrom(5), t.testdir(), 60_000)
  await model.restart()
  await model.worker.createVpg(model.definition)
  model.write(1, 4)
  model.checkpoint()
  model.memory.objects.set('taken/appliance-one/tenure-0000000007', Buffer.from('{}'))
  await model.restart()
  const { created } = model.store
  await model.worker.start({ durable: model.log.mark })
  await new Promise<void>(resolve => {
    const timer = setInterval(() => {
      if (!created.some(key => key.includes('/commit/'))) return
      clearInterval(timer)
      resolve()
    }, 5)
  })
  await model.worker.close()
  const at = (part: string): number => created.findIndex(key => key.includes(part))
  t.equal(at('claim-0000000008'), 0)
  t.ok(at('tenure-0000000008') > 0)
  t.ok(at('/commit/') > at('tenure-0000000008'))
})
