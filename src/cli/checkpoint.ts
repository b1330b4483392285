import { Command, Option } from 'commander'
import { pageSizeMax } from '../base/limits.ts'
import type { ControlClient } from '../control/client.ts'
import type { CheckpointFacts, CheckpointListQuery } from '../control/service.ts'
import { agoInWords, instantInWords } from '../control/words.ts'
import { clientCommand, clientOf, countArgument, instantArgument, keepArgument, type ClientOptions } from './client.ts'
import { printFacts, printJson, printLine, printTable, say } from './output.ts'

export function checkpointCommand(): Command {
  return new Command('checkpoint')
    .description('the instants that can be recovered')
    .addCommand(listCommand())
    .addCommand(tagCommand())
    .addCommand(untagCommand())
}

interface ListOptions extends ClientOptions {
  readonly limit: number
  readonly oldestFirst?: true
  readonly after?: string
  readonly from?: number
  readonly to?: number
  readonly tagged?: true
}

function listCommand(): Command {
  return clientCommand('list', 'checkpoints, the newest first')
    .argument('<vpg>')
    .option('--limit <count>', 'how many at most', countArgument, 20)
    .option('--oldest-first', 'the other way round')
    .option('--after <id>', 'beyond this one, in the order asked for')
    .option('--from <time>', 'at or after it', instantArgument)
    .option('--to <time>', 'before it', instantArgument)
    .option('--tagged', 'only tagged ones')
    .addHelpText(
      'after',
      '\nTimes are ISO 8601 (UTC where no zone is given) or like "2h ago".\n\nExamples:\n  vra checkpoint list web --from "2h ago" --to "90m ago"\n  vra checkpoint list web --tagged --json',
    )
    .action(async (vpg: string, options: ListOptions) => {
      const query = {
        vpg,
        order: options.oldestFirst === true ? 'oldest-first' : 'newest-first',
        ...(options.after === undefined ? {} : { after: options.after }),
        ...(options.from === undefined ? {} : { fromTimestampMicros: options.from }),
        ...(options.to === undefined ? {} : { toTimestampMicros: options.to }),
        ...(options.tagged === undefined ? {} : { tagged: options.tagged }),
      } as const
      const listed = await listPages(clientOf(options), query, options.limit)
      if (options.json) printJson(listed)
      else {
        await printTable(['CHECKPOINT', 'TIME', 'AGE', 'RECOVERABLE', 'TAGS'], listed.checkpoints.map(rowOf))
        if (listed.more) say(`more: --after ${listed.checkpoints.at(-1)?.checkpoint}, or a larger --limit`)
      }
    })
}

/** The API gives at most a page at once. */
async function listPages(
  client: ControlClient,
  query: Omit<CheckpointListQuery, 'limit'>,
  limit: number,
): Promise<{ checkpoints: CheckpointFacts[]; more: boolean }> {
  const checkpoints: CheckpointFacts[] = []
  let more = true
  while (more && checkpoints.length < limit) {
    const last = checkpoints.at(-1)
    const page = await client.listCheckpoints({
      ...query,
      limit: Math.min(pageSizeMax, limit - checkpoints.length),
      ...(last === undefined ? {} : { after: last.checkpoint }),
    })
    checkpoints.push(...page.checkpoints)
    more = page.more && page.checkpoints.length > 0
  }
  return { checkpoints, more }
}

function rowOf(facts: CheckpointFacts): string[] {
  const time = instantInWords(facts.timestampMicros)
  const age = agoInWords(facts.timestampMicros, Date.now() * 1000)
  return [facts.checkpoint, time, age, facts.recoverable ? 'yes' : 'no', facts.tags.join(', ')]
}

interface TagOptions extends ClientOptions {
  readonly checkpoint?: string
  readonly keep?: number
}

function tagCommand(): Command {
  return clientCommand('tag', 'make a checkpoint now and name it, or name one that exists')
    .argument('<vpg>')
    .argument('<tag>', 'begins with a letter')
    .option('--checkpoint <checkpoint>', 'this one instead of a new one: latest, an id, a tag, a time')
    .option(
      '--keep <duration>',
      'how long it is kept, of the time that the group is protected; or "forever"',
      keepArgument,
    )
    .addHelpText(
      'after',
      '\nA tagged checkpoint is kept as long as it is told to, without --keep until it is untagged, whatever the history. To tag it again by the same name changes that.\n\nExamples:\n  vra checkpoint tag web before-upgrade --keep 90d\n  vra checkpoint tag web month-end --checkpoint "2026-03-31 22:00"',
    )
    .action(async (vpg: string, tag: string, options: TagOptions) => {
      const { checkpoint, keep } = options
      const tagged = await clientOf(options).tagCheckpoint({
        vpg,
        tag,
        ...(checkpoint === undefined ? {} : { checkpoint }),
        ...(keep === undefined ? {} : { keepMillis: keep }),
      })
      if (options.json) printJson(tagged)
      else
        printFacts([
          ['checkpoint', tagged.checkpoint],
          ['time', instantInWords(tagged.timestampMicros)],
          ['tags', tagged.tags.join(', ')],
        ])
    })
}

function untagCommand(): Command {
  return clientCommand('untag', 'take the name away; the history then decides how long it is kept')
    .argument('<vpg>')
    .argument('<tag>')
    .action(async (vpg: string, tag: string, options: ClientOptions) => {
      await clientOf(options).untagCheckpoint(vpg, tag)
      if (options.json) printJson({ untagged: tag })
      else printLine(`untagged ${tag}`)
    })
}

export const checkpointOption = (): Option =>
  new Option(
    '--checkpoint <checkpoint>',
    'latest, an id (3.1204), a tag, or a time (ISO 8601, "10m ago": the newest at or before it)',
  ).default('latest')
