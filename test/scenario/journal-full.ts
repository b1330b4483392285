import { randomFillSync } from 'node:crypto'
import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import { cannotMount, run, unmount } from '../support/scenario-mount.ts'
import { S3Simulator, operations } from '../support/s3-sim.ts'
import { pause, until } from '../support/scenario-role.ts'
import { Guest } from '../support/scenario-guest.ts'
import { Scrape } from '../support/scenario-metrics.ts'
import { Sender } from '../support/scenario-sender.ts'
import { Scenario } from '../support/scenario-site.ts'
import { below, seededRandom } from '../support/wire-samples.ts'

// The journal's limits: its own, while the store is down, and the disk's. Acknowledgements stop and come back; guests never wait,
// and nothing that was acknowledged is lost.

const seed = 20_261_129
const volume = { vpg: 'raw', agent: 'sender', volume: 'disk', sizeBytes: 8 * MiB }
const random = seededRandom(seed)
const unackedCountMax = 24
let batchCount = 0

/** One batch of 768 KiB that does not compress: the log grows by as much. */
function writeBatch(sender: Sender): void {
  const places = [below(random, 32), below(random, 32), below(random, 32)]
  sender.writeExactly(
    places.map(place => {
      const data = Buffer.allocUnsafe(256 * KiB)
      randomFillSync(data)
      return { volume: 1, offsetBytes: place * 256 * KiB, lengthBytes: data.length, data }
    }),
  )
}

async function fillUntil(sender: Sender, isFull: () => Promise<boolean>): Promise<void> {
  await until('the journal is full', async () => {
    if (!sender.isConnected) await sender.connect()
    for (let count = 0; count < 32; count++) {
      if (sender.unackedCount >= unackedCountMax) break
      writeBatch(sender)
      if (++batchCount % 40 === 0) sender.mark()
      await pause(1)
    }
    return isFull()
  })
}

async function makeScenario(t: Test, plan: Parameters<typeof Scenario.make>[1]) {
  const scenario = await Scenario.make(t, plan)
  await scenario.startVra()
  await scenario.createVpg({ agentId: 'sender', vpg: 'raw', volumes: { disk: volume.sizeBytes } })
  const sender = new Sender(scenario.agentsPort, volume, random)
  t.teardown(() => sender.close())
  await sender.connect()
  return { scenario, sender }
}

/** The VRA is full before the last of its acknowledgements has been read here. */
function untilAllAcksCame(scenario: Scenario, sender: Sender): Promise<Sender> {
  return until('all acknowledgements came', async () => {
    const durable = (await scenario.vpg('raw')).agents[0]?.durable.sequence
    return durable === sender.acked && sender
  })
}

const isFull = (scenario: Scenario) => async (): Promise<boolean> =>
  (await scenario.control.status()).journal.full !== undefined

async function compareAll(t: Test, scenario: Scenario, sender: Sender): Promise<void> {
  const list = await scenario.control.listCheckpoints({ vpg: 'raw', limit: 1000, order: 'oldest-first' })
  t.equal(list.checkpoints.length, sender.references.size, 'every checkpoint is listed')
  for (const { checkpoint } of list.checkpoints) {
    const file = await scenario.exported('raw', 'disk', checkpoint)
    const reference = sender.references.get(Number(checkpoint.split('.')[1])) ?? Buffer.alloc(0)
    t.ok(fs.readFileSync(file).equals(reference), `checkpoint ${checkpoint} equals the array`)
    fs.rmSync(file)
  }
}

t.test(`the store is down until the log is at its limit, and comes back (seed ${seed})`, async t => {
  const simulator = await S3Simulator.start()
  t.teardown(() => simulator.close())
  const { scenario, sender } = await makeScenario(t, {
    store: `{ kind: s3, bucket: bucket, endpoint: '${simulator.endpoint}', forcePathStyle: true, requestTimeoutMillis: 1000 }`,
    journal: '{ logSizeBytesMax: 256 MiB }',
    aging:
      '{ segmentSizeBytesTarget: 4 MiB, segmentAgeMillisMax: 500, foldSizeBytesMin: 4 MiB, logSizeBytesPressure: 128 MiB }',
    environment: { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' },
  })
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: 8 * MiB } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  const guest = new Guest(await agent.client('root'), { seed })
  await guest.runFor(50)
  sender.mark()
  await sender.untilAcked()

  for (const operation of operations)
    simulator.failNext(operation, { kind: 'refuse', status: 503, code: 'ServiceUnavailable' }, Infinity)
  await fillUntil(sender, isFull(scenario))
  const { acked } = await untilAllAcksCame(scenario, sender)
  t.ok(sender.unackedCount > 0, 'what is not durable is not acknowledged')
  await guest.runFor(300)
  t.same(guest.failures, [], 'guests of a real agent go on')
  t.equal(sender.acked, acked, 'no acknowledgement came meanwhile')

  const status = await scenario.control.status()
  t.match(status.journal.full, /limit of 268435456 bytes.*object store/)
  t.ok(status.journal.logSizeBytes <= status.journal.logSizeBytesMax, 'the log is within its limit')
  t.same(
    status.vpgs.map(vpg => vpg.state),
    ['journal-full', 'journal-full'],
  )
  t.match(status.alerts[0], { severity: 'critical', sentence: /limit/ })
  t.ok(
    status.alerts.some(alert => /offloaded/.test(alert.sentence)),
    'and that the store is the reason',
  )
  const said = await scenario.cli('status')
  t.equal(said.status, 0)
  t.match(said.stdout, /^journal full\t.*limit/m)
  t.match(said.stdout, /^raw\tjournal-full\t/m)
  const scrape = await Scrape.of(scenario.controlUrl)
  t.equal(scrape.value('vra_journal_full'), 1)
  t.ok((scrape.value('vra_journal_full_total') ?? 0) >= 1)
  t.equal(scrape.value('vra_store_failing', 'raw'), 1)
  t.equal(scrape.value('vra_vpg_protected', 'web'), 0)
  const queue = await until('the agent queues', async () =>
    (await Scrape.of(agent.controlUrl)).value('vra_agent_queue_bytes'),
  )
  t.ok(queue > 0, `${queue} bytes wait at the agent`)
  t.ok(scenario.vra?.isRunning && agent.process?.isRunning, 'both are the processes that were started')

  simulator.mend()
  await sender.untilAcked()
  await until('it is full no longer', async () => !(await isFull(scenario)()))
  await scenario.untilVpg('raw', 'protected again', ({ state }) => state === 'protected')
  await scenario.tag('web', 'after')
  await guest.runFor(50)
  await scenario.tag('web', 'end')
  t.same(guest.failures, [])
  t.same([...sender.faults, ...sender.errors], [])
  const after = await until('what the store refused is done', async () => {
    const scrape = await Scrape.of(scenario.controlUrl)
    return scrape.value('vra_store_failing', 'raw') === 0 && scrape
  })
  t.equal(after.value('vra_journal_full'), 0)
  t.equal(after.value('vra_vpg_protected', 'web'), 1)
  await compareAll(t, scenario, sender)
  t.equal(await scenario.differenceAt('web', 'root', 'end', agent.disk('root')), undefined, 'the guest’s disk as well')
})

/** Takes all the room that there is, and gives some of it back; whoever is connected goes on saying so meanwhile. */
async function fillDisk(ballast: string, freeBytes: number): Promise<void> {
  const file = await fs.promises.open(ballast, 'w')
  const piece = Buffer.alloc(1 * MiB)
  try {
    for (;;) await file.write(piece)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    await file.truncate(Math.max(0, (await file.stat()).size - freeBytes))
  } finally {
    await file.close()
  }
}

t.test('the disk of the data directory is full', { skip: cannotMount() }, async t => {
  const outside = fs.mkdtempSync(path.join(os.tmpdir(), 'vra-full-'))
  const mountPoint = path.join(outside, 'mnt')
  fs.mkdirSync(mountPoint)
  const image = path.join(outside, 'disk.img')
  fs.writeFileSync(image, '')
  fs.truncateSync(image, 1536 * MiB)
  const made = await run('mkfs.ext4', '-q', '-F', '-m', '0', image)
  t.equal(made.status, 0, made.output)
  const mounted = await run('mount', '-o', 'loop', image, mountPoint)
  const scenarios: Scenario[] = []
  try {
    if (mounted.status !== 0) return void t.pass('a loop device', { skip: `none is to be had here: ${mounted.output}` })
    const { scenario, sender } = await makeScenario(t, { dataDirectory: path.join(mountPoint, 'data') })
    scenarios.push(scenario)
    const ballast = path.join(mountPoint, 'ballast')
    await fillDisk(ballast, 320 * MiB)
    await fillUntil(sender, isFull(scenario))
    const full = await scenario.control.status()
    t.match(full.journal.full, /disk of the log is full.*free space/)
    t.equal(full.vpgs[0]?.state, 'journal-full')
    t.equal((await Scrape.of(scenario.controlUrl)).value('vra_journal_full'), 1)
    t.equal((await scenario.cli('status')).status, 0, 'the daemon lives and answers')
    t.ok(sender.unackedCount > 0)

    fs.rmSync(ballast)
    await sender.untilAcked()
    await until('it is full no longer', async () => !(await isFull(scenario)()))
    t.same([...sender.faults, ...sender.errors], [], 'it goes on by itself')

    await fillDisk(ballast, 24 * MiB)
    await fillUntil(sender, isFull(scenario))
    await scenario.vra?.kill()
    const limping = scenario.spawnVra()
    await until('it serves, or ends with a word', () => !limping.isRunning || /"vraReady"/.test(limping.output))
    t.comment(limping.isRunning ? 'it starts on the full disk' : `it ends: ${limping.output.slice(-600)}`)
    if (limping.isRunning) await limping.kill()
    else t.match(limping.output, /full|ENOSPC|no space/i, 'and says why')
    fs.rmSync(ballast)
    await scenario.startVra()
    await sender.untilAcked()
    t.same(
      [...sender.faults, ...sender.errors.filter(({ code }) => code !== 'CLOSING')],
      [],
      'nothing acknowledged is lost',
    )
    sender.mark()
    await sender.untilAcked()
    await scenario.untilVpg('raw', 'the store has taken all of it', ({ mirror }) => mirror.unsealedSizeBytes === 0)
    await compareAll(t, scenario, sender)
  } finally {
    for (const scenario of scenarios) await scenario.close()
    await unmount(mountPoint)
    fs.rmSync(outside, { recursive: true })
  }
})
