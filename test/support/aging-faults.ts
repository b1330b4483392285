import { promises as fs } from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import { failedWith } from '../../src/base/failure.ts'
import { retentionOf } from '../../src/timeline/densities.ts'
import { openStore, type ObjectStore } from '../../src/store/store.ts'
import { AgingModel, streams } from './aging-model.ts'
import { strays } from './aging-strays.ts'
import { BucketStore } from './bucket-store.ts'
import { S3Simulator, type Fault, type Operation } from './s3-sim.ts'
import { randomFrom } from './segment-records.ts'

// A small history goes through everything that aging does, over the SDK and a simulated bucket, and one request of it meets a fault.

/** By name: what a request of this operation meets; undefined where the fault is none for it. */
export const faultKinds: Readonly<Record<string, (operation: Operation) => Fault | undefined>> = {
  'internal-error': () => ({ kind: 'refuse', status: 500, code: 'InternalError' }),
  'slow-down': () => ({ kind: 'refuse', status: 503, code: 'SlowDown' }),
  conflict: operation => ({
    kind: 'refuse',
    status: 409,
    code: operation === 'PutObject' ? 'ConditionalRequestConflict' : 'OperationAborted',
  }),
  denied: () => ({ kind: 'refuse', status: 403, code: 'AccessDenied' }),
  cut: () => ({ kind: 'cut' }),
  hang: () => ({ kind: 'hang' }),
  'lost-response': () => ({ kind: 'lose-response' }),
  'own-412': operation => (operation === 'PutObject' ? { kind: 'perform-twice' } : undefined),
  'corrupt-upload': operation => (operation === 'PutObject' ? { kind: 'corrupt-upload' } : undefined),
  'corrupt-body': operation => (hasBody(operation) ? { kind: 'corrupt-body' } : undefined),
  'truncated-body': operation => (hasBody(operation) ? { kind: 'truncate-body', sentBytes: 3 } : undefined),
  'short-body': operation => (hasBody(operation) ? { kind: 'shorten-body', sentBytes: 3 } : undefined),
  'stalled-body': operation => (hasBody(operation) ? { kind: 'stall-body', sentBytes: 3 } : undefined),
  'empty-page': operation => (operation === 'ListObjectsV2' ? { kind: 'empty-page' } : undefined),
  'killed-before': () => ({ kind: 'cut' }),
  'killed-after': () => ({ kind: 'lose-response' }),
}

/** One request that meets a fault, counted from the beginning of the work; or every sixth does, some fault of those that no process dies of. */
export type Injection = { readonly kind: string; readonly call: number } | { readonly storm: number }

export interface FaultyRun {
  /** What each request of the work asked for. */
  readonly operations: readonly Operation[]
  /** How many of them met a fault. */
  readonly faultCount: number
  /** Which checkpoints can be recovered in the end. */
  readonly retained: readonly number[]
  /** How often each notice was told. */
  readonly told: Readonly<Record<string, number>>
  /** What is wrong, in sentences. */
  readonly faults: readonly string[]
}

const credentials = { accessKeyId: 'test', secretAccessKey: 'secret' }
/** Kinds whose requests end by our patience alone: it is short enough to wait for, and long enough for a machine that has much else to do. */
const hanging: ReadonlySet<string> = new Set(['hang', 'stalled-body'])
const hangingTimeoutMillis = 2_500
const timeoutMillis = 30_000
const startsMax = 20

function hasBody(operation: Operation): boolean {
  return operation === 'GetObject' || operation === 'ListObjectsV2'
}

function timeoutMillisOf(injection: Injection | undefined): number {
  const mayHang = injection !== undefined && ('storm' in injection || hanging.has(injection.kind))
  return mayHang ? hangingTimeoutMillis : timeoutMillis
}

/** A request is given up after `requestTimeoutMillis`. */
export async function runWithFault(
  seed: number,
  injection?: Injection,
  requestTimeoutMillis = timeoutMillisOf(injection),
): Promise<FaultyRun> {
  const scratch = await fs.mkdtemp(path.join(os.tmpdir(), 'vra-faults-'))
  const simulator = await S3Simulator.start()
  try {
    const model = await prepared(seed, scratch)
    for (const [key, body] of model.memory.objects) await simulator.bucket.create(key, Buffer.from(body))
    model.images = new BucketStore(simulator.bucket)
    return await agedOver(simulator, model, { injection, requestTimeoutMillis })
  } finally {
    await simulator.close()
    await fs.rm(scratch, { recursive: true })
  }
}

const minuteMillis = 60_000
const densities = [
  { everyMillis: 0, forMillis: 20_000 },
  { everyMillis: 10_000, forMillis: 3 * minuteMillis },
  { everyMillis: minuteMillis, forMillis: 20 * minuteMillis },
]

/** A history that is folded, of which much is to be dropped and merged: what follows is the part that meets faults. */
async function prepared(seed: number, scratch: string): Promise<AgingModel> {
  const model = new AgingModel(randomFrom(seed), scratch, 1)
  await model.worker.open(model.config)
  await model.worker.follow({ durable: model.log.mark })
  await model.worker.createVpg({ ...model.definition, ...retentionOf(densities) })
  for (let round = 0; round < 3; round++) {
    addWrites(model, 12)
    await model.age()
  }
  return model
}

function addWrites(model: AgingModel, count: number): void {
  for (let index = 0; index < count; index++) {
    model.write(streams[index % 2] ?? 1, 5)
    checkpoint(model, 2000)
  }
}

function checkpoint(model: AgingModel, afterMillis: number): void {
  model.historyClockMillis += afterMillis - 1000
  model.checkpoint()
}

async function agedOver(
  simulator: S3Simulator,
  model: AgingModel,
  {
    injection,
    requestTimeoutMillis,
  }: { readonly injection: Injection | undefined; readonly requestTimeoutMillis: number },
): Promise<FaultyRun> {
  const operations: Operation[] = []
  let die: () => void = () => undefined
  const death = new Promise<'dead'>(resolve => (die = () => resolve('dead')))
  const kindAt = kindsOf(injection)
  let faultCount = 0
  simulator.failWhere(({ operation }) => {
    const kind = kindAt(operations.push(operation) - 1)
    const fault = kind === undefined ? undefined : faultKinds[kind]?.(operation)
    if (fault !== undefined) faultCount++
    if (kind?.startsWith('killed') === true) die()
    return fault
  })
  const opened: ObjectStore[] = []
  const restart = async (): Promise<void> => {
    const openS3 = async (): Promise<ObjectStore> => {
      opened.push(await openStore(configOf(simulator, requestTimeoutMillis), { credentials, clock: model.clock }))
      return opened.at(-1)!
    }
    await model.restart(undefined, model.config, { openStore: openS3 })
  }
  const plan = workOf(model, restart)
  let outcome: 'dead' | 'done' = 'done'
  const faults: string[] = []
  try {
    const working = plan.run()
    working.catch(() => undefined)
    outcome = await Promise.race([working, death])
    if (outcome === 'dead') {
      await model.worker.close()
      await working.catch(() => undefined)
      await plan.run()
    }
    const callCount = operations.length
    faults.push(...(await faultsOf(model)))
    const retained = await retainedOf(model, faults)
    return { operations: operations.slice(0, callCount), faultCount, retained, told: countsOf(model), faults }
  } finally {
    await model.worker.close().catch(() => undefined)
    for (const store of opened) await store.close()
  }
}

/** By the request's number. A storm flips no bits: what meets that twice is taken for damaged, as it should be. */
function kindsOf(injection: Injection | undefined): (call: number) => string | undefined {
  if (injection === undefined) return () => undefined
  if ('call' in injection) return call => (call === injection.call ? injection.kind : undefined)
  const random = randomFrom(injection.storm)
  const kinds = Object.keys(faultKinds).filter(kind => !kind.startsWith('killed') && kind !== 'corrupt-body')
  return () => (random() < 1 / 6 ? kinds[Math.floor(random() * kinds.length)] : undefined)
}

function configOf({ endpoint }: S3Simulator, requestTimeoutMillis: number) {
  return {
    ...({ kind: 's3', bucket: 'bucket', prefix: '', region: 'eu-central-1', forcePathStyle: true } as const),
    ...({ checksums: 'when-supported', serverSideEncryption: 'bucket-default', kmsKeyId: undefined } as const),
    endpoint,
    requestTimeoutMillis,
  }
}

/** Everything that aging does, in steps; run again after a death, it opens what is there and does what it has not done. */
function workOf(model: AgingModel, restart: () => Promise<void>): { readonly run: () => Promise<'done'> } {
  const newest = (): (typeof model.checkpoints)[number] => model.checkpoints.at(-1)!
  const steps: (() => Promise<void>)[] = [
    async () => checkpoint(model, 5 * minuteMillis),
    () => model.age(),
    async () => {
      await model.worker.tag({ vpg: model.vpg, ordinal: newest().checkpoint.ordinal, name: 'kept' })
    },
    async () => {
      const plan = await model.open(newest())
      await model.close(plan)
    },
    async () => {
      await model.worker.changeVpg({ vpg: model.vpg, checkpointIntervalMillis: 2000 })
    },
    async () => addWrites(model, 6),
    () => model.age(),
    async () => model.clock.advance(70_000),
    () => model.age(),
    async () => model.write(1, 5),
    async () => model.worker.durable(model.log.mark),
    async () => void (await model.worker.seal({ vpg: model.vpg })),
    async () => model.clock.advance(70_000),
    () => model.age(),
    async () => model.clock.advance(70_000),
    () => model.age(),
  ]
  let done = 0
  const run = async (): Promise<'done'> => {
    await untilStarted(model, restart)
    for (; done < steps.length; done++) await steps[done]?.()
    return 'done'
  }
  return { run }
}

/** A start that the store refuses tells so and ends, and on a machine with too much to do one may go on without the store: somebody starts it again. */
async function untilStarted(model: AgingModel, restart: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await restart()
    } catch (error) {
      const mayPass = failedWith(error, 'CONFIG_INVALID') || failedWith(error, 'STORE_UNAVAILABLE')
      if (!mayPass || attempt === startsMax) throw error
      await model.worker.close()
    }
  }
}

async function faultsOf(model: AgingModel): Promise<string[]> {
  const faults: string[] = []
  const wrong = ['damageFound', 'fenced', 'holeFound', 'storeAway']
  for (const { name, notice } of model.notices)
    if (wrong.includes(name)) faults.push(`it told ${name}: ${JSON.stringify(notice)}`)
  const left = await strays(model)
  if (left.length > 0) faults.push(`nobody knows of ${left.join(', ')}`)
  return faults
}

/** By another process that meets no faults: the ordinals that open, each image compared. */
async function retainedOf(model: AgingModel, faults: string[]): Promise<number[]> {
  await model.worker.close()
  await model.restart(undefined, model.config, { openStore: async () => model.images })
  await model.age()
  const retained: number[] = []
  for (const wanted of model.checkpoints) {
    try {
      const plan = await model.open(wanted)
      const difference = await model.difference(plan)
      await model.close(plan)
      if (difference !== undefined) faults.push(`checkpoint ${wanted.checkpoint.ordinal}: ${difference}`)
      retained.push(wanted.checkpoint.ordinal)
    } catch (error) {
      if (failedWith(error, 'CHECKPOINT_MISSING')) continue
      faults.push(`checkpoint ${wanted.checkpoint.ordinal}: ${String(error)}`)
    }
  }
  const { plan, sectors } = await model.openNewest()
  const difference = await model.difference(plan, sectors)
  if (difference !== undefined) faults.push(`what is newest: ${difference}`)
  return retained
}

function countsOf(model: AgingModel): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { name } of model.notices) counts[name] = (counts[name] ?? 0) + 1
  return counts
}
