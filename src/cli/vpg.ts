import { createInterface } from 'node:readline/promises'
import { Command, Option } from 'commander'
import { Failure } from '../base/failure.ts'
import { checkpointIntervalMillisDefault, historyMillisDefault } from '../base/limits.ts'
import type { Refusal, VpgStatus } from '../control/service.ts'
import { agoInWords, countInWords, durationInWords, sizeInWords } from '../control/words.ts'
import {
  clientCommand,
  clientOf,
  collected,
  durationArgument,
  pairArgument,
  sizeArgument,
  type ClientOptions,
} from './client.ts'
import { onTerminal, printFacts, printJson, printLine, printTable, say } from './output.ts'

export function vpgCommand(): Command {
  return new Command('vpg')
    .description('define what is protected: groups of volumes that share checkpoints')
    .addCommand(createCommand())
    .addCommand(listCommand())
    .addCommand(showCommand())
    .addCommand(changeCommand())
    .addCommand(deleteCommand())
}

interface CreateOptions extends ClientOptions {
  readonly volume: readonly { readonly name: string; readonly sizeBytes: number }[]
  readonly agent: readonly string[]
  readonly history: number
  readonly interval: number
}

function createCommand(): Command {
  return clientCommand('create', 'begin to accept the writes of a group')
    .argument('<vpg>', 'its name')
    .requiredOption('--volume <name=size>', 'a volume and its size; once for each', collected(volumeArgument))
    .requiredOption('--agent <name>', 'an agent that may write it; once for each', collected(String))
    .addOption(
      durationOption('--history <duration>', 'how far back every checkpoint is kept', historyMillisDefault, '24h'),
    )
    .addOption(
      durationOption('--interval <duration>', 'between two checkpoints', checkpointIntervalMillisDefault, '5s'),
    )
    .addHelpText(
      'after',
      '\nExamples:\n  vra vpg create web --volume root=40GiB --volume data=500GiB --agent host1\n  vra vpg create db --volume disk0=2TiB --agent dbhost --history 7d --interval 10s',
    )
    .action(async (name: string, options: CreateOptions) => {
      const { volume: volumes, agent, history, interval } = options
      const request = { name, volumes, agents: agent, historyMillis: history, checkpointIntervalMillis: interval }
      const created = await clientOf(options).createVpg(request)
      if (options.json) printJson(created)
      else {
        printVpg(created, created.createdAtMicros)
        say(`\nNow start its agent: vra protect --vpg ${name} --agent ${agent[0]} --disk ${volumes[0]?.name}=PATH`)
      }
    })
}

function volumeArgument(text: string): CreateOptions['volume'][number] {
  const [name, size] = pairArgument(text)
  return { name, sizeBytes: sizeArgument(size) }
}

function durationOption(flags: string, description: string, defaultMillis: number, inWords: string): Option {
  return new Option(flags, description).argParser(durationArgument).default(defaultMillis, inWords)
}

function listCommand(): Command {
  return clientCommand('list', 'every group, one a line').action(async (options: ClientOptions) => {
    const vpgs = await clientOf(options).listVpgs()
    if (options.json) printJson(vpgs)
    else await printVpgTable(vpgs)
  })
}

/** Also what `vra status` shows. */
export async function printVpgTable(vpgs: readonly VpgStatus[]): Promise<void> {
  await printTable(
    ['VPG', 'STATE', 'RPO', 'CHECKPOINTS', 'WRITES/S', 'BYTES/S', 'VOLUMES', 'MIRROR', 'AGENTS'],
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
    ['rpo', vpg.rpoMillis === undefined ? 'no checkpoint yet' : durationInWords(vpg.rpoMillis)],
    [
      'newest',
      latest === undefined ? undefined : `${latest.checkpoint}, ${agoInWords(latest.timestampMicros, nowMicros)}`,
    ],
    [
      'oldest',
      oldest === undefined ? undefined : `${oldest.checkpoint}, ${agoInWords(oldest.timestampMicros, nowMicros)}`,
    ],
    ['checkpoints', `${countInWords(vpg.checkpointCount)}, one every ${durationInWords(vpg.checkpointIntervalMillis)}`],
    ['history', durationInWords(vpg.historyMillis)],
    [
      'writes',
      `${countInWords(vpg.writesPerSecond)}/s, ${sizeInWords(vpg.bytesPerSecond)}/s; ${countInWords(vpg.writesTotal)} in all`,
    ],
    ['not offloaded', sizeInWords(mirror.unsealedSizeBytes)],
    ['segments', `${countInWords(mirror.segmentCount)}, ${sizeInWords(mirror.segmentSizeBytes)}`],
    ['deltas', `${countInWords(mirror.deltaCount)}, ${sizeInWords(mirror.deltaSizeBytes)}`],
    ['base', `${countInWords(mirror.regionCount)} regions, ${sizeInWords(mirror.baseSizeBytes)}`],
    ['store', mirror.storeFailure === undefined ? undefined : `fails: ${mirror.storeFailure}`],
    ...vpg.volumes.map(volume => ['volume', `${volume.name}, ${sizeInWords(volume.sizeBytes)}`] as const),
    ...vpg.agents.map(
      agent =>
        ['agent', `${agent.agent}: ${agent.state}${agent.reason === undefined ? '' : `, ${agent.reason}`}`] as const,
    ),
    ...vpg.refusals.map(refusal => ['refused', refusalInWords(refusal, nowMicros)] as const),
    ...vpg.tags.map(tag => ['tag', `${tag.tag}: ${tag.checkpoint}`] as const),
    ...vpg.holes.map(hole => ['hole', `from ${hole.fromCheckpoint} on: ${hole.reason}`] as const),
  ])
}

interface ChangeOptions extends ClientOptions {
  readonly history?: number
  readonly interval?: number
}

function changeCommand(): Command {
  return clientCommand('change', 'another history or checkpoint interval')
    .argument('<vpg>')
    .option('--history <duration>', 'a shorter one lets go of older checkpoints', durationArgument)
    .option('--interval <duration>', 'between two checkpoints', durationArgument)
    .action(async (name: string, options: ChangeOptions) => {
      const changed = await clientOf(options).changeVpg(name, {
        ...(options.history === undefined ? {} : { historyMillis: options.history }),
        ...(options.interval === undefined ? {} : { checkpointIntervalMillis: options.interval }),
      })
      if (options.json) printJson(changed)
      else printVpg(changed, Date.now() * 1000)
    })
}

function deleteCommand(): Command {
  return clientCommand('delete', 'end protection; every checkpoint of the group goes')
    .argument('<vpg>')
    .option('--yes', 'do not ask')
    .action(async (name: string, options: ClientOptions & { readonly yes?: true }) => {
      const client = clientOf(options)
      if (options.yes !== true) await confirmDeletion(await client.showVpg(name))
      await client.deleteVpg(name)
      if (options.json) printJson({ deleted: name })
      else printLine(`deleted ${name}`)
    })
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
