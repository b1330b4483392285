import t, { type Test } from 'tap'
import { Failure } from '../../src/base/failure.ts'
import type { AgingConfig, AgingNotices, ImagePlan } from '../../src/aging/service.ts'
import { openDeltasMergedMin } from '../../src/base/limits.ts'
import { AgingModel, streams, type ModelCheckpoint } from '../support/aging-model.ts'
import { randomFrom } from '../support/segment-records.ts'

// Random histories against a plain map of sectors. Invariants, held after every few steps:
//
//   - every checkpoint that is retained (history, tag or pin) opens, and shows exactly the writes before it, whatever generations
//     the streams have gone through
//   - an image that stays open shows that, whatever is folded, rewritten and removed meanwhile
//   - the history that the VPG asks for is covered
//   - what is not offered is refused by CHECKPOINT_MISSING, never served
//   - a synchronisation far larger than a fold, with no checkpoint inside, broken off and begun again or not, is folded and merged all the same,
//     and harms no checkpoint before it
//   - a log file is freed only when all its records are in committed segments: records that a restart needs are there

const historyMillis = 12_000

/** With `sleeps` the VPG lets go of its contents whenever nobody needs them. */
async function randomHistory(t: Test, seed: number, steps: number, { sleeps = false } = {}): Promise<void> {
  const model = new AgingModel(randomFrom(seed), t.testdir(), historyMillis)
  if (sleeps) model.contentsSizeBytesMax = 0
  const open: ImagePlan[] = []
  const tags = new Map<string, ModelCheckpoint>()
  const pickRecent = (): ModelCheckpoint | undefined => {
    const newest = model.checkpoints.length - 1
    return model.checkpoints[Math.max(0, newest - model.below(10))]
  }
  await model.restart()
  await model.worker.createVpg(model.definition)
  for (let step = 0; step < steps; step++) {
    const choice = model.random()
    if (choice < 0.01) {
      // A synchronisation: a generation of its own, and more than a fold takes without any checkpoint inside.
      model.openGeneration(streams[model.below(2)] ?? 1)
      for (let batch = 0; batch < 60; batch++) {
        model.write(streams[model.below(2)] ?? 1, 1 + model.below(8))
        if (batch % 10 === 9) await model.age()
        if (model.random() < 0.03) model.openGeneration(streams[model.below(2)] ?? 1) // broken off, and begun again
        if (model.random() < 0.02) {
          await model.restart()
          open.length = 0
        }
      }
    } else if (choice < 0.5) model.write(streams[model.below(2)] ?? 1, 1 + model.below(8))
    else if (choice < 0.72) model.checkpoint()
    else if (choice < 0.86) await model.age()
    else if (choice < 0.89) model.clock.advance(model.below(40_000))
    else if (choice < 0.91) {
      // Lost replies and short outages go unnoticed but for the notices.
      await model.restart((operation, key) => faultOf(model.random(), operation, key))
      open.length = 0
    } else if (choice < 0.94) {
      const wanted = pickRecent()
      if (wanted !== undefined) {
        await model.age()
        await model.worker.tag({ vpg: model.vpg, ordinal: wanted.checkpoint.ordinal, name: `tag${step}` })
        tags.set(`tag${step}`, wanted)
      }
    } else if (choice < 0.95) {
      const [name] = tags.keys()
      if (name !== undefined) {
        await model.worker.untag({ vpg: model.vpg, name })
        tags.delete(name)
      }
    } else if (choice < 0.98) {
      const wanted = pickRecent()
      if (wanted !== undefined && open.length < 3) open.push(await model.open(wanted))
    } else {
      const plan = open.shift()
      if (plan !== undefined) {
        t.equal(await model.difference(plan), undefined, `seed ${seed}, step ${step}: an image that was open for long`)
        await model.close(plan)
      }
    }
    if (step % 60 === 59) await compareRetained(t, model, [...tags.values()], `seed ${seed}, step ${step}`)
  }
  await model.age()
  await compareRetained(t, model, [...tags.values()], `seed ${seed}, at the end`)
  const done = new Set(model.notices.map(({ name }) => name))
  for (const name of [
    'segmentCommitted',
    'folded',
    'regionRewritten',
    'historyEdgeMoved',
    'garbageRemoved',
    'logFileFree',
  ]) {
    t.ok(done.has(name), `seed ${seed} came to ${name}`)
  }
  t.ok(model.openDeltaCount > 0, `seed ${seed} came to open deltas`)
  t.notOk(done.has('damageFound') || done.has('fenced') || done.has('holeFound'), `seed ${seed} found nothing wrong`)
}

function faultOf(chance: number, operation: number, _key: string): 'works' | 'fails-before' | 'fails-after' {
  if (operation < 400) return 'works' // opening fails as the store does, which is another test
  return chance < 0.03 ? 'fails-before' : chance < 0.06 ? 'fails-after' : 'works'
}

async function compareRetained(
  t: Test,
  model: AgingModel,
  tagged: readonly ModelCheckpoint[],
  when: string,
): Promise<void> {
  await model.age()
  const { historyEdge } = await model.worker.status({ vpg: model.vpg })
  const newest = model.checkpoints.at(-1)
  if (newest === undefined) return
  const inHistory = model.checkpoints.filter(({ checkpoint }) => checkpoint.ordinal >= historyEdge)
  const oldest = inHistory[0]?.checkpoint.historyMillis ?? Infinity
  const covered = oldest <= newest.checkpoint.historyMillis - historyMillis || oldest === 1000
  t.ok(covered, `${when}: the history is covered`)
  for (const wanted of new Set([...inHistory, ...tagged])) {
    const plan = await model.open(wanted)
    const difference = await model.difference(plan)
    await model.close(plan)
    if (difference !== undefined) t.fail(`${when}: checkpoint ${wanted.checkpoint.ordinal}: ${difference}`)
  }
  const { plan, sectors } = await model.openNewest()
  t.equal(await model.difference(plan, sectors), undefined, `${when}: what is newest`)
  await model.close(plan)
  const dropped = model.checkpoints.find(one => one.checkpoint.ordinal < historyEdge && !tagged.includes(one))
  if (dropped === undefined) return
  const refused = await model.open(dropped).catch((error: unknown) => error)
  if (refused instanceof Failure) t.equal(refused.code, 'CHECKPOINT_MISSING', `${when}: what is gone is refused`)
}

for (const seed of [1, 4]) {
  t.test(`every retained checkpoint is what the model says, seed ${seed}`, async t => {
    await randomHistory(t, seed, 420)
  })
}

t.test('and so it is of a VPG that sleeps whenever it can, seed 2', async t => {
  await randomHistory(t, 2, 180, { sleeps: true })
})

t.test('of a synchronisation that lasts few open deltas are left, however often it is begun again', async t => {
  const model = await withOneCheckpoint(t, 31)
  const config: AgingConfig = {
    ...model.config,
    segmentSizeBytesTarget: 32 * 1024,
    foldSizeBytesMin: 32 * 1024,
    foldSizeBytesMax: 64 * 1024,
    mergeSizeBytesMax: 512 * 1024,
  }
  await model.restart(undefined, config)
  const before = model.checkpoints.at(-1)!
  const pieceBytes = 16 * 1024
  let mostOpen = 0
  /** All of the first stream's disk in pieces, while guests of both write where they like, or do not. */
  const sync = async ({ pieceCount, isQuiet }: { readonly pieceCount: number; readonly isQuiet: boolean }) => {
    model.openGeneration(1)
    for (let piece = 0; piece < pieceCount; piece++) {
      model.writeOver(1, piece * pieceBytes, pieceBytes)
      if (!isQuiet && piece % 3 === 0) model.write(streams[piece % 2] ?? 1, 3)
      if (piece % 4 === 3) await model.age()
      if (piece % 100 === 99) await model.restart(undefined, config)
      if (piece % 100 !== 99) continue
      const { plan, sectors } = await model.openNewest()
      mostOpen = Math.max(mostOpen, plan.state.deltas.filter(delta => delta.open !== undefined).length)
      t.equal(await model.difference(plan, sectors), undefined, `the disks after ${piece + 1} pieces`)
      await model.close(plan)
    }
  }
  const mergedBytes = (): number =>
    model.notices
      .filter(({ name }) => name === 'deltasMerged')
      .reduce((sum, { notice }) => sum + (notice as AgingNotices['deltasMerged']).mergedRawSizeBytes, 0)
  await sync({ pieceCount: 200, isQuiet: true })
  t.equal(mergedBytes(), 0, 'nothing of what lies alone is read')
  t.ok(
    model.notices.some(({ name }) => name === 'deltasMerged'),
    'it is put together all the same',
  )
  await sync({ pieceCount: 100, isQuiet: false })
  await sync({ pieceCount: 200, isQuiet: false })
  t.ok(mostOpen > 1 && mostOpen < 2 * openDeltasMergedMin, `at most ${mostOpen} open deltas`)
  t.ok(mergedBytes() > 0)
  for (const whole of [before, model.checkpoint()]) {
    await model.age()
    const plan = await model.open(whole)
    t.equal(await model.difference(plan), undefined, `checkpoint ${whole.checkpoint.ordinal}`)
    await model.close(plan)
  }
})

t.test('what is held of a removed volume is read for as long as the history has it, and leaves with it', async t => {
  const model = await withOneCheckpoint(t, 41)
  const [first, second] = [1, 2] as const
  const some = async (steps: number): Promise<void> => {
    for (let step = 0; step < steps; step++) {
      for (let batch = 0; batch < 6; batch++) model.write(streams[batch % 2] ?? 1, 8)
      model.checkpoint()
      await model.age()
    }
  }
  const held = async (): Promise<number[]> => {
    const { plan } = await model.openNewest()
    await model.close(plan)
    const { deltas, regions } = plan.state
    const packs = [...deltas.flatMap(delta => delta.packs), ...regions.flatMap(({ pack }) => pack ?? [])]
    return [...new Set(packs.map(({ volume }) => volume))].sort()
  }
  await some(12)
  t.ok((await held()).includes(second))
  const last = model.checkpoints.at(-1)!
  await model.worker.changeVolumes({ vpg: model.vpg, change: { kind: 'remove', name: `disk${second}` } })
  await some(2) // its agent has not heard of it
  model.unnamed.add(second)
  await some(4)
  await model.restart()
  for (const whole of [last, ...model.checkpoints.slice(-6)]) {
    const plan = await model.open(whole)
    t.equal(await model.difference(plan), undefined, `checkpoint ${whole.checkpoint.ordinal}`)
    await model.close(plan)
  }
  await some(20)
  t.same(await held(), [first])
  model.unnamed.delete(second)
  const late = model.checkpoint()
  model.unnamed.add(second)
  await model.age()
  const plan = await model.open(late)
  const included = plan.checkpoint.volumes.flatMap(volume => (volume.included ? volume.number : []))
  t.same(included, [first], 'one that names it all the same is not read for it')
  t.equal(await model.difference(plan), undefined)
  await model.close(plan)
  await model.restart()
  await some(2)
  t.same(await held(), [first])
  t.equal(await model.difference(await model.open(model.checkpoints.at(-1)!)), undefined)
})

t.test('a hole is repaired by a synchronisation that began after it was known, and by no other', async t => {
  const model = new AgingModel(randomFrom(9), t.testdir(), historyMillis)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg(model.definition)
  model.write(1, 5)
  const before = model.checkpoint()
  model.writeBad(1)
  const inside = model.checkpoint()
  await model.age()
  const refused = { code: 'CHECKPOINT_MISSING' }
  await t.rejects(model.open(inside), refused)
  const partly = model.openGeneration(1)
  model.write(1, 3)
  await model.worker.generationOpened({ vpg: model.vpg, stream: 1, generation: partly, wholeVolumes: [2] })
  const unrepaired = model.checkpoint()
  await model.age()
  await t.rejects(model.open(unrepaired), refused, 'another volume was synchronised')
  const generation = model.openGeneration(1)
  await model.worker.generationOpened({ vpg: model.vpg, stream: 1, generation, wholeVolumes: [1] })
  model.writeOver(1, 4096, 16 * 1024)
  await model.restart()
  const repaired = model.checkpoint()
  await model.age()
  for (const whole of [before, repaired]) {
    const plan = await model.open(whole)
    t.equal(await model.difference(plan), undefined, `checkpoint ${whole.checkpoint.ordinal}`)
    await model.close(plan)
  }
  await t.rejects(model.open(inside), refused, 'between them nothing is offered')
  for (let turn = 0; turn < 40; turn++) {
    for (let batch = 0; batch < 8; batch++) model.write(streams[batch % 2] ?? 1, 8)
    model.checkpoint()
    await model.age()
  }
  const newest = model.checkpoints.at(-1)
  if (newest !== undefined)
    t.equal(await model.difference(await model.open(newest)), undefined, 'it is folded, over the bad record')
  t.ok(
    model.notices.some(
      ({ name, notice }) => name === 'holesChanged' && (notice as { holes: unknown[] }).holes.length === 0,
    ),
    'when the history is past it, it is forgotten',
  )
})

t.test(
  'an agent that falls out of a cut and synchronises is folded all the same, and its late marker makes no wrong checkpoint',
  async t => {
    const model = new AgingModel(randomFrom(10), t.testdir(), historyMillis)
    await model.worker.open(model.config)
    await model.worker.follow({ durable: model.log.mark })
    await model.worker.createVpg(model.definition)
    model.write(1, 5)
    const before = model.checkpoint()
    const complete = model.halfCheckpoint()
    model.openGeneration(1)
    for (let batch = 0; batch < 60; batch++) model.write(1, 8)
    model.clock.advance(20_000)
    await model.age()
    t.ok(model.notices.some(({ name }) => name === 'checkpointsGivenUp'))
    await model.restart()
    await model.age()
    const late = complete()
    await t.rejects(model.open(late), { code: 'CHECKPOINT_MISSING' })
    const after = model.checkpoint()
    await model.age()
    await t.rejects(model.open(late), { code: 'CHECKPOINT_MISSING' }, 'nor when its markers are in segments')
    for (const whole of [before, after]) {
      t.equal(await model.difference(await model.open(whole)), undefined, `checkpoint ${whole.checkpoint.ordinal}`)
    }
    t.ok(model.openDeltaCount > 0, 'it came to open deltas')
  },
)

async function withOneCheckpoint(t: Test, seed: number): Promise<AgingModel> {
  const model = new AgingModel(randomFrom(seed), t.testdir(), historyMillis)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg(model.definition)
  model.write(1, 10)
  model.checkpoint()
  await model.age()
  return model
}

t.test('no open fold goes past a checkpoint that is complete, though its last marker is in the log alone', async t => {
  const model = await withOneCheckpoint(t, 21)
  const completed = model.halfCheckpoint()
  // More than one fold takes, all of it after the first stream's marker.
  for (let count = 0; count < 200; count++) model.write(1, 20)
  model.worker.durable(model.log.mark)
  await model.worker.seal({ vpg: model.vpg })
  const made = completed()
  await model.age()
  const plan = await model.open(made)
  t.equal(await model.difference(plan, made.sectors), undefined)
  await model.close(plan)
  t.notOk(model.notices.some(({ name }) => name === 'checkpointsGivenUp'))
})

t.test('nor past one that is told of before the daemon, however late, answers that it is given up', async t => {
  const model = await withOneCheckpoint(t, 22)
  const completed = model.halfCheckpoint()
  for (let count = 0; count < 200; count++) model.write(1, 20)
  let made: ModelCheckpoint | undefined
  model.beforeGivenUp = async () => {
    for (let turn = 0; turn < 200; turn++) await new Promise(resolve => setImmediate(resolve))
    made ??= completed()
  }
  await model.age()
  if (made === undefined) return t.fail('nothing was given up')
  const plan = await model.open(made)
  t.equal(await model.difference(plan, made.sectors), undefined)
  await model.close(plan)
})

t.test('the thread can be closed while that answer is still out', async t => {
  const model = await withOneCheckpoint(t, 22)
  model.halfCheckpoint()
  for (let count = 0; count < 200; count++) model.write(1, 20)
  const asked = new Promise<void>(resolve => {
    model.beforeGivenUp = () => {
      resolve()
      return new Promise(() => undefined)
    }
  })
  const aging = model.age()
  aging.catch(() => undefined) // it is looked at below
  await asked
  await model.worker.close()
  await t.rejects(aging, { code: 'CLOSING' })
})
