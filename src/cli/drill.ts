import { Command, InvalidArgumentError, Option } from 'commander'
import { systemClock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import { drillCheckMillisDefault } from '../base/limits.ts'
import { ControlClient } from '../control/client.ts'
import type { DrillReport, RecoveryFacts, RecoveryTargetKind, VpgStatus } from '../control/service.ts'
import {
  drillInWords,
  durationInWords,
  instantInWords,
  provenInWords,
  recoveryStateInWords,
  scheduleInWords,
} from '../control/words.ts'
import { checkEnvironment, runCheck } from '../recovery/check.ts'
import { checkpointOption } from './checkpoint.ts'
import { clientCommand, clientOf, collected, durationArgument, type ClientOptions } from './client.ts'
import { exitStatus } from './exit.ts'
import { printFacts, printJson, printTable, say } from './output.ts'
import { settingArgument, settingsIn, undone, watched } from './recover.ts'

interface TargetOptions extends ClientOptions {
  readonly target?: RecoveryTargetKind
  readonly to?: string
  readonly set?: readonly (readonly [string, string])[]
}

interface DrillOptions extends TargetOptions {
  readonly check?: string
  readonly named?: string
  readonly checkpoint: string
  readonly timeout: number
}

export function drillCommand(): Command {
  const drill = withTarget(
    clientCommand(
      'drill',
      'prove that a checkpoint can be recovered: recover it, have it checked, and remove it again',
    ),
  )
  return drill
    .usage('<vpg> [options]\n       vra drill list <vpg> | schedule <vpg> | unschedule <vpg>')
    .enablePositionalOptions()
    .addCommand(listCommand())
    .addCommand(scheduleCommand())
    .addCommand(unscheduleCommand())
    .argument('<vpg>')
    .option('--check <command>', 'a command for /bin/sh that is run here, by you: it has passed where it ends with 0')
    .option('--named <name>', "one of drillChecks of the daemon's configuration, which the daemon runs")
    .addOption(checkpointOption())
    .addOption(
      new Option('--timeout <duration>', 'how long --check may take')
        .argParser(durationArgument)
        .default(drillCheckMillisDefault, durationInWords(drillCheckMillisDefault)),
    )
    .addHelpText(
      'after',
      `
Without --check and --named it is the check of the group's schedule, to its target. A check finds what was recovered in its environment:
VRA_NBD_<volume>, VRA_FILE_<volume>, VRA_EC2_INSTANCE_<machine>, VRA_EBS_VOLUME_<volume>; and VRA_VPG, VRA_CHECKPOINT, VRA_CHECKPOINT_TIME,
VRA_RECOVERY, VRA_TARGET, and all places as JSON in VRA_THINGS. It may write to what was recovered.

Examples:
  vra drill web --target raw --to /srv/drills --check 'e2fsck -p "$VRA_FILE_root"; e2fsck -fn "$VRA_FILE_root"'
  vra drill web --check 'nbdcopy "$VRA_NBD_root" - | sha256sum' --checkpoint "1h ago"
  vra drill schedule web --check fsck --at 03:30 --target raw --to /srv/drills
  vra drill list web`,
    )
    .action(async (vpg: string, options: DrillOptions) => {
      const client = new ControlClient(options.url)
      const ended = await drilled(client, vpg, options)
      if (options.json) printJson(ended)
      else printDrill(ended)
      process.exitCode = statusOf(ended)
    })
}

function withTarget(command: Command): Command {
  return command
    .addOption(new Option('--target <target>', 'what it is recovered to (default: nbd)').choices(['nbd', 'raw', 'aws']))
    .option('--to <directory>', "on the VRA's host: where the files or the scratch go")
    .option('--set <name=value>', 'a setting of the target, as of `vra recover`', collected(settingArgument))
}

async function drilled(client: ControlClient, vpg: string, options: DrillOptions): Promise<RecoveryFacts> {
  const { check: command, named, checkpoint, timeout: timeoutMillis } = options
  const own = command === undefined ? undefined : { command, timeoutMillis }
  if (own !== undefined && named !== undefined)
    throw new Failure('REQUEST_INVALID', 'give --check or --named, not both')
  const asked = { target: options.target ?? 'nbd', settings: settingsIn(options) }
  const { configured, ...scheduledTarget } =
    own === undefined && named === undefined ? await scheduled(client, vpg) : { configured: named ?? '', ...asked }
  const target = options.target === undefined ? scheduledTarget : asked
  const check = own === undefined ? { configured } : told(own)
  const begun = await client.startDrill({ vpg, checkpoint, ...target, check })
  say(`drill ${begun.id} of checkpoint ${begun.checkpoint} has begun.`)
  const ready = await watched(client, begun, now => now.state === 'ready' || hasEnded(now))
  if (own !== undefined && ready.state === 'ready') await checkHere(client, ready, own)
  return await watched(client, await client.recovery(begun.id), hasEnded)
}

/** What is told of it: enough to know it again. */
function told({ command, timeoutMillis }: { readonly command: string; readonly timeoutMillis: number }) {
  return { command: command.length > 256 ? `${command.slice(0, 255)}…` : command, timeoutMillis }
}

async function scheduled(client: ControlClient, vpg: string) {
  const { schedule } = (await client.showVpg(vpg)).drills
  if (schedule !== undefined)
    return { configured: schedule.check, target: schedule.target, settings: schedule.settings }
  throw new Failure(
    'REQUEST_INVALID',
    `say how it is checked: --check COMMAND, or --named NAME for one of the daemon's; ${vpg} has no schedule that says so`,
  )
}

/** In this process, as whoever began the command: the daemon is told what came of it. */
async function checkHere(
  client: ControlClient,
  ready: RecoveryFacts,
  check: { readonly command: string; readonly timeoutMillis: number },
): Promise<void> {
  say(`ready after ${durationInWords(ready.rtoMillis ?? 0)}; checking`)
  const leaving = new AbortController()
  const leave = (): void => leaving.abort(new Failure('CLOSING', `drill ${ready.id} was stopped`))
  process.once('SIGINT', leave)
  process.once('SIGTERM', leave)
  try {
    const own = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined)
    const environment = { ...Object.fromEntries(own), ...checkEnvironment(ready) }
    const echo = (chunk: Buffer): void => void process.stderr.write(chunk)
    const result = await runCheck({ ...check, environment, clock: systemClock, told: echo }, leaving.signal)
    await client.reportDrill(ready.id, result as DrillReport).catch(async (error: unknown) => {
      if ((await client.recovery(ready.id)).drill?.outcome === undefined) throw error
      say(`what it said does not count: ${error instanceof Error ? error.message : String(error)}`)
    })
  } catch (error) {
    if (leaving.signal.aborted) await client.decideRecovery(ready.id, 'stop').catch(() => undefined)
    throw error
  } finally {
    process.removeListener('SIGINT', leave)
    process.removeListener('SIGTERM', leave)
  }
}

const hasEnded = ({ state }: RecoveryFacts): boolean => state === 'committed' || state === 'removed'

function statusOf(ended: RecoveryFacts): number {
  switch (ended.drill?.outcome) {
    case 'passed':
      return exitStatus.done
    case 'failed':
    case 'timed-out':
      return exitStatus.notProven
    case 'not-recovered':
      throw undone(ended)
    default:
      return exitStatus.unavailable
  }
}

function listCommand(): Command {
  return clientCommand('list', 'drills of a group, the newest first; and when the next one is due')
    .argument('<vpg>')
    .action(async (vpg: string, options: ClientOptions) => {
      const client = clientOf(options)
      const drills = await client.drills(vpg)
      if (options.json) return printJson(drills)
      printSchedule(await client.showVpg(vpg))
      await printTable(
        ['DRILL', 'CHECKPOINT', 'OF', 'BY', 'TARGET', 'BEGUN', 'READY AFTER', 'STATE', 'CHECK'],
        drills.map(drill => [
          drill.id,
          drill.checkpoint ?? '-',
          drill.checkpointTimestampMicros === undefined
            ? '-'
            : instantInWords(drill.checkpointTimestampMicros).slice(0, 19),
          drill.drill?.by ?? '-',
          drill.target,
          instantInWords(drill.createdAtMicros).slice(0, 19),
          drill.rtoMillis === undefined ? '-' : durationInWords(drill.rtoMillis),
          drill.drill?.outcome ?? recoveryStateInWords(drill, Date.now() * 1000),
          drillInWords(drill),
        ]),
      )
    })
}

interface ScheduleOptions extends TargetOptions {
  readonly check: string
  readonly every?: number
  readonly at?: number
}

function scheduleCommand(): Command {
  return withTarget(clientCommand('schedule', 'drill a group again and again'))
    .argument('<vpg>')
    .requiredOption('--check <name>', "one of drillChecks of the daemon's configuration")
    .option('--every <duration>', 'so long after the one before was begun', durationArgument)
    .option('--at <hh:mm>', 'each day at this time, in UTC', timeArgument)
    .action(async (vpg: string, options: ScheduleOptions) => {
      const { check, every, at, target = 'nbd' } = options
      if ((every === undefined) === (at === undefined))
        throw new Failure('REQUEST_INVALID', 'say when: --every DURATION or --at HH:MM')
      const when = every === undefined ? { minuteOfDay: at ?? 0 } : { everyMillis: every }
      const drillSchedule = { ...when, check, target, settings: settingsIn(options) }
      const changed = await clientOf(options).changeVpg(vpg, { drillSchedule })
      if (options.json) printJson(changed.drills)
      else printSchedule(changed)
    })
}

function unscheduleCommand(): Command {
  return clientCommand('unschedule', 'drill it no more by itself; what was proven stays known')
    .argument('<vpg>')
    .action(async (vpg: string, options: ClientOptions) => {
      const changed = await clientOf(options).changeVpg(vpg, { drillSchedule: null })
      if (options.json) printJson(changed.drills)
      else printSchedule(changed)
    })
}

function timeArgument(text: string): number {
  const match = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(text)
  if (match === null) throw new InvalidArgumentError('Give a time of the day such as 03:30.')
  return Number(match[1]) * 60 + Number(match[2])
}

function printSchedule({ name, drills }: VpgStatus): void {
  const nowMicros = Date.now() * 1000
  printFacts([
    ['vpg', name],
    ['schedule', scheduleInWords(drills, nowMicros) ?? 'none'],
    ['proven', provenInWords(drills, nowMicros) ?? 'none yet'],
  ])
}

function printDrill(drill: RecoveryFacts): void {
  const { id, vpg, target, checkpoint, checkpointTimestampMicros, rtoMillis } = drill
  const of = checkpointTimestampMicros === undefined ? '' : `, ${instantInWords(checkpointTimestampMicros)}`
  printFacts([
    ['drill', id],
    ['what', `${vpg} to ${target}`],
    ['checkpoint', `${checkpoint ?? '-'}${of}`],
    ['ready after', rtoMillis === undefined ? undefined : durationInWords(rtoMillis)],
    ['check', drillInWords(drill)],
    // What a check said here was seen here.
    ['said', drill.drill?.checkedBy === 'daemon' ? drill.drill.output : undefined],
  ])
}
