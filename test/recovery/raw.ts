import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import type { ImagePlan } from '../../src/aging/service.ts'
import { systemClock } from '../../src/base/clock.ts'
import { realFileCalls } from '../../src/disk/disk.ts'
import { RawTarget, type RawTools } from '../../src/recovery/recovery.ts'
import type { TargetContext, TargetRequest } from '../../src/recovery/target.ts'
import type { RecoveryRecord } from '../../src/timeline/recovery.ts'
import { checkpoint, definition } from '../support/recovery-world.ts'

// Recovery into files of a real directory; what is written into them is somebody else's work.

const { signal } = new AbortController()
const vms = [{ name: 'a', volumes: [1] }]

interface Site {
  readonly directory: string
  readonly held: { record: RecoveryRecord }
  readonly writeCount: () => number
  target(changes?: Partial<RawTools>): RawTarget
  request(directory: string): TargetRequest
  context(): TargetContext
}

function site(t: Test): Site {
  const directory = path.join(t.testdir({ files: {} }), 'files')
  let writeCount = 0
  const held: Site['held'] = {
    record: {
      ...{
        formatVersion: 1,
        id: 'r-0123456789ab',
        kind: 'failover',
        incarnation: 1,
        handOver: 'none',
        checkpoint,
        vms,
      },
      ...{ target: { kind: 'raw', settings: { directory } }, commitPolicy: { kind: 'none', afterMillis: 0 } },
      ...{ state: 'preparing', memory: null, createdAtMicros: 1 },
      ...{ readyAtMicros: undefined, endedAtMicros: undefined, failure: undefined },
    },
  }
  const tools: RawTools = {
    clock: systemClock,
    calls: realFileCalls,
    freeBytes: () => 1e12,
    write: ({ file }) => {
      writeCount++
      // As exportRaw does it.
      fs.writeFileSync(`${file}.partial`, Buffer.alloc(4096, 7), { flag: 'r+' })
      fs.linkSync(`${file}.partial`, file)
      fs.rmSync(`${file}.partial`)
      return Promise.resolve({ writtenSizeBytes: 4096 } as Awaited<ReturnType<RawTools['write']>>)
    },
    ownDirectories: [],
  }
  return {
    directory,
    held,
    writeCount: () => writeCount,
    target: changes => new RawTarget({ ...tools, ...changes }),
    request: to => ({
      ...{ kind: 'failover', definition, checkpoint, vms, sizes: [], settings: { directory: to } },
    }),
    context: () => ({
      get record() {
        return held.record
      },
      definition,
      remember: memory => {
        held.record = { ...held.record, memory }
        return Promise.resolve()
      },
      openPlan: () => Promise.resolve({ checkpoint } as ImagePlan),
      release: () => Promise.resolve(),
      progress: () => undefined,
      signal,
    }),
  }
}

t.test('a file is known again where its device has another number than before', async t => {
  const { directory, held, writeCount, target, context } = site(t)
  const file = path.join(directory, 'a-root.raw')
  await target().prepare(context())
  t.equal(fs.statSync(file).size, 4096)
  const stat = async (name: string, options: { readonly bigint: true }) => {
    const found = await realFileCalls.stat(name, options)
    return Object.assign(Object.create(Object.getPrototypeOf(found) as object) as object, found, { dev: 99n })
  }
  const mountedAgain = target({ calls: { ...realFileCalls, stat: stat as unknown as RawTools['calls']['stat'] } })
  await mountedAgain.prepare(context())
  t.equal(writeCount(), 1, 'it is whole already')

  // As it was remembered when the device was part of it.
  const { files } = held.record.memory as { files: Record<string, string> }
  held.record = { ...held.record, memory: { files: { 1: `2049:${files['1']}` } } }
  await mountedAgain.remove(context())
  t.strictSame(fs.readdirSync(directory), [])
})

t.test("what stands in a file's place is another file, whatever its name", async t => {
  const { directory, target, context } = site(t)
  const file = path.join(directory, 'a-root.raw')
  await target().prepare(context())
  fs.renameSync(file, `${file}.mine`)
  fs.writeFileSync(file, 'theirs')
  await target().remove(context())
  t.equal(fs.readFileSync(file, 'utf8'), 'theirs')
})

t.test('a file that another recovery is writing is refused, by whatever name the directory is known', async t => {
  const { directory, target, request } = site(t)
  const alias = path.join(path.dirname(directory), 'alias')
  fs.symlinkSync(directory, alias)
  const partial = path.join(directory, 'a-root.raw.r-ba9876543210.partial')
  fs.writeFileSync(partial, '')
  for (const place of [directory, alias])
    await t.rejects(target().plan(request(place)), {
      code: 'ALREADY_EXISTS',
      message: /recovery r-ba9876543210 is writing/,
    })
  fs.renameSync(partial, path.join(directory, 'b-root.raw.r-ba9876543210.partial'))
  await target().plan(request(alias))
})

t.test('of two recoveries that are begun in the same instant into one directory one writes', async t => {
  const { directory, held, writeCount, target, request, context } = site(t)
  await target().plan(request(directory))
  await target().plan(request(directory)) // neither has anything there yet
  const other: { record: RecoveryRecord } = { record: { ...held.record, id: 'r-ba9876543210' } }
  const otherContext: TargetContext = {
    ...context(),
    get record() {
      return other.record
    },
    remember: memory => {
      other.record = { ...other.record, memory }
      return Promise.resolve()
    },
  }
  const outcomes = await Promise.allSettled([target().prepare(context()), target().prepare(otherContext)])
  const lost = outcomes.flatMap((outcome, index) => (outcome.status === 'rejected' ? [{ index, ...outcome }] : []))
  t.equal(lost.length, 1)
  t.match(lost[0]?.reason, { code: 'ALREADY_EXISTS' })
  t.equal(writeCount(), 1, 'the other one finds out before it writes')
  const [loser, winner] = lost[0]?.index === 0 ? [context(), otherContext] : [otherContext, context()]
  await target().remove(loser)
  t.strictSame(fs.readdirSync(directory), ['a-root.raw'], 'what it leaves is what the other one wrote')
  await target().remove(winner)
  t.strictSame(fs.readdirSync(directory), [])
})

t.test(
  'what a process left that was killed between the name and the tidying is gone when it is gone on with',
  async t => {
    const { directory, held, writeCount, target, context } = site(t)
    const own = path.join(directory, 'a-root.raw.r-0123456789ab')
    await target().prepare(context())
    for (const known of [held.record.memory, null]) {
      if (known === null) fs.renameSync(path.join(directory, 'a-root.raw'), own) // killed before it was noted
      held.record = { ...held.record, memory: known }
      for (const left of ['progress', 'partial']) fs.writeFileSync(`${own}.${left}`, '')
      await target().prepare(context())
      t.strictSame(fs.readdirSync(directory), ['a-root.raw'])
    }
    t.equal(writeCount(), 1)
  },
)

t.test(
  'a recovery that was killed while it wrote has its file, and nothing of it is left when it is removed',
  async t => {
    const { directory, target, request, context } = site(t)
    const dying = (): Promise<never> => Promise.reject(new Error('killed'))
    await t.rejects(target({ write: dying }).prepare(context()), { message: 'killed' })
    const own = 'a-root.raw.r-0123456789ab'
    for (const left of ['progress', 'progress.staged', '01234567.partial'])
      fs.writeFileSync(path.join(directory, `${own}.${left}`), '')
    t.ok(fs.existsSync(path.join(directory, `${own}.partial`)))
    await t.rejects(target().plan(request(directory)), { code: 'ALREADY_EXISTS' })
    await target().remove(context())
    t.strictSame(fs.readdirSync(directory), [])
    fs.writeFileSync(path.join(directory, 'a-root.raw.partial'), 'of somebody else')
    await t.rejects(target().plan(request(directory)), { code: 'ALREADY_EXISTS', message: /a-root.raw.partial exists/ })
    await t.rejects(target().prepare(context()), { code: 'ALREADY_EXISTS' })
    await target().remove(context())
    t.strictSame(fs.readdirSync(directory), ['a-root.raw.partial'])
  },
)
