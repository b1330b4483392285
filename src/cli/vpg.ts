import { createInterface } from 'node:readline/promises'
import { Command, Option } from 'commander'
import { Failure } from '../base/failure.ts'
import { checkpointIntervalMillisDefault } from '../base/limits.ts'
import type {
  AgentFacts,
  CreateVpgRequest,
  Density,
  JournalLimitsRequest,
  Refusal,
  RetentionRequest,
  SnapshotKeyFacts,
  TagFacts,
  VolumeFacts,
  VpgStatus,
} from '../control/service.ts'
import {
  agoInWords,
  countInWords,
  drillInWords,
  durationInWords,
  historyInWords,
  journalInWords,
  progressInWords,
  provenInWords,
  recoveryInWords,
  retentionInWords,
  scheduleInWords,
  sizeInWords,
  snapshotKeysInWords,
  standbyCopyInWords,
  standbyInWords,
  syncInWords,
  damagedInWords,
  lockedInWords,
  verifiedInWords,
} from '../control/words.ts'
import {
  clientCommand,
  clientOf,
  collected,
  durationArgument,
  limitArgument,
  rateArgument,
  retentionArgument,
  snapshotKeyArgument,
  standbyArgument,
  volumeArgument,
  type ClientOptions,
  type SnapshotKeyArgument,
} from './client.ts'
import { onTerminal, printFacts, printJson, printLine, printTable, say } from './output.ts'
import { volumeCommands } from './vpg-volumes.ts'

export function vpgCommand(): Command {
  const vpg = new Command('vpg')
    .description('define what is protected: groups of volumes that share checkpoints')
    .addCommand(createCommand())
    .addCommand(listCommand())
    .addCommand(showCommand())
    .addCommand(changeCommand())
    .addCommand(pauseCommand())
    .addCommand(resumeCommand())
    .addCommand(deleteCommand())
  for (const command of volumeCommands()) vpg.addCommand(command)
  return vpg
}

interface LimitOptions {
  readonly journalWarn?: number | string
  readonly journalLimit?: number | string
}

/** Adds the options of LimitOptions. */
function withLimits(command: Command): Command {
  const of = 'a size, a share of the disk of a store that is a directory ("20%"), or "none"'
  return command
    .option('--journal-warn <size>', `what the history may take before an alert: ${of}`, limitArgument)
    .option('--journal-limit <size>', `what it may take before its oldest checkpoints go: ${of}`, limitArgument)
}

function limitsIn({ journalWarn, journalLimit }: LimitOptions): JournalLimitsRequest {
  return {
    ...(journalWarn === undefined ? {} : { journalWarnSizeBytes: journalWarn }),
    ...(journalLimit === undefined ? {} : { journalLimitSizeBytes: journalLimit }),
  }
}

interface RetentionOptions {
  readonly history?: number
  readonly retention?: readonly Density[]
}

/** Adds the options of RetentionOptions. */
function withRetention(command: Command): Command {
  return command
    .option('--history <duration>', 'how far back every checkpoint is kept; instead of --retention', durationArgument)
    .option(
      '--retention <densities>',
      'how densely for how long, from young to old: all:4h,1m:2d,1h:14d,1d:30d keeps every checkpoint for 4 hours, then one a minute up to 2 days, and so on',
      retentionArgument,
    )
}

function retentionIn({ history, retention }: RetentionOptions): RetentionRequest {
  return {
    ...(history === undefined ? {} : { historyMillis: history }),
    ...(retention === undefined ? {} : { retention }),
  }
}

interface CreateOptions extends ClientOptions, LimitOptions, RetentionOptions {
  readonly volume: CreateVpgRequest['volumes']
  readonly agent: readonly string[]
  readonly interval: number
}

function createCommand(): Command {
  return withLimits(withRetention(clientCommand('create', 'begin to accept the writes of a group')))
    .argument('<vpg>', 'its name')
    .requiredOption(
      '--volume <[agent:][vm/]name=size>',
      "a volume, its size, with several agents the one that writes it, and the machine that it is a disk of where that is not the agent's; once for each",
      collected(volumeArgument),
    )
    .requiredOption('--agent <name>', 'an agent that may write it; once for each', collected(String))
    .addOption(
      durationOption('--interval <duration>', 'between two checkpoints', checkpointIntervalMillisDefault, '5s'),
    )
    .addHelpText(
      'after',
      '\nWithout --history and --retention: all:4h,1m:2d,1h:14d,1d:30d.\n\nExamples:\n  vra vpg create web --volume root=40GiB --volume data=500GiB --agent host1\n  vra vpg create db --volume disk0=2TiB --agent dbhost --history 7d --interval 10s\n  vra vpg create shop --agent web1 --agent db1 --volume web1:root=40GiB --volume db1:data=1TiB\n  vra vpg create erp --agent kvm1 --volume app1/app=40GiB --volume db1/system=40GiB --volume db1/data=1TiB',
    )
    .action(async (name: string, options: CreateOptions) => {
      const { volume: volumes, agent, interval } = options
      const request = {
        ...{ name, volumes, agents: agent, checkpointIntervalMillis: interval },
        ...retentionIn(options),
        ...limitsIn(options),
      }
      const created = await clientOf(options).createVpg(request)
      if (options.json) printJson(created)
      else {
        printVpg(created, created.createdAtMicros)
        say(nextInWords(created, agent))
      }
    })
}

/** Several agents have to be told where they reach each other, and only a configuration says that. */
function nextInWords(vpg: VpgStatus, agents: readonly string[]): string {
  const [only] = agents
  if (only !== undefined && agents.length === 1)
    return `\nNow start its agent:\n  vra protect --vpg ${vpg.name} --agent ${only} ${disksOf(vpg, only)}`
  return [
    '\nNow write each of its agents a configuration (vra config example agent), with its volumes and an address for the others, peers.listen; and start it:',
    ...agents.map(each => `  vra protect --config FILE   # ${each}: ${volumesOf(vpg, each).join(', ')}`),
  ].join('\n')
}

function disksOf(vpg: VpgStatus, agent: string): string {
  return volumesOf(vpg, agent)
    .map(name => `--disk ${name}=PATH`)
    .join(' ')
}

function volumesOf(vpg: VpgStatus, agent: string): string[] {
  return vpg.volumes.filter(volume => volume.agent === agent).map(volume => volume.name)
}

function durationOption(flags: string, description: string, defaultMillis: number, inWords: string): Option {
  return new Option(flags, description).argParser(durationArgument).default(defaultMillis, inWords)
}

function listCommand(): Command {
  return clientCommand('list', 'every group, one a line').action(async (options: ClientOptions) => {
    const vpgs = await clientOf(options).listVpgs()
    if (options.json) printJson(vpgs)
    else await printVpgTable(vpgs, Date.now() * 1000)
  })
}

/** Also what `vra status` shows. */
export async function printVpgTable(vpgs: readonly VpgStatus[], nowMicros: number): Promise<void> {
  await printTable(
    ['VPG', 'STATE', 'RPO', 'CHECKPOINTS', 'WRITES/S', 'BYTES/S', 'VOLUMES', 'MIRROR', 'AGENTS', 'PROGRESS'],
    vpgs.map(vpg => [
      vpg.name,
      vpg.state,
      vpg.rpoMillis === undefined ? '-' : durationInWords(vpg.rpoMillis),
      countInWords(vpg.checkpointCount),
      countInWords(vpg.writesPerSecond),
      sizeInWords(vpg.bytesPerSecond),
      sizeInWords(vpg.volumes.reduce((sum, volume) => sum + volume.sizeBytes, 0)),
      sizeInWords(vpg.mirror.segmentSizeBytes + vpg.mirror.deltaSizeBytes + vpg.mirror.baseSizeBytes),
      vpg.agents.map(agent => `${agent.agent} (${agent.state})`).join(', '),
      progressInWords(vpg, nowMicros),
    ]),
  )
}

function showCommand(): Command {
  return clientCommand('show', 'everything about one group')
    .argument('<vpg>')
    .action(async (name: string, options: ClientOptions) => {
      const vpg = await clientOf(options).showVpg(name)
      if (options.json) printJson(vpg)
      else printVpg(vpg, Date.now() * 1000)
    })
}

export function refusalInWords(refusal: Refusal, nowMicros: number): string {
  const { vpg, agent, address, code, sentence, count, lastTimestampMicros } = refusal
  const who = agent === undefined ? address : `${agent}${vpg === undefined ? '' : ` for ${vpg}`} at ${address}`
  return `${who}, ${agoInWords(lastTimestampMicros, nowMicros)}, ${countInWords(count)} in all, ${code}: ${sentence}`
}

function printVpg(vpg: VpgStatus, nowMicros: number): void {
  const { latestCheckpoint: latest, oldestCheckpoint: oldest, mirror } = vpg
  printFacts([
    ['vpg', vpg.name],
    ['id', vpg.id],
    ['state', vpg.state],
    ['reason', vpg.stateReason],
    ['no checkpoints', whyNone(vpg, nowMicros)],
    ['rpo', vpg.rpoMillis === undefined ? 'no checkpoint yet' : durationInWords(vpg.rpoMillis)],
    ['behind', behindInWords(vpg)],
    [
      'newest',
      latest === undefined ? undefined : `${latest.checkpoint}, ${agoInWords(latest.timestampMicros, nowMicros)}`,
    ],
    [
      'oldest',
      oldest === undefined ? undefined : `${oldest.checkpoint}, ${agoInWords(oldest.timestampMicros, nowMicros)}`,
    ],
    ['checkpoints', `${countInWords(vpg.checkpointCount)}, one every ${durationInWords(vpg.checkpointIntervalMillis)}`],
    ['history', historyInWords(vpg)],
    ['retention', retentionInWords(vpg.retention)],
    ['journal', journalInWords(vpg)],
    [
      'writes',
      `${countInWords(vpg.writesPerSecond)}/s, ${sizeInWords(vpg.bytesPerSecond)}/s; ${countInWords(vpg.writesTotal)} in all`,
    ],
    ['not offloaded', sizeInWords(mirror.unsealedSizeBytes)],
    ['segments', `${countInWords(mirror.segmentCount)}, ${sizeInWords(mirror.segmentSizeBytes)}`],
    ['deltas', `${countInWords(mirror.deltaCount)}, ${sizeInWords(mirror.deltaSizeBytes)}`],
    ['base', `${countInWords(mirror.regionCount)} regions, ${sizeInWords(mirror.baseSizeBytes)}`],
    ['verified', verifiedInWords(mirror, nowMicros)],
    ...damagedInWords(mirror).map(sentence => ['damaged', sentence] as const),
    ['locked', lockedInWords(mirror)],
    ['store', mirror.storeFailure === undefined ? undefined : `fails: ${mirror.storeFailure}`],
    [
      'sync rate',
      vpg.syncRateBytesPerSecond === 0 ? undefined : `at most ${sizeInWords(vpg.syncRateBytesPerSecond)}/s`,
    ],
    ...vpg.volumes.map(volume => ['volume', volumeInWords(volume)] as const),
    ...vpg.agents.map(agent => ['agent', agentInWords(agent)] as const),
    ['coordinator', vpg.agents.length > 1 ? vpg.coordinator : undefined],
    ['machines', vpg.quiescedBy === undefined ? undefined : `write no more, for the move ${vpg.quiescedBy}`],
    ...vpg.refusals.map(refusal => ['refused', refusalInWords(refusal, nowMicros)] as const),
    ...vpg.tags.map(tag => ['tag', tagInWords(tag)] as const),
    ...vpg.holes.map(hole => ['hole', `from ${hole.fromCheckpoint} on: ${hole.reason}`] as const),
    ['drills', scheduleInWords(vpg.drills, nowMicros)],
    ['last drill', vpg.drills.last === undefined ? undefined : drillInWords(vpg.drills.last)],
    ['proven', provenInWords(vpg.drills, nowMicros)],
    ...snapshotKeysInWords(vpg.snapshotKeys).map(sentence => ['snapshot key', sentence] as const),
    ['standby', standbyInWords(vpg.standby)],
    ...(vpg.standby?.copies ?? []).map(copy => ['snapshot', standbyCopyInWords(copy, nowMicros)] as const),
    ...vpg.recoveries.map(recovery => ['recovery', recoveryInWords(recovery, nowMicros)] as const),
  ])
}

function tagInWords({ tag, checkpoint, keptForMillis }: TagFacts): string {
  return `${tag}: ${checkpoint}${keptForMillis === undefined ? '' : `, kept for another ${durationInWords(keptForMillis)}`}`
}

function whyNone(vpg: VpgStatus, nowMicros: number): string | undefined {
  if (vpg.noCheckpointsBecause === undefined) return undefined
  const since = vpg.noCheckpointsSinceMicros
  if (since === undefined || vpg.latestCheckpoint === undefined) return vpg.noCheckpointsBecause
  return `${vpg.noCheckpointsBecause}; the newest was made ${agoInWords(since, nowMicros)}`
}

function behindInWords({ lagMillis, backlogBytes, backlogEtaMillis }: VpgStatus): string | undefined {
  if (lagMillis === 0 && backlogBytes === 0) return undefined
  const lag = lagMillis === undefined ? 'how far is not known' : durationInWords(lagMillis)
  const eta = backlogEtaMillis === undefined ? '' : `, ${durationInWords(backlogEtaMillis)} left`
  return `${lag}, ${sizeInWords(backlogBytes)} to come${eta}`
}

function volumeInWords({ name, sizeBytes, agent, vm, dirtyBytes, sync, preseed }: VolumeFacts): string {
  const seed = preseed === undefined || (preseed.state === 'ended' && sync === undefined) ? '' : preseedInWords(preseed)
  const dirty = dirtyBytes === 0 ? '' : `, ${sizeInWords(dirtyBytes)} marked by its agent, until that is offloaded`
  const of = vm === agent ? agent : `${agent}, of ${vm}`
  return `${name}, ${sizeInWords(sizeBytes)}, ${of}${seed}${dirty}${sync === undefined ? '' : `, ${syncInWords(sync)}`}`
}

function preseedInWords({ state, file, doneBytes }: NonNullable<VolumeFacts['preseed']>): string {
  const done = sizeInWords(doneBytes)
  return state === 'ended' ? `, ${done} of it from ${file}` : `, being read from ${file}: ${done}`
}

function agentInWords({ agent, state, reason, lagMillis, queuedBytes, backlogEtaMillis }: AgentFacts): string {
  const lag = lagMillis === undefined || lagMillis === 0 ? '' : `, ${durationInWords(lagMillis)} behind`
  const backlog = queuedBytes === 0 ? '' : `, ${sizeInWords(queuedBytes)} waiting`
  const eta = queuedBytes === 0 || backlogEtaMillis === undefined ? '' : ` (${durationInWords(backlogEtaMillis)} left)`
  return `${agent}: ${state}${reason === undefined ? '' : `, ${reason}`}${lag}${backlog}${eta}`
}

interface ChangeOptions extends ClientOptions, LimitOptions, RetentionOptions {
  readonly syncOverLimit?: 'wait' | 'go-on'
  readonly syncRate?: number
  readonly interval?: number
  readonly standby?: number
  readonly snapshotKey?: readonly SnapshotKeyArgument[]
}

/** Fails REQUEST_INVALID for "none" beside others, and where one is named twice. */
function snapshotKeysIn(all: readonly SnapshotKeyArgument[]): SnapshotKeyFacts {
  const named = all.flatMap(each => (each === 'none' ? [] : [each]))
  if (named.length < all.length && all.length > 1)
    throw new Failure(
      'REQUEST_INVALID',
      '--snapshot-key none stands alone: all keys that are to be used are named at once',
    )
  const ofVolumes = named.flatMap(({ volume, key }) => (volume === undefined ? [] : [[volume, key] as const]))
  const [ofAll, second] = named.filter(({ volume }) => volume === undefined)
  if (second !== undefined || new Set(ofVolumes.map(([volume]) => volume)).size < ofVolumes.length)
    throw new Failure('REQUEST_INVALID', '--snapshot-key: there is one key for all volumes, and one for each at most')
  return { ...(ofAll === undefined ? {} : { all: ofAll.key }), volumes: Object.fromEntries(ofVolumes) }
}

function changeCommand(): Command {
  return withLimits(
    withRetention(
      clientCommand(
        'change',
        'another history, retention, checkpoint interval, journal limit, rate of synchronisations, or standby snapshots',
      ),
    ),
  )
    .argument('<vpg>')
    .option('--interval <duration>', 'between two checkpoints', durationArgument)
    .addOption(
      new Option(
        '--sync-over-limit <what>',
        'what a synchronisation does for which the journal limit has no room beside the last checkpoint',
      ).choices(['wait', 'go-on']),
    )
    .option(
      '--standby <duration>',
      'keep snapshots of its volumes in AWS, brought up to a newer checkpoint as often ("1h"), so that a recovery there puts only what has changed since; "none"',
      standbyArgument,
    )
    .option(
      '--snapshot-key <[volume=]arn>',
      'the key of KMS with which its snapshots in AWS are encrypted, by ARN; once for all volumes, or for each; in place of those named before; "none"',
      collected(snapshotKeyArgument),
    )
    .option('--sync-rate <size>', 'what a synchronisation reads of disks at most in a second; "none"', rateArgument)
    .action(async (name: string, options: ChangeOptions) => {
      const changed = await clientOf(options).changeVpg(name, {
        ...retentionIn(options),
        ...(options.interval === undefined ? {} : { checkpointIntervalMillis: options.interval }),
        ...limitsIn(options),
        ...(options.syncOverLimit === undefined ? {} : { syncMayPassLimit: options.syncOverLimit === 'go-on' }),
        ...(options.standby === undefined ? {} : { standbyIntervalMillis: options.standby }),
        ...(options.syncRate === undefined ? {} : { syncRateBytesPerSecond: options.syncRate }),
        ...(options.snapshotKey === undefined ? {} : { snapshotKeys: snapshotKeysIn(options.snapshotKey) }),
      })
      if (options.json) printJson(changed)
      else printVpg(changed, Date.now() * 1000)
    })
}

function pauseCommand(): Command {
  const description = 'stop sending; what is written meanwhile is synchronised when it is resumed'
  return clientCommand('pause', description).argument('<vpg>').action(changePaused(true))
}

function resumeCommand(): Command {
  return clientCommand('resume', 'go on after a pause').argument('<vpg>').action(changePaused(false))
}

function changePaused(paused: boolean): (name: string, options: ClientOptions) => Promise<void> {
  return async (name, options) => {
    const changed = await clientOf(options).changeVpg(name, { paused })
    if (options.json) printJson(changed)
    else printVpg(changed, Date.now() * 1000)
  }
}

function deleteCommand(): Command {
  return clientCommand('delete', 'end protection; every checkpoint of the group goes')
    .argument('<vpg>')
    .option('--yes', 'do not ask; needed where there is no terminal to ask at')
    .option(
      '--force',
      'although its standby copies, or what a recovery is removing, cannot be removed from AWS: leave them there, and say which',
    )
    .action(async (name: string, options: ClientOptions & { readonly yes?: true; readonly force?: true }) => {
      const client = clientOf(options)
      const isForced = options.force === true
      const vpg = options.yes !== true || isForced ? await client.showVpg(name) : undefined
      if (vpg !== undefined && options.yes !== true) await confirmDeletion(vpg)
      await client.deleteVpg(name, { isForced })
      const left = isForced && vpg !== undefined ? leftInAws(vpg) : []
      if (options.json) printJson({ deleted: name, ...(isForced ? { left } : {}) })
      else {
        printLine(`deleted ${name}`)
        for (const each of left) printLine(`left in AWS, and nobody's any more: ${each}`)
      }
    })
}

/** What may be there, by id where that is known, and by the tag that finds all of it. */
function leftInAws({ id, standby, recoveries }: VpgStatus): string[] {
  const copies = standby?.copies.map(({ place, volume }) => `snapshot ${place} of ${volume}`) ?? []
  const made = recoveries.filter(({ target, state }) => target === 'aws' && state === 'removing')
  const things = made.flatMap(recovery => recovery.things.map(({ kind, place }) => `${kind} ${place}`))
  const tags = made.map(recovery => `whatever has the tag vra-recovery=${recovery.id}`)
  return [...copies, ...(standby === undefined ? [] : [`whatever has the tag vra-standby=${id}`]), ...things, ...tags]
}

async function confirmDeletion(vpg: VpgStatus): Promise<void> {
  if (!onTerminal() || process.stdin.isTTY !== true)
    throw new Failure(
      'REQUEST_INVALID',
      `deleting ${vpg.name} takes ${vpg.checkpointCount} checkpoints with it; give --yes`,
    )
  const prompt = createInterface({ input: process.stdin, output: process.stderr })
  const question = `${vpg.name} has ${countInWords(vpg.checkpointCount)} checkpoints, and all of them go. Type its name to delete it: `
  const answer = await prompt.question(question)
  prompt.close()
  if (answer.trim() !== vpg.name) throw new Failure('REQUEST_INVALID', 'nothing was deleted')
}
