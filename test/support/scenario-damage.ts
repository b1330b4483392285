import * as fs from 'node:fs'
import * as path from 'node:path'
import type { Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import { until } from './scenario-role.ts'
import { Scrape } from './scenario-metrics.ts'
import { Sender } from './scenario-sender.ts'
import { Scenario, type SitePlan } from './scenario-site.ts'
import { below, seededRandom } from './wire-samples.ts'

/** Everything random about the damage follows from it. */
export const seed = 20_261_201
export const random = seededRandom(seed)
const volume = { agent: 'sender', volume: 'disk', sizeBytes: 1 * MiB }
const checkpointCount = 12
/** The seventh is the one whose marker is damaged. */
export const countersLooked = [1, 4, 7, 10, checkpointCount]
export const everythingAges =
  '{ segmentSizeBytesTarget: 256 KiB, segmentAgeMillisMax: 200, foldSizeBytesMin: 256 KiB, deltaShareMax: 0.05, garbageGraceMillis: 3600000 }'
/** The log keeps all. */
export const nothingAges = '{ segmentAgeMillisMax: 3600000, garbageGraceMillis: 3600000 }'

/** Two stopped VPGs' files, and what each checkpoint must be. */
export interface Remains {
  readonly dataDirectory: string
  readonly raw: Sender
  readonly other: Sender
  /** What `vra journal dump` and `vra mirror dump` said before the daemon was stopped. */
  readonly journal: readonly Record<string, string | number | boolean>[]
  readonly mirror: readonly string[]
}

/** Some hundred writes and a dozen checkpoints of two VPGs; `settled` holds where aging has come far enough. */
export async function makeRemains(
  t: Test,
  aging: string,
  settled: (scenario: Scenario) => Promise<boolean>,
): Promise<Remains> {
  const scenario = await Scenario.make(t, { aging })
  await scenario.startVra()
  const [raw, other] = ['raw', 'other'].map(vpg => new Sender(scenario.agentsPort, { ...volume, vpg }, random))
  if (raw === undefined || other === undefined) throw new Error('two senders')
  for (const [vpg, sender] of [
    ['raw', raw],
    ['other', other],
  ] as const) {
    await scenario.createVpg({ agentId: 'sender', vpg, volumes: { disk: volume.sizeBytes } })
    t.teardown(() => sender.close())
    await sender.connect()
  }
  let count = 0
  await until('enough is written and aged', async () => {
    if (count++ < checkpointCount) {
      for (const sender of [raw, other]) {
        for (let batch = 0; batch < 6; batch++) sender.write(12)
        sender.mark()
        await sender.untilAcked()
      }
    }
    return count >= checkpointCount && (await settled(scenario))
  })
  const dumpMirror = async () => await scenario.control.dump({ what: 'mirror', vpg: 'raw', limit: 1000 })
  if (aging === everythingAges) {
    const hasSegment = async () => (await dumpMirror()).lines.some(({ line }) => String(line).startsWith('segment '))
    // Where the last fold took all of them, some small writes make another, too small for a fold.
    if (!(await hasSegment())) {
      raw.write(3)
      raw.mark() // somebody needs them
    }
    await raw.untilAcked()
    await until('a segment', hasSegment)
  }
  const [journal, mirror] = await Promise.all([scenario.control.dump({ what: 'journal', limit: 1000 }), dumpMirror()])
  for (const sender of [raw, other]) sender.close()
  await scenario.vra?.kill()
  return {
    dataDirectory: scenario.dataDirectory,
    raw,
    other,
    journal: journal.lines,
    mirror: mirror.lines.map(({ line }) => String(line)),
  }
}

export interface Damaged {
  readonly scenario: Scenario
  readonly remains: Remains
  readonly rightCount: number
  readonly refused: readonly { readonly code: string; readonly sentence: string }[]
}

/** A copy of the remains with one byte flipped, started; checkpoints over the whole history are exported, and each is right or refused. */
export async function startDamaged(
  t: Test,
  remains: Remains,
  plan: SitePlan,
  flip: { readonly file: string; readonly offsetBytes: number },
  counters: readonly number[] = countersLooked,
): Promise<Damaged> {
  const scenario = await Scenario.make(t, plan)
  const isCopied = (file: string): boolean => !fs.lstatSync(file).isSocket() // the lock of the process that is gone
  fs.cpSync(remains.dataDirectory, scenario.dataDirectory, { recursive: true, filter: isCopied })
  flipByte(path.join(scenario.dataDirectory, flip.file), flip.offsetBytes)
  await scenario.startVra()
  let rightCount = 0
  const refused: { code: string; sentence: string }[] = []
  const named = new Map((await scenario.control.listVpgs()).map(vpg => [vpg.name, vpg]))
  for (const counter of named.has('raw') ? counters : []) {
    const file = scenario.file('raw')
    try {
      const job = await scenario.exportTo('raw', 'disk', `1.${counter}`, file)
      if (job.state === 'done') {
        if (!fs.readFileSync(file).equals(remains.raw.references.get(counter) ?? Buffer.alloc(0)))
          t.fail(`checkpoint 1.${counter} was served, and is wrong`)
        rightCount++
      } else refused.push(job.failure ?? { code: 'none', sentence: '' })
    } catch (error) {
      refused.push({ code: String((error as { code?: string }).code), sentence: String(error) })
    }
    const left = fs.readdirSync(path.dirname(file)).filter(name => name.endsWith('.partial'))
    if (left.length > 0) t.fail(`a partial file is left: ${left.join(', ')}`)
  }
  for (const { code } of refused)
    if (!['OBJECT_CORRUPT', 'RECORD_CORRUPT', 'CHECKPOINT_MISSING'].includes(code)) t.fail(`refused with ${code}`)
  await otherIsUnharmed(t, scenario, remains.other)
  return { scenario, remains, rightCount, refused }
}

/** One bit of it. */
export function flipByte(file: string, offsetBytes: number): void {
  const fd = fs.openSync(file, 'r+')
  const byte = Buffer.alloc(1)
  fs.readSync(fd, byte, 0, 1, offsetBytes)
  byte[0] = (byte[0] ?? 0) ^ (1 << below(random, 8))
  fs.writeSync(fd, byte, 0, 1, offsetBytes)
  fs.closeSync(fd)
}

/** Its checkpoints are right, and it takes writes and makes checkpoints. */
async function otherIsUnharmed(t: Test, scenario: Scenario, before: Sender): Promise<void> {
  const sender = new Sender(scenario.agentsPort, { ...volume, vpg: 'other' }, random)
  before.model.copy(sender.model)
  sender.continueFrom(before.lastSequence)
  await sender.connect()
  sender.write(10)
  const term = sender.welcome?.coordinator.term
  const newest = `${term}.${sender.mark()}`
  await sender.untilAcked()
  t.same(sender.errors, [], 'the other VPG takes writes')
  sender.close()
  const references = [...before.references]
    .filter(([counter]) => counter % 5 === 1)
    .map(([counter, reference]) => [`1.${counter}`, reference] as const)
  for (const [checkpoint, reference] of [...references, [newest, sender.model] as const]) {
    const file = await scenario.exported('other', 'disk', checkpoint)
    if (!fs.readFileSync(file).equals(reference)) t.fail(`checkpoint ${checkpoint} of the other VPG is wrong`)
    fs.rmSync(file)
  }
}

/** The CLI finds it, ends with 5, and names the place. */
export async function verifyNames(
  t: Test,
  { scenario }: Damaged,
  what: string,
  place: string,
  vpg: string,
): Promise<void> {
  const verified = await scenario.cli(what, 'verify')
  t.equal(verified.status, 5, verified.stdout + verified.stderr)
  const lines = verified.stdout.split('\n').filter(line => line.includes(place))
  t.ok(lines.length > 0, `${place} is named in ${verified.stdout}`)
  t.match(lines[0]?.split('\t'), [vpg, new RegExp(place), /^\d+$/, /affects|lost/], 'whose, where, and what it costs')
  const only = await scenario.cli(what, 'verify', '--vpg', 'other')
  t.equal(only.status, 0, `and the other VPG is whole: ${only.stdout}`)
}

/** Status, metrics and log say it. */
export async function isTold(t: Test, { scenario }: Damaged, place: string | RegExp): Promise<void> {
  const vpg = await scenario.untilVpg('raw', 'damaged', ({ state }) => state === 'damaged')
  t.ok(vpg.stateReason)
  const { alerts } = await scenario.control.status()
  t.match(alerts[0], { severity: 'critical' })
  t.match(alerts.map(({ sentence }) => sentence).join('\n'), place, 'the status names the place')
  t.match((await scenario.cli('status')).stdout, /^critical\traw /m)
  const scrape = await Scrape.of(scenario.controlUrl)
  t.ok((scrape.value('vra_damage_found_total', 'raw') ?? 0) > 0, 'the metric counts it')
  t.equal(scrape.value('vra_vpg_protected', 'raw'), 0)
  t.match(scenario.vra?.output, place, 'the log names the place')
  t.equal((await scenario.vpg('other')).state === 'damaged', false)
}

/** The object's file in the directory store. */
export function fileOf(remains: Remains, key: string): string {
  const found = fs
    .readdirSync(remains.dataDirectory, { recursive: true, encoding: 'utf8' })
    .find(name => name.includes('objects') && name.endsWith(key))
  if (found === undefined) throw new Error(`no file of ${key}`)
  return found
}

export const sizeOf = (remains: Remains, file: string): number =>
  fs.statSync(path.join(remains.dataDirectory, file)).size
