import t, { type Test } from 'tap'
import type { AgingNotices, ImagePlan } from '../../src/aging/service.ts'
import { Failure } from '../../src/base/failure.ts'
import { formatCheckpointId, type Ordinal } from '../../src/base/ids.ts'
import { densitiesDefault, everyMillisAt, retentionOf, type Density } from '../../src/timeline/densities.ts'
import { objectKeys } from '../../src/timeline/reach.ts'
import { droppedBy } from '../../src/timeline/thinning.ts'
import { AgingModel, streams, type ModelCheckpoint } from '../support/aging-model.ts'
import { strays } from '../support/aging-strays.ts'
import { randomFrom } from '../support/segment-records.ts'

// Random histories of 36 days on a stepped clock, thinned by a policy, against a plain map of sectors. Invariants, held after every few steps:
//
//   - every checkpoint that nobody was told is gone opens, and shows exactly the writes before it; so does every tagged one, and an image that is open for long
//   - every other is refused by CHECKPOINT_MISSING with a sentence that names its neighbours
//   - in every interval of a density in which a checkpoint was made, one is left; not many more than the policy keeps are
//   - the history reaches as far back as it should, or to the first checkpoint, and its edge is never moved by thinning
//   - a tag that was to be kept for a time goes when that is over, and not before
//   - in the end the store holds nothing but what the manifest refers to

const day = 86_400_000

/** What a test knows of one history. */
class Thinned {
  readonly model: AgingModel
  readonly densities: readonly Density[]
  readonly tags = new Map<string, { readonly at: ModelCheckpoint; readonly untilMillis: number }>()
  readonly made: { readonly ordinal: Ordinal; readonly historyMillis: number }[] = []
  edge = 0
  readonly #gone = new Set<number>()
  #noticesRead = 0

  constructor(t: Test, seed: number, densities: readonly Density[]) {
    this.densities = densities
    this.model = new AgingModel(randomFrom(seed), t.testdir(), 1)
  }

  async open(): Promise<void> {
    const { model } = this
    await model.worker.open(model.config)
    await model.worker.follow({ durable: model.log.mark })
    await model.worker.createVpg({ ...model.definition, ...retentionOf(this.densities) })
  }

  checkpoint(afterMillis: number): ModelCheckpoint {
    this.model.historyClockMillis += afterMillis - 1000
    const made = this.model.checkpoint()
    this.made.push({ ordinal: made.checkpoint.ordinal, historyMillis: made.checkpoint.historyMillis })
    return made
  }

  /** What the rest of the daemon would say exists, by what it was told. */
  existing(): ModelCheckpoint[] {
    for (const { name, notice } of this.model.notices.slice(this.#noticesRead)) {
      if (name === 'checkpointsThinned')
        for (const each of (notice as AgingNotices['checkpointsThinned']).dropped) this.#gone.add(each)
      if (name === 'historyEdgeMoved') this.edge = (notice as AgingNotices['historyEdgeMoved']).edge
      if (name === 'tagsExpired')
        for (const each of (notice as AgingNotices['tagsExpired']).names) this.tags.delete(each)
    }
    this.#noticesRead = this.model.notices.length
    const tagged = new Set<number>([...this.tags.values()].map(({ at }) => at.checkpoint.ordinal))
    return this.model.checkpoints.filter(({ checkpoint: { ordinal } }) =>
      this.#gone.has(ordinal) ? tagged.has(ordinal) : ordinal >= this.edge || tagged.has(ordinal),
    )
  }

  get newestMillis(): number {
    return this.made.at(-1)?.historyMillis ?? 0
  }
}

async function compare(t: Test, thinned: Thinned, when: string, share: number): Promise<void> {
  const { model, densities } = thinned
  await model.age()
  const existing = thinned.existing()
  for (const wanted of existing) {
    if (model.random() > share) continue
    const plan = await model.open(wanted)
    const difference = await model.difference(plan)
    await model.close(plan)
    if (difference !== undefined) t.fail(`${when}: checkpoint ${wanted.checkpoint.ordinal}: ${difference}`)
  }
  await compareGone(t, thinned, when)
  compareDensity(t, thinned, when)
  const inHistory = existing.find(({ checkpoint }) => checkpoint.ordinal >= thinned.edge)
  const startMillis = thinned.newestMillis - (densities.at(-1)?.forMillis ?? 0)
  const oldestMillis = inHistory?.checkpoint.historyMillis ?? Infinity
  const first = thinned.made[0]?.historyMillis ?? 0
  if (oldestMillis > Math.max(startMillis, first)) t.fail(`${when}: the history begins at ${oldestMillis}`)
  for (const [name, { untilMillis }] of thinned.tags)
    if (untilMillis < thinned.newestMillis) t.fail(`${when}: ${name} was to be kept until ${untilMillis}`)
}

/** Some that are gone, with what they are told instead. Those that were looked at need not be remembered. */
async function compareGone(t: Test, thinned: Thinned, when: string): Promise<void> {
  const { model } = thinned
  const existing = new Set(thinned.existing())
  const gone = model.checkpoints.filter(made => !existing.has(made))
  for (const dropped of gone) {
    if (model.random() > 0.1) continue
    const { ordinal } = dropped.checkpoint
    const refused: unknown = await model.open(dropped).catch((error: unknown) => error)
    if (!(refused instanceof Failure) || refused.code !== 'CHECKPOINT_MISSING') {
      t.fail(`${when}: checkpoint ${ordinal} is gone and opens: ${String(refused)}`)
      continue
    }
    const ordinals = [...existing].map(({ checkpoint }) => checkpoint.ordinal)
    for (const neighbour of [ordinals.findLast(at => at < ordinal), ordinals.find(at => at > ordinal)]) {
      if (neighbour !== undefined && !refused.message.includes(formatCheckpointId(neighbour)))
        t.fail(
          `${when}: of ${formatCheckpointId(ordinal)} it says "${refused.message}", not ${formatCheckpointId(neighbour)}`,
        )
    }
  }
  for (const each of gone) model.checkpoints.splice(model.checkpoints.indexOf(each), 1)
}

function compareDensity(t: Test, thinned: Thinned, when: string): void {
  const { densities, made, newestMillis, edge } = thinned
  const existing = thinned.existing().map(({ checkpoint }) => checkpoint)
  for (const { ordinal, historyMillis } of made) {
    if (ordinal < edge) continue
    const everyMillis = everyMillisAt(densities, historyMillis, newestMillis)
    const interval = Math.floor(historyMillis / everyMillis)
    const left = existing.some(other =>
      everyMillis === 0 ? other.ordinal === ordinal : Math.floor(other.historyMillis / everyMillis) === interval,
    )
    if (!left) t.fail(`${when}: of the ${everyMillis} ms around checkpoint ${ordinal} nothing is left`)
  }
  const points = made.filter(({ ordinal }) => ordinal >= edge).map(point => ({ ...point, includedCount: 2 }))
  const state = { historyEdge: edge as Ordinal, tags: [], pins: [], holes: [] }
  const keptCount = points.length - droppedBy(densities, points, state).length
  const allowedCount = keptCount + thinned.tags.size + existing.length / 16 + 60
  if (existing.length > allowedCount) t.fail(`${when}: ${existing.length} are left, the policy keeps ${keptCount}`)
}

function faultOf(chance: number, operation: number): 'works' | 'fails-before' | 'fails-after' {
  if (operation < 800) return 'works' // opening fails as the store does, which is another test
  return chance < 0.03 ? 'fails-before' : chance < 0.06 ? 'fails-after' : 'works'
}

/** Some minutes or some days, with writes that overlap. */
async function goOn(thinned: Thinned): Promise<void> {
  const { model } = thinned
  const isBurst = model.random() < 0.35
  const count = isBurst ? 10 + model.below(30) : 1 + model.below(8)
  for (let index = 0; index < count; index++) {
    if (model.random() < 0.6) model.write(streams[model.below(2)] ?? 1, 1 + model.below(8))
    thinned.checkpoint(isBurst ? 5_000 + model.below(55_000) : 600_000 + model.below(12 * 3_600_000))
  }
  model.clock.advance(model.below(30_000))
}

async function tagSome(thinned: Thinned, name: string): Promise<void> {
  const { model } = thinned
  await model.age()
  const existing = thinned.existing()
  const at = existing[model.below(existing.length)]
  if (at === undefined) return
  const keepMillis = model.random() < 0.3 ? undefined : (1 + model.below(6)) * day
  await model.worker.tag({ vpg: model.vpg, ordinal: at.checkpoint.ordinal, name, keepMillis })
  thinned.tags.set(name, { at, untilMillis: keepMillis === undefined ? Infinity : thinned.newestMillis + keepMillis })
}

async function randomHistory(t: Test, seed: number): Promise<void> {
  const thinned = new Thinned(t, seed, densitiesDefault)
  const { model } = thinned
  const open: { readonly plan: ImagePlan; readonly sectors: ReadonlyMap<string, number> }[] = []
  await thinned.open()
  for (let step = 0; thinned.newestMillis < 36 * day; step++) {
    await goOn(thinned)
    const choice = model.random()
    if (choice < 0.04) {
      // A synchronisation: a generation of its own, and more than a fold takes without any checkpoint inside.
      model.openGeneration(streams[model.below(2)] ?? 1)
      for (let batch = 0; batch < 40; batch++) {
        model.write(streams[model.below(2)] ?? 1, 1 + model.below(8))
        if (batch % 10 === 9) await model.age()
      }
    } else if (choice < 0.1) {
      await model.restart((operation, _key) => faultOf(model.random(), operation))
      open.length = 0
    } else if (choice < 0.25) await tagSome(thinned, `tag${step}`)
    else if (choice < 0.28) {
      thinned.existing()
      const [name] = thinned.tags.keys()
      if (name !== undefined) await model.worker.untag({ vpg: model.vpg, name })
      if (name !== undefined) thinned.tags.delete(name)
    } else if (choice < 0.34 && open.length < 3) {
      await model.age()
      const existing = thinned.existing()
      const wanted = existing[model.below(existing.length)]
      if (wanted !== undefined) open.push({ plan: await model.open(wanted), sectors: wanted.sectors })
    } else if (choice < 0.4) {
      const image = open.shift()
      if (image !== undefined) {
        const difference = await model.difference(image.plan, image.sectors)
        if (difference !== undefined)
          t.fail(`seed ${seed}, step ${step}: an image that was open for long: ${difference}`)
        await model.close(image.plan)
      }
    } else if (choice < 0.9) await model.age()
    if (step % 25 === 24) await compare(t, thinned, `seed ${seed}, step ${step}`, 0.2)
  }
  for (const image of open) await model.close(image.plan)
  await compare(t, thinned, `seed ${seed}, at the end`, 1)
  await model.restart()
  await compare(t, thinned, `seed ${seed}, after a restart`, 0.3)
  await compareStore(t, thinned, seed)
  const done = new Set(model.notices.map(({ name }) => name))
  for (const name of [
    'checkpointsThinned',
    'deltasMerged',
    'folded',
    'regionRewritten',
    'historyEdgeMoved',
    'tagsExpired',
  ])
    t.ok(done.has(name), `seed ${seed} came to ${name}`)
  t.notOk(done.has('damageFound') || done.has('fenced') || done.has('holeFound'), `seed ${seed} found nothing wrong`)
}

/** Packs that have left the manifest are not in the store when their time is over, and merges have paid. */
async function compareStore(t: Test, { model, made }: Thinned, seed: number): Promise<void> {
  for (let round = 0; round < 4; round++) {
    model.clock.advance(120_000)
    await model.age()
  }
  t.strictSame(await strays(model), [], `seed ${seed}: nothing is left that nobody knows of`)
  const { plan } = await model.openNewest()
  await model.close(plan)
  const referredTo = new Set(objectKeys(plan.state))
  const packs = [...model.memory.objects.keys()].filter(key => key.includes('/delta/') || key.includes('/base/'))
  const left = packs.filter(key => !referredTo.has(key))
  t.strictSame(left, [], `seed ${seed}: nothing is left of what nobody reads`)
  const merges = model.notices.flatMap(({ name, notice }) =>
    name === 'deltasMerged' ? [notice as AgingNotices['deltasMerged']] : [],
  )
  const written = merges.reduce((sum, each) => sum + each.rawSizeBytes, 0)
  const freed = merges.reduce((sum, each) => sum + each.mergedRawSizeBytes - each.rawSizeBytes, 0)
  t.ok(freed > 1024 * 1024, `seed ${seed}: merges have freed ${freed} bytes`)
  t.ok(written < 2 * freed, `seed ${seed}: and have written ${written}`)
  const { deltaCount } = await model.worker.status({ vpg: model.vpg })
  t.ok(deltaCount < 60, `seed ${seed}: ${deltaCount} deltas for ${made.length} checkpoints`)
}

for (const seed of [1, 2]) {
  t.test(`36 days, thinned by the default policy, are what the model says, seed ${seed}`, async t => {
    await randomHistory(t, seed)
  })
}

const minute = 60_000
const short: readonly Density[] = [
  { everyMillis: 0, forMillis: 20_000 },
  { everyMillis: 10_000, forMillis: 3 * minute },
  { everyMillis: minute, forMillis: 20 * minute },
]

/** A history that is folded, of which much is to be dropped when time goes on. */
async function folded(t: Test, seed: number): Promise<Thinned> {
  const thinned = new Thinned(t, seed, short)
  await thinned.open()
  for (let round = 0; round < 4; round++) {
    for (let index = 0; index < 12; index++) {
      thinned.model.write(streams[index % 2] ?? 1, 5)
      thinned.checkpoint(2000)
    }
    await thinned.model.age()
  }
  return thinned
}

/** Now it is: drops, merges, garbage. */
async function letTimeGoOn(thinned: Thinned): Promise<void> {
  const { model } = thinned
  thinned.checkpoint(5 * minute)
  await model.age()
  for (let round = 0; round < 2; round++) {
    model.clock.advance(61_000)
    await model.age()
  }
}

async function comparedWith(thinned: Thinned, existing: readonly ModelCheckpoint[]): Promise<string | undefined> {
  for (const wanted of existing) {
    const plan = await thinned.model.open(wanted)
    const difference = await thinned.model.difference(plan)
    await thinned.model.close(plan)
    if (difference !== undefined) return `checkpoint ${wanted.checkpoint.ordinal}: ${difference}`
  }
  return undefined
}

t.test(
  'wherever the process dies while it thins and merges, the next one goes on and nothing kept is lost',
  async t => {
    const rehearsal = await folded(t, 21)
    const before = rehearsal.model.store.operationCount
    await letTimeGoOn(rehearsal)
    const operations = rehearsal.model.store.operationCount - before
    const came = new Set(rehearsal.model.notices.map(({ name }) => name))
    t.ok(
      came.has('checkpointsThinned') && came.has('deltasMerged') && came.has('garbageRemoved'),
      `${operations} calls`,
    )
    const kept = rehearsal.existing().map(({ checkpoint }) => checkpoint.ordinal)
    for (let operation = 0; operation < operations; operation += 9) {
      const thinned = await folded(t, 21)
      const { model } = thinned
      const fate = operation % 2 === 0 ? 'dies-after' : 'dies-before'
      let opened = Infinity
      await model.restart(at => (at === opened + operation ? fate : 'works'))
      opened = model.store.operationCount
      await letTimeGoOn(thinned).catch(() => undefined)
      await model.restart()
      await model.age()
      const where = `${fate} at call ${operation}`
      const existing = thinned.model.checkpoints.filter(({ checkpoint }) => kept.includes(checkpoint.ordinal))
      const difference = await comparedWith(thinned, existing).catch(String)
      if (difference !== undefined) t.fail(`${where}: ${difference}`)
      const bad = model.notices.find(({ name }) => ['damageFound', 'fenced', 'holeFound'].includes(name))
      if (bad !== undefined) t.fail(`${where}: ${bad.name} ${JSON.stringify(bad.notice)}`)
      for (let round = 0; round < 3; round++) {
        model.clock.advance(61_000)
        await model.age()
      }
      const left = await strays(model)
      if (left.length > 0) t.fail(`${where}: nobody knows of ${left.join(', ')}`)
      const gone = model.checkpoints.filter(({ checkpoint }) => !kept.includes(checkpoint.ordinal))
      for (const dropped of [gone[0], gone.at(-1)]) {
        if (dropped !== undefined && !(await isRefused(model, dropped))) t.fail(`${where}: what is dropped opens`)
      }
    }
  },
)

async function isRefused(model: AgingModel, dropped: ModelCheckpoint): Promise<boolean> {
  const refused: unknown = await model.open(dropped).catch((error: unknown) => error)
  return refused instanceof Failure && refused.code === 'CHECKPOINT_MISSING'
}

t.test('a tag that comes while its checkpoint is about to be dropped keeps it', async t => {
  for (let operation = 0; operation < 40; operation += 2) {
    const thinned = await folded(t, 22)
    const { model } = thinned
    thinned.checkpoint(5 * minute)
    const [, wanted] = thinned.existing().slice(20)
    let tagging: Promise<unknown> | undefined
    let opened = Infinity
    await model.restart(at => {
      if (at >= opened + operation && wanted !== undefined)
        tagging ??= model.worker
          .tag({ vpg: model.vpg, ordinal: wanted.checkpoint.ordinal, name: 'now' })
          .catch((error: unknown) => error)
      return 'works'
    })
    opened = model.store.operationCount
    await model.age()
    const outcome = await tagging
    await model.age()
    if (wanted === undefined || outcome instanceof Failure) continue
    t.equal(await comparedWith(thinned, [wanted]), undefined, `tagged at call ${operation}`)
  }
})

t.test('what a hole withdraws is not dropped and represents nothing, and the hole is repaired', async t => {
  const thinned = new Thinned(t, 23, short)
  const { model } = thinned
  await thinned.open()
  const writeSome = async (count: number): Promise<void> => {
    for (let index = 0; index < count; index++) {
      model.write(streams[index % 2] ?? 1, 4)
      thinned.checkpoint(2000)
    }
    await model.age()
  }
  await writeSome(20)
  model.writeBad(1)
  const inside = [thinned.checkpoint(1000), thinned.checkpoint(1000)]
  await model.age()
  const generation = model.openGeneration(1)
  await model.worker.generationOpened({ vpg: model.vpg, stream: 1, generation, wholeVolumes: [1] })
  model.writeOver(1, 4096, 16 * 1024)
  const repaired = thinned.checkpoint(1000)
  await model.age()
  await writeSome(20)
  await letTimeGoOn(thinned)
  for (const each of inside) t.ok(await isRefused(model, each), 'in the hole')
  const existing = thinned.existing().filter(each => !inside.includes(each))
  t.ok(existing.length < 20 && existing.length >= 2, `${existing.length} are left`)
  t.equal(await comparedWith(thinned, existing), undefined)
  const interval = Math.floor(repaired.checkpoint.historyMillis / minute)
  t.ok(
    existing.some(({ checkpoint }) => Math.floor(checkpoint.historyMillis / minute) === interval),
    'the time of the hole has a checkpoint that is whole',
  )
})

t.test('a denser policy brings nothing back, one that keeps less lets go', async t => {
  const thinned = await folded(t, 24)
  const { model } = thinned
  await letTimeGoOn(thinned)
  const before = thinned.existing().length
  await model.worker.changeVpg({ vpg: model.vpg, ...retentionOf([{ everyMillis: 0, forMillis: 20 * minute }]) })
  await model.restart()
  await model.age()
  t.equal(thinned.existing().length, before)
  t.equal(await comparedWith(thinned, thinned.existing()), undefined)
  const sparse = [
    { everyMillis: 0, forMillis: 20_000 },
    { everyMillis: 5 * minute, forMillis: 20 * minute },
  ]
  await model.worker.changeVpg({ vpg: model.vpg, ...retentionOf(sparse) })
  await model.age()
  t.ok(thinned.existing().length < before)
  t.equal(await comparedWith(thinned, thinned.existing()), undefined)
})

t.test('pages that the store refuses leave nothing, however often they are made again', async t => {
  const thinned = await folded(t, 21)
  const { model } = thinned
  const { objects } = model.memory
  let isRefusing = false
  const seen: string[] = []
  // Every second that is new.
  await model.restart((_, key) => {
    if (!isRefusing || !key.includes('/page/') || objects.has(key)) return 'works'
    if (!seen.includes(key)) seen.push(key)
    return seen.indexOf(key) % 2 === 1 ? 'refused' : 'works'
  })
  await model.age()
  const pages = (): string[] => [...objects.keys()].filter(key => key.includes('/page/'))
  const before = pages()
  isRefusing = true
  thinned.checkpoint(5 * minute)
  for (let turn = 0; turn < 4; turn++) {
    await model.age()
    model.clock.advance(600_000)
  }
  t.ok(seen.length >= 4, `${seen.length} are made`)
  t.strictSame(pages(), before)
  isRefusing = false
  const from = model.notices.length
  await model.age()
  t.ok(
    model.notices.slice(from).some(({ name }) => name === 'checkpointsThinned'),
    'and they are made when the store takes them',
  )
})
