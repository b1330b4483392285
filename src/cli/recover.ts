import * as path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createInterface } from 'node:readline/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import { Failure, failureFromRecord } from '../base/failure.ts'
import { commitPolicyMillisDefault } from '../base/limits.ts'
import { ControlClient } from '../control/client.ts'
import type {
  Json,
  RecoveryDecision,
  RecoveryFacts,
  RecoveryKind,
  RecoveryPlan,
  RecoveryRequest,
  RecoveryTargetKind,
} from '../control/service.ts'
import {
  countInWords,
  durationInWords,
  instantInWords,
  nextInWords,
  recoveryStateInWords,
  sizeInWords,
} from '../control/words.ts'
import { checkpointOption } from './checkpoint.ts'
import { clientCommand, clientOf, collected, durationArgument, pairArgument, type ClientOptions } from './client.ts'
import { onTerminal, printFacts, printJson, printLine, printTable, say } from './output.ts'

const pollMillis = 250

/** A recovery that takes no longer is there at once. */
const atOnceMillisMax = 5_000

/** Something under way that is told of where no terminal shows it move. */
const tellMillis = 10_000

interface RecoverOptions extends ClientOptions {
  readonly checkpoint: string
  readonly vm?: readonly string[]
  readonly volume?: readonly string[]
  readonly target: RecoveryTargetKind
  readonly to?: string
  readonly set?: readonly (readonly [string, string])[]
  readonly commitPolicy: 'none' | 'commit' | 'rollback'
  readonly after: number
  readonly plan?: true
  readonly yes?: true
  readonly wait: boolean
}

const descriptions: Readonly<Record<RecoveryKind, string>> = {
  test: 'try a recovery beside the running protection; stopping it removes everything again',
  failover: 'recover after a disaster: look at it, then commit it or roll it back',
  move: 'recover as planned: the protected site stops writing first, and nothing is lost',
  clone: 'recover an independent copy, for good; protection goes on',
}

export function recoverCommand(): Command {
  const recover = new Command('recover').description('get the machines of a group back as of a checkpoint').addHelpText(
    'after',
    `
In an emergency:
  vra checkpoint list web --from "2h ago"                        which instant? the last one before things went wrong
  vra recover test web --checkpoint "20m ago" --target raw --to /srv/look     look at it; nothing is changed by that
  vra recover stop ID                                            the test and its files go again
  vra recover failover web --checkpoint 3.1204 --target raw --to /srv/web     for good, when you have found it
  vra recover commit ID                                          or: vra recover rollback ID

Nothing here harms what is protected: checkpoints stay, and new ones are made meanwhile. Whatever was begun goes on when this
command, the connection or the VRA ends: "vra recoveries" finds it again.`,
  )
  for (const kind of ['test', 'failover', 'move', 'clone'] as const) recover.addCommand(kindCommand(kind))
  recover.addCommand(decisionCommand('commit', 'keep what a failover or a move has recovered'))
  recover.addCommand(decisionCommand('rollback', 'end a failover or a move, and remove what it has recovered'))
  recover.addCommand(
    decisionCommand(
      'stop',
      'end a test or a clone that is being made, and remove what it has recovered; of disks over NBD that were committed: serve them no more, and keep them',
    ),
  )
  return recover
}

function kindCommand(kind: RecoveryKind): Command {
  const command = clientCommand(kind, descriptions[kind]).argument('<vpg>')
  if (kind !== 'move') command.addOption(checkpointOption())
  command
    .option('--vm <name>', 'only this machine; once for each (default: all)', collected(String))
    .option('--volume <name>', 'only this volume; once for each (default: all)', collected(String))
    .addOption(
      new Option('--target <target>', 'what it is recovered to').choices(['nbd', 'raw', 'aws']).makeOptionMandatory(),
    )
    .option(
      '--to <directory>',
      "on the VRA's host: of raw where the files go, of nbd where the disks are kept that are committed",
    )
    .option(
      '--set <name=value>',
      'a setting of the target, "machine.subnet=subnet-0abc" for one within another; once for each',
      collected(settingArgument),
    )
  if (kind !== 'clone')
    command
      .addOption(
        new Option('--commit-policy <policy>', 'what happens when it is ready and nobody says anything')
          .choices(kind === 'test' ? ['none', 'rollback'] : ['none', 'commit', 'rollback'])
          .default('none'),
      )
      .addOption(
        new Option('--after <duration>', '...for so long')
          .argParser(durationArgument)
          .default(commitPolicyMillisDefault, '60min'),
      )
  return command
    .option('--plan', 'say what it would do, and do nothing')
    .option('--yes', 'do not ask')
    .option('--no-wait', 'return when it has begun; see `vra recoveries`')
    .action(async (vpg: string, options: RecoverOptions) => recover(kind, vpg, options))
}

/** JSON where it is JSON, else text. */
export function settingArgument(text: string): readonly [string, string] {
  const pair = pairArgument(text)
  if (pair[0].split('.').includes('__proto__')) throw new InvalidArgumentError('There is no such setting.')
  return pair
}

interface Settings {
  [name: string]: Json | Settings
}

/** "machine.subnet" is the subnet in machine. Fails REQUEST_INVALID where a setting is both a value and a table. */
export function nested(all: readonly (readonly [readonly string[], Json])[]): Settings {
  const settings: Settings = {}
  for (const [names, value] of all) {
    const last = names.at(-1) ?? ''
    let table = settings
    for (const name of names.slice(0, -1)) {
      const inner = (table[name] ??= {})
      if (typeof inner !== 'object' || inner === null || Array.isArray(inner))
        throw new Failure('REQUEST_INVALID', `--set ${names.join('.')}: "${name}" has a value already`)
      table = inner as Settings
    }
    table[last] = value
  }
  return settings
}

function settingOf(text: string): Json {
  try {
    return JSON.parse(text) as Json
  } catch {
    return text
  }
}

async function recover(kind: RecoveryKind, vpg: string, options: RecoverOptions): Promise<void> {
  const client = new ControlClient(options.url)
  const asked = requestOf(kind, vpg, options)
  const plan = await client.planRecovery(asked)
  if (options.json !== true || options.plan !== true) await show(plan, options)
  if (options.plan === true) {
    if (options.json) printJson(plan)
    return
  }
  if (options.yes !== true && process.stdin.isTTY === true) await confirm(plan)
  // What was shown is what is done: "latest" may be another one by now.
  const begun = await client.startRecovery(kind === 'move' ? asked : { ...asked, checkpoint: plan.checkpoint })
  say(`\n${kind} ${begun.id} has begun.`)
  const seen = options.wait ? await watched(client, begun, now => now.state === 'ready' || hasEnded(now)) : begun
  if (options.json) printJson(seen)
  else await printRecovery(seen)
  if (seen.failure !== undefined) throw undone(seen)
}

/** Of a target. */
export function settingsIn({ to, set = [] }: Pick<RecoverOptions, 'to' | 'set'>): Settings {
  const settings = nested(set.map(([name, text]) => [name.split('.'), settingOf(text)]))
  if (to !== undefined) settings['directory'] = path.resolve(to)
  return settings
}

function requestOf(kind: RecoveryKind, vpg: string, options: RecoverOptions): RecoveryRequest {
  const { vm: vms, volume: volumes, target } = options
  const settings = settingsIn(options)
  return {
    ...{ vpg, kind, target, settings },
    checkpoint: options.checkpoint ?? 'latest',
    ...(vms === undefined ? {} : { vms }),
    ...(volumes === undefined ? {} : { volumes }),
    commitPolicy: { kind: options.commitPolicy ?? 'none', afterMillis: options.after ?? commitPolicyMillisDefault },
  }
}

/** Part of the output where that is all that was asked for; else for whoever watches. */
async function show(plan: RecoveryPlan, options: RecoverOptions): Promise<void> {
  const line = options.plan === true ? printLine : say
  const tags = plan.tags.length === 0 ? '' : ` (${plan.tags.join(', ')})`
  const when = `${instantInWords(plan.checkpointTimestampMicros)}, ${durationInWords(plan.ageMillis)} old`
  const volumes = plan.vms.flatMap(({ name, volumes }) => volumes.map(volume => ({ vm: name, ...volume })))
  const copy =
    plan.copySizeBytes === 0
      ? `nothing: it can be used ${plan.expectedMillis <= atOnceMillisMax ? 'at once' : `in about ${durationInWords(plan.expectedMillis)}`}`
      : `up to ${sizeInWords(plan.copySizeBytes)}, about ${durationInWords(plan.expectedMillis)}`
  const { kind, afterMillis } = plan.commitPolicy
  const facts: readonly (readonly [string, string])[] = [
    ['what', `${plan.kind} of ${plan.vpg} to ${plan.target}`],
    [
      'checkpoint',
      plan.kind === 'move'
        ? 'a last one, made when the protected site has stopped writing'
        : `${plan.checkpoint}${tags}, ${when}`,
    ],
    ...volumes.map(
      ({ vm, name, sizeBytes, dataSizeBytes }) =>
        ['volume', `${vm} ${name}, ${sizeInWords(sizeBytes)}, up to ${sizeInWords(dataSizeBytes)} of it data`] as const,
    ),
    ['to copy', copy],
    ['when it is ready', whenReady(plan.kind, kind, afterMillis)],
    ...plan.remarks.map(remark => ['note', remark] as const),
  ]
  const width = Math.max(...facts.map(([name]) => name.length))
  for (const [name, value] of facts)
    line(options.plan === true && !onTerminal() ? `${name}\t${value}` : `${name.padEnd(width)}  ${value}`)
}

function whenReady(kind: RecoveryKind, policy: RecoveryPlan['commitPolicy']['kind'], afterMillis: number): string {
  if (kind === 'clone') return 'it is kept'
  const [end, way] =
    kind === 'test'
      ? ['stopped', 'stopped']
      : [policy === 'commit' ? 'committed' : 'rolled back', 'committed or rolled back']
  return policy === 'none'
    ? `it waits until it is ${way}`
    : `it is ${end} after ${durationInWords(afterMillis)}, unless somebody says otherwise`
}

async function confirm({ kind, vpg }: RecoveryPlan): Promise<void> {
  const prompt = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await prompt.question(`\nBegin the ${kind} of ${vpg}? [y/N] `)
  prompt.close()
  if (!/^y(es)?$/i.test(answer.trim())) throw new Failure('REQUEST_INVALID', 'nothing was begun')
}

/** Looks at it until it is as asked for. Whoever stops watching does not stop it. */
export async function watched(
  client: ControlClient,
  from: RecoveryFacts,
  isAsAsked: (now: RecoveryFacts) => boolean,
): Promise<RecoveryFacts> {
  const leaving = new AbortController()
  const leave = (): void => leaving.abort()
  process.once('SIGINT', leave)
  process.once('SIGTERM', leave)
  const watch = new Watch()
  try {
    let now = from
    while (!isAsAsked(now)) {
      await delay(pollMillis, undefined, { signal: leaving.signal }).catch(() => undefined)
      if (leaving.signal.aborted)
        throw new Failure('CLOSING', `recovery ${now.id} goes on without you. ${nextInWords(now) ?? ''}`.trim())
      now = await client.recovery(now.id)
      watch.tell(now)
    }
    return now
  } finally {
    watch.end()
    process.removeListener('SIGINT', leave)
    process.removeListener('SIGTERM', leave)
  }
}

const hasEnded = ({ state }: RecoveryFacts): boolean => state === 'committed' || state === 'removed'

/** A line a volume on a terminal, drawn again where it stands; elsewhere a line for all of it now and then. */
class Watch {
  #lines = 0
  #toldAtMillis = -Infinity
  #trouble: string | undefined

  tell(now: RecoveryFacts): void {
    if (now.trouble !== undefined && now.trouble !== this.#trouble) {
      this.#clear()
      say(`${now.state === 'draining' ? 'It waits' : 'It does not get on, and is tried again'}: ${now.trouble}`)
    }
    this.#trouble = now.trouble
    if (process.stderr.isTTY === true) {
      this.#clear()
      const lines = [`${now.state}`, ...linesOf(now)]
      process.stderr.write(lines.map(line => `${line}\n`).join(''))
      this.#lines = lines.length
    } else if (performance.now() - this.#toldAtMillis > tellMillis) {
      this.#toldAtMillis = performance.now()
      say(recoveryStateInWords(now, Date.now() * 1000))
    }
  }

  end(): void {
    this.#clear()
  }

  #clear(): void {
    if (this.#lines > 0) process.stderr.write(`\u001b[${this.#lines}A\u001b[J`)
    this.#lines = 0
  }
}

/** Of what is copied. What was is told no more while it is removed. */
function linesOf({ state, target, vms }: RecoveryFacts): string[] {
  if (state !== 'preparing' && state !== 'committing') return []
  return vms.flatMap(({ name: vm, volumes }) =>
    volumes.flatMap(({ name, doneBytes, totalBytes, etaMillis }) => {
      if (doneBytes === undefined || totalBytes === undefined)
        return state === 'preparing' ? [`  ${vm} ${name}: waits for its turn`] : []
      const percent = totalBytes === 0 ? 100 : Math.floor((100 * doneBytes) / totalBytes)
      const eta = etaMillis === undefined || doneBytes >= totalBytes ? '' : `, ${durationInWords(etaMillis)} left`
      const isPut = target === 'aws' && state === 'preparing' && doneBytes >= totalBytes
      const last = isPut ? ': all is put, AWS does the rest' : ''
      return [`  ${vm} ${name}: ${percent} % of ${sizeInWords(totalBytes)}${eta}${last}`]
    }),
  )
}

export function undone({ id, failure }: RecoveryFacts): Failure {
  const { code, sentence, details } = failure ?? { code: 'CLOSING', sentence: 'it was cancelled', details: {} }
  return failureFromRecord({
    code,
    details,
    sentence: `recovery ${id} was undone, and nothing of it is left: ${sentence}`,
  })
}

function decisionCommand(decision: RecoveryDecision, description: string): Command {
  return clientCommand(decision, description)
    .argument('<id>', 'as `vra recoveries` shows it')
    .option('--no-wait', 'return when it is decided; see `vra recoveries`')
    .action(async (id: string, options: ClientOptions & { readonly wait: boolean }) => {
      const client = new ControlClient(options.url)
      const decided = await client.decideRecovery(id, decision)
      const seen = options.wait ? await watched(client, decided, hasEnded) : decided
      if (options.json) printJson(seen)
      else await printRecovery(seen)
    })
}

export function recoveriesCommand(): Command {
  return clientCommand('recoveries', 'recoveries that are under way, and the last that have ended; the newest first')
    .usage('[options] [id]\n       vra recoveries show <id>')
    .argument('[id]', 'everything about this one, as `show` has it')
    .enablePositionalOptions()
    .addCommand(
      clientCommand('show', 'everything about one, and where what it recovered can be had')
        .argument('<id>')
        .action(showRecovery),
    )
    .action(async (id: string | undefined, options: ClientOptions) => {
      if (id !== undefined) return await showRecovery(id, options)
      const recoveries = await clientOf(options).recoveries()
      if (options.json) printJson(recoveries)
      else await printRecoveryTable(recoveries)
    })
}

async function showRecovery(id: string, options: ClientOptions): Promise<void> {
  const recovery = await clientOf(options).recovery(id)
  if (options.json) printJson(recovery)
  else await printRecovery(recovery)
}

async function printRecoveryTable(recoveries: readonly RecoveryFacts[]): Promise<void> {
  const nowMicros = Date.now() * 1000
  await printTable(
    ['RECOVERY', 'KIND', 'VPG', 'CHECKPOINT', 'TARGET', 'BEGUN', 'STATE', 'WHY'],
    recoveries.map(recovery => [
      recovery.id,
      recovery.kind,
      recovery.vpg,
      recovery.checkpoint ?? '-',
      recovery.target,
      instantInWords(recovery.createdAtMicros).slice(0, 19),
      recoveryStateInWords(recovery, nowMicros),
      recovery.trouble ?? recovery.failure?.sentence ?? '',
    ]),
  )
}

async function printRecovery(recovery: RecoveryFacts): Promise<void> {
  const { checkpoint, checkpointTimestampMicros, rtoMillis } = recovery
  const of = checkpointTimestampMicros === undefined ? '' : `, ${instantInWords(checkpointTimestampMicros)}`
  const count = recovery.vms.flatMap(vm => vm.volumes).length
  printFacts([
    ['recovery', recovery.id],
    ['what', `${recovery.kind} of ${recovery.vpg} to ${recovery.target}`],
    ['checkpoint', checkpoint === undefined ? undefined : `${checkpoint}${of}`],
    ['volumes', `${countInWords(count)} of ${recovery.vms.map(({ name }) => name).join(', ')}`],
    ['state', recoveryStateInWords(recovery, Date.now() * 1000)],
    ['ready after', rtoMillis === undefined ? undefined : durationInWords(rtoMillis)],
    ['does not get on', recovery.trouble],
    ['why', recovery.failure?.sentence],
    ...recovery.things.map(
      ({ vm, volume, kind, place }) => [kind, `${volume === undefined ? vm : `${vm} ${volume}`}: ${place}`] as const,
    ),
  ])
  const next = nextInWords(recovery)
  if (next !== undefined) say(`\n${next}`)
}
