import * as fs from 'node:fs'
import * as path from 'node:path'
import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import type { ImagePlan } from '../../src/aging/service.ts'
import { systemClock, type Clock } from '../../src/base/clock.ts'
import { liveImagesMax } from '../../src/base/limits.ts'
import { MiB } from '../../src/base/units.ts'
import { LiveServer } from '../../src/live/live-server.ts'
import { newSpoolRoom } from '../../src/image/service.ts'
import { Live, type LiveOptions } from '../../src/live/live.ts'
import type { LiveNotices } from '../../src/live/service.ts'
import type { TargetContext, TargetRequest } from '../../src/recovery/target.ts'
import type { Json, RecoveryRecord } from '../../src/timeline/recovery.ts'
import { planIn, sizeBytes, writes } from '../support/image-plan.ts'
import { NbdClient } from '../support/nbd-client.ts'
import { fioLacksNbd, missing, runTool } from '../support/nbd-tools.ts'

// The target nbd over a real image in a directory store, in its thread, and real clients.

interface Site {
  readonly directory: string
  readonly plan: ImagePlan
  readonly keptIn: string
  readonly told: { name: string; value: unknown }[]
  readonly held: { count: number }
  live(clock?: Clock, newWorker?: () => Worker): Live
  context(record?: Partial<RecoveryRecord>): TargetContext
}

async function site(t: Test): Promise<Site> {
  const directory = path.resolve(t.testdir({ kept: {}, data: {} }))
  const plan = await planIn(directory)
  const told: { name: string; value: unknown }[] = []
  const held = { count: 0 }
  const keptIn = path.join(directory, 'kept')
  const definition = { ...plan.state.definition, volumes: [{ number: 1, name: 'root', sizeBytes, stream: 1 }] }
  const live = (clock: Clock = systemClock, newWorker?: () => Worker): Live => {
    const options: LiveOptions = {
      store: { kind: 'directory', directory: path.join(directory, 'store') },
      dataDirectory: path.join(directory, 'data'),
      listen: { host: '127.0.0.1', port: 0 },
      cacheSizeBytes: 16 * MiB,
      scratchDirectory: path.join(directory, 'live'),
      scratchSizeBytesMax: 512 * MiB,
      clock,
      spoolRoom: newSpoolRoom(),
      told: <K extends keyof LiveNotices>(name: K, value: LiveNotices[K]) => void told.push({ name, value }),
    }
    const made = new Live(options, newWorker)
    t.teardown(() => made.close())
    return made
  }
  const context = (changes: Partial<RecoveryRecord> = {}): TargetContext => ({
    record: {
      formatVersion: 1,
      id: 'r-0123456789ab',
      kind: 'failover',
      incarnation: 1,
      handOver: 'none',
      checkpoint: plan.checkpoint,
      vms: [{ name: 'web', volumes: [1] }],
      target: { kind: 'nbd', settings: { scratchSizeBytesMax: 64 * MiB, directory: keptIn } },
      commitPolicy: { kind: 'none', afterMillis: 0 },
      state: 'ready',
      memory: null,
      createdAtMicros: 1,
      readyAtMicros: 1,
      endedAtMicros: undefined,
      failure: undefined,
      ...changes,
    },
    definition,
    remember: () => Promise.resolve(),
    openPlan: () => {
      held.count++
      return Promise.resolve(plan)
    },
    release: () => {
      held.count--
      return Promise.resolve()
    },
    progress: () => undefined,
    signal: new AbortController().signal,
  })
  return { directory, plan, keptIn, told, held, live, context }
}

function uriIn(live: Live, context: TargetContext): string {
  return live.things(context.record, context.definition)[0]!.place
}

async function clientOf(live: Live, context: TargetContext): Promise<NbdClient> {
  const { hostname: host, port, pathname } = new URL(uriIn(live, context))
  return await NbdClient.open({ host, port: Number(port) }, decodeURIComponent(pathname.slice(1)))
}

function expectImage(t: Test, file: string): void {
  const descriptor = fs.openSync(file, 'r')
  for (const write of writes) {
    const found = Buffer.alloc(write.sizeBytes)
    fs.readSync(descriptor, found, 0, found.length, write.offsetBytes)
    t.equal(Buffer.compare(found, Buffer.from(write.data!)), 0, `what the image has at ${write.offsetBytes}`)
  }
  fs.closeSync(descriptor)
}

t.test(
  'a disk is read and written, survives restarts, is kept, and is served from there',
  { skip: missing('qemu-io') },
  async t => {
    const { directory, keptIn, held, live, context } = await site(t)
    const first = live()
    await first.prepare(context({ readyAtMicros: undefined }))
    const qemu = async (uri: string, ...commands: string[]): Promise<void> => {
      const result = await runTool('qemu-io', '-f', 'raw', ...commands.flatMap(command => ['-c', command]), uri)
      t.equal(result.status, 0, result.output)
      t.notMatch(result.output, /verification failed|error/i)
    }
    await qemu(
      uriIn(first, context()),
      'read -P 1 0 512',
      'read -P 0 512 512',
      'write -f -P 0x55 1M 128k',
      'write -P 0x56 4096 512',
      'write -z 1088k 64k',
      'discard 2560M 4k',
      'read -P 2 134213632 8k',
    )
    await first.close()
    t.equal(held.count, 0, 'the plan was released')
    const second = live()
    await second.resume(context())
    const checks = [
      'read -P 0x55 1M 64k',
      'read -P 0 1088k 64k',
      'read -P 0x56 4k 512',
      'read -P 1 0 512',
      'read -P 0 2560M 4k',
    ]
    await qemu(uriIn(second, context()), ...checks)
    await second.commit(context())
    t.equal(held.count, 0, 'nothing of the image is needed any more')
    const file = path.join(keptIn, 'r-0123456789ab', 'web', 'root.raw')
    t.strictSame(fs.readdirSync(path.dirname(file)), ['root.raw'])
    t.equal(fs.statSync(file).size, sizeBytes)
    t.ok(fs.statSync(file).blocks * 512 < 4 * MiB, 'it is sparse')
    await second.commit(context())
    await qemu(uriIn(second, context()), ...checks, 'write -P 0x77 3M 64k', 'write -z 1M 4k', 'flush')
    await second.close()
    const third = live()
    const committed = context({ state: 'committed' })
    await third.resume(committed)
    await qemu(uriIn(third, committed), 'read -P 0x77 3M 64k', 'read -P 0 1M 4k', 'read -P 0x55 1028k 4k')
    await third.endService(committed)
    t.not(
      (await runTool('qemu-io', '-f', 'raw', '-c', 'read 0 512', uriIn(third, committed))).status,
      0,
      'served no more',
    )
    const ended = context({ state: 'committed', isServiceEnded: true })
    t.match(third.things(ended.record, ended.definition), [{ kind: 'file', place: file }])
    t.equal(fs.statSync(file).size, sizeBytes, 'and kept')
    await third.remove(committed)
    t.strictSame(fs.readdirSync(keptIn), [])
    t.notOk(fs.existsSync(path.join(directory, 'live', 'r-0123456789ab')))
  },
)

t.test(
  'after a kill of the process what was answered is there; a removal leaves nothing',
  { skip: missing('qemu-io') },
  async t => {
    const { keptIn, live, context } = await site(t)
    const first = live()
    await first.prepare(context({ readyAtMicros: undefined }))
    const wrote = await runTool(
      'qemu-io',
      '-f',
      'raw',
      '-t',
      'writeback',
      '-c',
      'write -P 9 8M 1M',
      uriIn(first, context()),
    )
    t.equal(wrote.status, 0, wrote.output)
    const copy = path.join(keptIn, 'r-0123456789ab', 'web')
    t.strictSame(fs.readdirSync(copy), ['root.map', 'root.scratch'])
    const second = live() // beside the first, which is not told that it is dead, and writes no more
    await second.resume(context())
    const read = await runTool('qemu-io', '-f', 'raw', '-c', 'read -P 9 8M 1M', uriIn(second, context()))
    t.notMatch(read.output, /verification failed/)
    await second.remove(context())
    t.strictSame(fs.readdirSync(keptIn), [])
    await second.remove(context())
  },
)

t.test('what a thread served that has ended is served again, committed or not, until nobody wants it', async t => {
  const { keptIn, held, live, context } = await site(t)
  const timers: { readonly delayMillis: number; readonly call: () => void }[] = []
  const clock: Clock = {
    ...systemClock,
    after: (delayMillis, call) => {
      const timer = { delayMillis, call }
      timers.push(timer)
      return () => void (timers.includes(timer) && timers.splice(timers.indexOf(timer), 1))
    },
  }
  const delays = (): number[] => timers.map(({ delayMillis }) => delayMillis).filter(delay => delay < 60_000)
  const fire = (): void => {
    const due = timers.filter(({ delayMillis }) => delayMillis < 60_000)
    for (const timer of due) timers.splice(timers.indexOf(timer), 1)
    for (const { call } of due) call()
  }
  const until = async (holds: () => boolean | Promise<boolean>): Promise<void> => {
    while (!(await holds())) await new Promise(resolve => setImmediate(resolve))
  }
  const workers: Worker[] = []
  const one = live(clock, () => {
    const worker = new Worker(new URL('../../src/live/live-worker.js', import.meta.url))
    workers.push(worker)
    return worker
  })
  const served = async (): Promise<string[]> => (await one.status()).map(({ id }) => id).sort()
  const [keptId, id] = ['r-000000000001', 'r-000000000002']
  await one.prepare(context({ id: keptId, readyAtMicros: undefined }))
  await one.commit(context({ id: keptId }))
  let failuresLeft = 0
  const failing: TargetContext = {
    ...context({ id, readyAtMicros: undefined }),
    openPlan: async () => {
      if (failuresLeft-- > 0) throw new Error('not now')
      return await context().openPlan()
    },
  }
  await one.prepare(failing)
  failuresLeft = 1
  await workers.at(-1)!.terminate()
  await until(() => delays().length === 2)
  t.equal(held.count, 0)
  fire()
  await until(async () => delays().length === 1 && (await served()).length === 1)
  t.strictSame(await served(), [keptId])
  t.strictSame(delays(), [2_000], 'after a failure it waits longer')
  fire()
  await until(async () => (await served()).length === 2)
  t.strictSame(await served(), [keptId, id])
  t.equal(held.count, 1)
  await workers.at(-1)!.terminate()
  await until(() => delays().length === 2)
  await one.remove(failing)
  t.equal(delays().length, 1, 'what was removed comes not back')
  fire()
  await until(async () => (await served()).length > 0)
  t.strictSame(await served(), [keptId])
  t.strictSame(fs.readdirSync(keptIn), [keptId])
  t.equal(held.count, 0)
})

t.test(
  'what is committed takes none of the places that there are for images; without one a plan is refused',
  async t => {
    const { plan, live, context } = await site(t)
    const one = live()
    await one.prepare(context({ readyAtMicros: undefined }))
    await one.commit(context())
    const mount = async (number: number): Promise<void> => {
      await one.mount({
        ...{ id: `m-${number}`, vpg: 'web', volumes: [{ number: 1, name: 'root', sizeBytes }] },
        openPlan: () => Promise.resolve(plan),
        release: () => Promise.resolve(),
      })
    }
    for (let number = 1; number <= liveImagesMax; number++) await mount(number)
    await t.rejects(mount(0), { code: 'BUSY' })
    const { definition, record, signal } = context()
    const request: TargetRequest = {
      ...{ kind: 'test', definition, checkpoint: plan.checkpoint, vms: record.vms, sizes: [], settings: null },
    }
    await t.rejects(one.plan(request, signal), { code: 'BUSY' })
    await one.unmount('m-1')
    await one.plan(request, signal)
  },
)

t.test('of images that are begun at once no more are served than may be', async t => {
  const { directory, plan } = await site(t)
  const server = new LiveServer(() => undefined)
  t.teardown(() => server.close())
  await server.open({
    store: { kind: 'directory', directory: path.join(directory, 'store') },
    dataDirectory: path.join(directory, 'data'),
    listen: { host: '127.0.0.1', port: 0 },
    cacheSizeBytes: 16 * MiB,
    spoolRoom: newSpoolRoom(),
  })
  const attach = async (number: number): Promise<void> => {
    const id = `m-${number}`
    const disk = { volume: 1, exportName: `${id}/web/root`, description: id, sizeBytes, files: undefined }
    const of = { id, plan, checkpoint: plan.checkpoint.ordinal, disks: [disk] }
    await server.attach({ ...of, scratchSizeBytesMax: 0, isMade: false, scratchId: undefined })
  }
  const numbers = Array.from({ length: liveImagesMax + 3 }, (_, index) => index)
  const outcomes = await Promise.allSettled(numbers.map(attach))
  const refused = outcomes.filter(outcome => outcome.status === 'rejected')
  t.match(
    refused.map(({ reason }) => reason as unknown),
    Array(3).fill({ code: 'BUSY' }),
  )
  t.equal((await server.status()).length, liveImagesMax)
  await server.detach({ id: 'm-0' })
  await attach(99)
})

t.test('what the system says of a file is a failure with the name of the file', async t => {
  const { keptIn, live, context } = await site(t)
  fs.writeFileSync(path.join(keptIn, 'r-0123456789ab'), '')
  await t.rejects(live().prepare(context({ readyAtMicros: undefined })), {
    code: 'DISK_FAILED',
    message: /root\.scratch: /,
  })
})

t.test('what was ready before is not made anew where it is not found', async t => {
  const { keptIn, live, context } = await site(t)
  const first = live()
  await first.prepare(context({ readyAtMicros: undefined }))
  await first.close()
  const directory = path.join(keptIn, 'r-0123456789ab')
  fs.renameSync(directory, `${directory}.unmounted`)
  const second = live()
  await t.rejects(second.resume(context()), { code: 'DISK_FAILED', message: /is its file system mounted/ })
  t.notOk(fs.existsSync(directory), 'nothing is made in its place')
  fs.renameSync(`${directory}.unmounted`, directory)
  await second.resume(context())
  await second.close()
})

t.test('what one appliance prepared is not served in place of what another one made ready', async t => {
  const { keptIn, live, context } = await site(t)
  const directory = path.join(keptIn, 'r-0123456789ab')
  let memory: Json = null
  const remembering = (changes: Partial<RecoveryRecord> = {}): TargetContext => {
    const found = context(changes)
    return {
      ...found,
      get record() {
        return { ...found.record, memory }
      },
      remember: given => {
        memory = given
        return Promise.resolve()
      },
    }
  }
  const preparing = { readyAtMicros: undefined, state: 'preparing' } as const
  const [byFirst, bySecond] = [Buffer.alloc(4096, 1), Buffer.alloc(4096, 2)]
  const written = async (bytes: Buffer): Promise<void> => {
    const appliance = live()
    await appliance.prepare(remembering(preparing))
    const client = await clientOf(appliance, context())
    await client.write(0, bytes)
    await client.close()
    await appliance.close()
  }
  await written(byFirst)
  fs.renameSync(directory, `${directory}.first`) // the disk of one appliance, and of the next
  await written(bySecond)
  fs.renameSync(directory, `${directory}.second`)

  fs.renameSync(`${directory}.first`, directory)
  const first = live()
  await t.rejects(first.resume(remembering()), { code: 'REQUEST_INVALID', message: /another appliance/ })
  await first.close()
  fs.renameSync(directory, `${directory}.first`)

  fs.renameSync(`${directory}.second`, directory)
  const second = live()
  await second.resume(remembering())
  const client = await clientOf(second, context())
  t.strictSame(await client.read(0, 4096), bySecond)
  await client.close()
  await second.close()

  fs.rmSync(directory, { recursive: true })
  fs.renameSync(`${directory}.first`, directory)
  const third = live()
  await third.prepare(remembering(preparing))
  const begun = await clientOf(third, context())
  t.notSame(await begun.read(0, 4096), byFirst, 'what was never ready is begun anew')
  await begun.close()
  await third.close()
})

t.test('a recovery that is removed while its scratch is not to be found says which directory that was', async t => {
  const { keptIn, told, live, context } = await site(t)
  const directory = path.join(keptIn, 'r-0123456789ab')
  const tellings = (): unknown[] => told.filter(({ name }) => name === 'scratchNotFound').map(({ value }) => value)
  const first = live()
  await first.prepare(context({ readyAtMicros: undefined }))
  await first.remove(context())
  t.strictSame(tellings(), [], 'it was there')
  await first.remove(context({ readyAtMicros: undefined }))
  t.strictSame(tellings(), [], 'nobody knows that there was any')
  await first.remove(context())
  t.strictSame(tellings(), [{ id: 'r-0123456789ab', directory }])
  await first.close()
})

t.test('nbdcopy gives the image, and nbdinfo its extents', { skip: missing('nbdcopy', 'nbdinfo') }, async t => {
  const { directory, live, context, plan } = await site(t)
  const one = live()
  const [mounted] = await one.mount({
    ...{ id: 'm-1', vpg: 'web', volumes: [{ number: 1, name: 'root', sizeBytes }] },
    openPlan: () => Promise.resolve(plan),
    release: () => Promise.resolve(),
  })
  const file = path.join(directory, 'copied.raw')
  const copied = await runTool('nbdcopy', mounted!.uri, file)
  t.equal(copied.status, 0, copied.output)
  expectImage(t, file)
  t.ok(fs.statSync(file).blocks * 512 < 8 * MiB, 'what is no data was told to be none')
  const info = await runTool('nbdinfo', '--json', mounted!.uri)
  t.match(JSON.parse(info.output), { exports: [{ is_read_only: true, 'export-size': sizeBytes }] })
  const map = await runTool('nbdinfo', '--map', '--totals', mounted!.uri)
  t.match(map.output, /data/)
  const refused = await runTool('qemu-io', '-f', 'raw', '-c', 'write 0 512', mounted!.uri)
  t.not(refused.output.match(/read-?only|not permitted|permission denied/i), null, refused.output)
  await one.unmount('m-1')
  t.not((await runTool('nbdinfo', mounted!.uri)).status, 0)
  const c = context()
  const request: TargetRequest = {
    ...{ kind: 'failover', definition: c.definition, checkpoint: plan.checkpoint, vms: c.record.vms },
    ...{ sizes: [], settings: null },
  }
  const { signal } = c
  await t.rejects(one.plan(request, signal), { code: 'REQUEST_INVALID', message: /directory/ })
  await t.rejects(one.plan({ ...request, settings: { directory: 'kept' } }, signal), { code: 'REQUEST_INVALID' })
  await t.rejects(one.plan({ ...request, settings: { directory: '/nowhere/at/all' } }, signal), {
    message: /no such directory/,
  })
  await t.rejects(one.plan({ ...request, settings: { size: 1 } }, signal), { message: /no setting "size"/ })
  t.match(await one.plan({ ...request, kind: 'test' }, signal), {
    copySizeBytes: 0,
    settings: { scratchSizeBytesMax: 512 * MiB },
  })
})

t.test(
  'what fio writes over many requests at once it reads again',
  { skip: missing('fio') || fioLacksNbd() },
  async t => {
    const { told, live, context } = await site(t)
    const one = live()
    await one.prepare(context({ readyAtMicros: undefined }))
    const uri = uriIn(one, context())
    const job = ['--name=a', '--ioengine=nbd', `--uri=${uri}`, '--size=48m', '--iodepth=16', '--verify=crc32c']
    const shape = [
      '--rw=randwrite',
      '--bsrange=512-64k',
      '--bs_unaligned',
      '--fsync=64',
      '--randseed=3',
      '--do_verify=1',
      '--verify_state_save=0',
    ]
    const ran = await runTool('fio', ...job, ...shape)
    t.equal(ran.status, 0, ran.output)
    t.strictSame(
      told.filter(({ name }) => name === 'requestFailed'),
      [],
    )
    const full = await runTool('fio', ...job.slice(0, 3), '--offset=256m', '--size=64m', '--rw=write', '--bs=1m')
    t.not(full.status, 0, 'past the limit there is no space')
    t.match((await one.status())[0], { scratchSizeBytesMax: 64 * MiB, refusedWriteCount: Number })
    t.ok((await one.status())[0]!.refusedWriteCount > 0)
    t.ok(told.some(({ name, value }) => name === 'requestFailed' && (value as { code: string }).code === 'ENOSPC'))
  },
)
