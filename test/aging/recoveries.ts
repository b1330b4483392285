import t from 'tap'
import { failedWith } from '../../src/base/failure.ts'
import { recoveriesKeptMax, recoveriesUnfinishedMax, recoverySizeBytesMax } from '../../src/base/limits.ts'
import { dumpVpg, loadVpg } from '../../src/manifest/manifest.ts'
import { hasEnded, pinOf, type RecoveryRecord, type RecoveryState } from '../../src/timeline/recovery.ts'
import { AgingModel, streams, type ModelCheckpoint } from '../support/aging-model.ts'
import { strays } from '../support/aging-strays.ts'
import { randomFrom } from '../support/segment-records.ts'

// Records of recoveries. Invariants, whatever dies wherever:
//
//   - a record that has not ended and names a checkpoint is there with its pin, or neither is; no pin is there without its record
//   - a checkpoint that is pinned opens, and shows exactly the writes before it, however far the history has gone on
//   - when all recoveries have ended, nothing of the history that they kept is left

const never = new AbortController().signal

function recordOf(id: string, state: RecoveryState, at: ModelCheckpoint | undefined, changes = {}): RecoveryRecord {
  return {
    formatVersion: 1,
    id,
    kind: 'test',
    incarnation: 1,
    handOver: 'none',
    checkpoint: at?.checkpoint,
    vms: [{ name: 'agent1', volumes: [1] }],
    target: { kind: 'raw', settings: {} },
    commitPolicy: { kind: 'none', afterMillis: 3_600_000 },
    state,
    memory: null,
    createdAtMicros: Number(id.replace(/\D/g, '')),
    readyAtMicros: undefined,
    endedAtMicros: undefined,
    failure: undefined,
    ...changes,
  }
}

async function running(scratch: string, seed: number, historyMillis: number): Promise<AgingModel> {
  const model = new AgingModel(randomFrom(seed), scratch, historyMillis)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg(model.definition)
  return model
}

async function put(model: AgingModel, record: RecoveryRecord, isNew = false): Promise<void> {
  model.worker.durable(model.log.mark)
  await model.worker.putRecovery({ vpg: model.vpg, record, isNew })
}

async function stored(model: AgingModel, applianceId = 'appliance-one') {
  const { contents } = await loadVpg(model.memory, model.vpg, applianceId, never)
  return contents.state
}

/** What the history of this model keeps goes on without these. */
async function goOn(model: AgingModel, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const stream of streams) model.write(stream, 6)
    model.checkpoint()
    if (round % 3 === 2) await model.age()
  }
  await model.age()
}

t.test('a recovery keeps its checkpoint through aging, restarts and a takeover, until it has ended', async t => {
  const model = await running(t.testdir(), 1, 3_000)
  await goOn(model, 3)
  const at = model.checkpoint()
  await put(model, recordOf('r-1', 'preparing', at), true)
  await goOn(model, 30)
  await model.restart()
  await goOn(model, 10)
  const plan = await model.open(at)
  t.equal(await model.difference(plan), undefined, 'it has left the history, and shows what it did')
  t.strictSame(plan.state.recoveries, [], 'which is nothing that a reader has to know')
  await model.close(plan)

  await model.restart(undefined, { ...model.config, applianceId: 'appliance-two', adopt: true })
  await model.age()
  const taken = await stored(model, 'appliance-two')
  t.strictSame(taken.recoveries, [recordOf('r-1', 'preparing', at)].map(asJson))
  t.strictSame(taken.pins, pinOf(recordOf('r-1', 'preparing', at)))
  const again = await model.open(at)
  t.equal(await model.difference(again), undefined)
  await model.close(again)
  await t.rejects(model.worker.deleteVpg({ vpg: model.vpg, isForced: false }), {
    code: 'BUSY',
    message: /r-1 \(test, preparing\)/,
  })
  const removing = recordOf('r-1', 'removing', at, { target: { kind: 'aws', settings: {} } })
  for (const record of [recordOf('r-1', 'preparing', at), recordOf('r-1', 'removing', at)]) {
    await put(model, record)
    await t.rejects(model.worker.deleteVpg({ vpg: model.vpg, isForced: true }), { code: 'BUSY' }, 'that ends by itself')
  }
  await put(model, removing)
  await t.rejects(model.worker.deleteVpg({ vpg: model.vpg, isForced: false }), { code: 'BUSY', message: /--force/ })

  await put(model, recordOf('r-1', 'removed', at, { endedAtMicros: 7 }))
  const after = await stored(model, 'appliance-two')
  t.strictSame(after.pins, [])
  t.match(after.recoveries, [{ id: 'r-1', state: 'removed' }], 'it is history')
  await t.rejects(model.open(at), { code: 'CHECKPOINT_MISSING' })
  await model.worker.deleteVpg({ vpg: model.vpg, isForced: false })
})

/** As it comes back from the store. */
function asJson(record: RecoveryRecord): unknown {
  return JSON.parse(JSON.stringify(record))
}

t.test(
  'record and pin are one commit: a process that dies at any call of the store leaves both or neither',
  async t => {
    let operation = 0
    for (let hasDied = true; hasDied; operation++) {
      const model = await running(t.testdir(), 2, 3_000)
      await goOn(model, 4)
      const at = model.checkpoint()
      hasDied = false
      const process = async (): Promise<void> => {
        await model.restart(index => {
          if (index !== operation) return 'works'
          hasDied = true
          return operation % 2 === 0 ? 'dies-before' : 'dies-after'
        })
        for (const state of ['preparing', 'ready', 'removing', 'removed'] as const)
          await put(model, recordOf('r-1', state, at), state === 'preparing')
      }
      await process().catch(unlessClosing)
      const { recoveries, pins } = await stored(model)
      t.strictSame(pins, recoveries.flatMap(pinOf), `died at ${operation}: ${recoveries[0]?.state}`)
      await model.restart()
      await goOn(model, 6)
      const kept = await stored(model)
      t.strictSame(
        kept.pins,
        recoveries.flatMap(pinOf),
        `died at ${operation}: what comes after drops none, and makes none`,
      )
      if (kept.pins.length === 0) continue
      const plan = await model.open(at)
      t.equal(await model.difference(plan), undefined)
      await model.close(plan)
    }
    t.ok(operation > 8, `${operation} operations`)
  },
)

function unlessClosing(error: unknown): void {
  if (!failedWith(error, 'CLOSING')) throw error
}

t.test('random histories: recoveries come, go on and end while all else ages, and nothing is left of them', async t => {
  for (let seed = 10; seed < 14; seed++) {
    const model = await running(t.testdir(), seed, 4_000)
    const open = new Map<string, { readonly record: RecoveryRecord; readonly at: ModelCheckpoint }>()
    let count = 0
    for (let round = 0; round < 30; round++) {
      await goOn(model, 1 + model.below(3))
      if (model.below(3) === 0 && open.size < 5) {
        const at = model.checkpoints.at(-1 - model.below(2))
        if (at === undefined) continue
        const record = recordOf(`r-${++count}`, 'preparing', at)
        await put(model, record, true)
        open.set(record.id, { record, at })
      }
      if (model.below(8) === 0) await model.restart()
      const [some] = [...open.values()].slice(model.below(Math.max(1, open.size)))
      if (some === undefined) continue
      const plan = await model.open(some.at)
      const difference = await model.difference(plan)
      if (difference !== undefined) t.fail(`seed ${seed}, round ${round}: ${difference}`)
      await model.close(plan)
      if (model.below(4) !== 0) continue
      const state = model.below(2) === 0 ? 'removed' : 'committed'
      await put(model, { ...some.record, state, endedAtMicros: round })
      open.delete(some.record.id)
    }
    t.ok(count > 5, `${count} recoveries`)
    for (const { record } of open.values()) await put(model, { ...record, state: 'removed', endedAtMicros: 99 })
    await goOn(model, 12)
    model.clock.advance(2 * model.config.garbageGraceMillis)
    await goOn(model, 3)
    const state = await stored(model)
    t.strictSame(state.pins, [], `seed ${seed}: no pin is left`)
    t.ok(state.recoveries.every(hasEnded))
    t.strictSame(await strays(model), [], `seed ${seed}: nor any object`)
  }
})

t.test('a recovery of a checkpoint that is not kept is refused, and leaves nothing', async t => {
  const model = await running(t.testdir(), 3, 3_000)
  const gone = model.checkpoint()
  await goOn(model, 20)
  await t.rejects(put(model, recordOf('r-1', 'preparing', gone), true), {
    code: 'CHECKPOINT_MISSING',
    message: /the nearest that are kept/,
  })
  const { recoveries, pins } = await stored(model)
  t.strictSame({ recoveries, pins }, { recoveries: [], pins: [] })
})

t.test('a move that drains has no pin; it comes with the checkpoint that draining made', async t => {
  const model = await running(t.testdir(), 4, 3_000)
  await goOn(model, 3)
  await put(model, recordOf('r-1', 'draining', undefined), true)
  t.strictSame((await stored(model)).pins, [])
  const last = model.checkpoint()
  await put(model, recordOf('r-1', 'preparing', last))
  t.match((await stored(model)).pins, [{ id: 'r-1', ordinal: last.checkpoint.ordinal, kind: 'recovery' }])
})

t.test('there are limits: how many are under way, how large a record is, how many are remembered', async t => {
  const model = await running(t.testdir(), 5, 3_000)
  await goOn(model, 3)
  const at = model.checkpoint()
  for (let index = 1; index <= recoveriesUnfinishedMax; index++)
    await put(model, recordOf(`r-${index}`, 'ready', at), true)
  await t.rejects(put(model, recordOf('r-900', 'preparing', at), true), { code: 'BUSY', message: /commit, roll back/ })
  const memory = 'x'.repeat(recoverySizeBytesMax)
  await t.rejects(put(model, recordOf('r-1', 'ready', at, { memory })), { code: 'REQUEST_INVALID' })
  const large = 'x'.repeat(recoverySizeBytesMax - 4096)
  for (let index = 1; index <= recoveriesUnfinishedMax; index++)
    await put(model, recordOf(`r-${index}`, 'ready', at, { memory: large }))
  t.equal((await stored(model)).recoveries.length, recoveriesUnfinishedMax, 'the largest of them fit in a manifest')
  for (let index = 1; index <= recoveriesUnfinishedMax; index++)
    await put(model, recordOf(`r-${index}`, 'removed', at, { endedAtMicros: index }))
  await put(model, recordOf('r-0', 'committed', at, { endedAtMicros: 0 }))
  for (let index = 100; index < 100 + recoveriesKeptMax; index++)
    await put(model, recordOf(`r-${index}`, 'removed', at, { endedAtMicros: index }))
  const { recoveries, pins } = await stored(model)
  t.equal(recoveries.length, 1 + recoveriesKeptMax)
  t.equal(recoveries[0]?.id, 'r-0', 'what was committed is not forgotten for tests')
  t.equal(recoveries[1]?.id, 'r-100', 'the oldest tests are')
  t.strictSame(pins, [])
  const lines = []
  for await (const line of dumpVpg(model.memory, model.vpg, never)) lines.push(line)
  t.ok(lines.some(line => /^recovery r-0 test committed, on raw, at 1\.\d+$/.test(line)))
})

t.test('an image of a pinned checkpoint opens without a commit, and outlives the recovery', async t => {
  const model = await running(t.testdir(), 6, 3_000)
  await goOn(model, 3)
  const at = model.checkpoint()
  await put(model, recordOf('r-1', 'ready', at), true)
  const sizes = await model.worker.dataSizes({ vpg: model.vpg, checkpoint: at.checkpoint })
  t.match(sizes, [{ volume: 1 }, { volume: 2 }])
  for (const { sizeBytes, dataSizeBytes } of sizes) t.ok(0 < dataSizeBytes && dataSizeBytes < sizeBytes)
  const { commitNumber } = await stored(model)
  const plan = await model.open(at)
  t.equal((await stored(model)).commitNumber, commitNumber)
  await put(model, recordOf('r-1', 'removed', at, { endedAtMicros: 1 }))
  await goOn(model, 20)
  model.clock.advance(2 * model.config.garbageGraceMillis)
  await goOn(model, 3)
  t.equal(await model.difference(plan), undefined, 'what it reads has stayed')
  await model.close(plan)
  await t.rejects(model.open(at), { code: 'CHECKPOINT_MISSING' })
  await t.rejects(model.worker.dataSizes({ vpg: model.vpg, checkpoint: at.checkpoint }), { code: 'CHECKPOINT_MISSING' })
})

t.test('checkpoints of a disk that nobody writes to are no data', async t => {
  const model = await running(t.testdir(), 7, 3_000)
  await goOn(model, 3)
  const sizesNow = async () => {
    const { checkpoint } = model.halfCheckpoint()() // between whose markers nothing is written
    // Read, and not put into segments: what is there stays in its form.
    model.worker.durable(model.log.mark)
    await model.worker.readTail()
    return (await model.worker.dataSizes({ vpg: model.vpg, checkpoint })).map(({ dataSizeBytes }) => dataSizeBytes)
  }
  const before = await sizesNow()
  for (let idle = 0; idle < 20; idle++) model.halfCheckpoint()()
  t.strictSame(await sizesNow(), before)
})
