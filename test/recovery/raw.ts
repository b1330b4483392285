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
      fs.writeFileSync(file, Buffer.alloc(4096, 7), { flag: 'wx' })
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
