import { Option, type Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { sizeInWords } from '../control/words.ts'
import { clientCommand, clientOf, type ClientOptions } from './client.ts'
import { printJson, printTable, say } from './output.ts'

interface DiffOptions extends ClientOptions {
  readonly from: string
  readonly to: string
  readonly volume?: string
}

export function diffCommand(): Command {
  return clientCommand('diff', 'where volumes were written between two checkpoints')
    .argument('<vpg>')
    .requiredOption('--from <checkpoint>', 'an id, a tag, a time, or latest')
    .addOption(new Option('--to <checkpoint>', 'the same').default('latest'))
    .option('--volume <name>', 'one volume of the group; all of them without it')
    .addHelpText(
      'after',
      `
It is read from indexes, not from data: what differs lies in these extents, and
they may hold what was written and is the same again.

Examples:
  vra diff web --from before-upgrade
  vra diff web --from "2h ago" --to "1h ago" --volume root --json`,
    )
    .action(async (vpg: string, options: DiffOptions) => {
      const client = clientOf(options)
      const { from, to } = options
      const names =
        options.volume === undefined ? (await client.showVpg(vpg)).volumes.map(({ name }) => name) : [options.volume]
      if (names.length === 0) throw new Failure('UNKNOWN_VOLUME', `${vpg} has no volume`)
      const found = []
      for (const volume of names) found.push(await client.diff({ vpg, volume, from, to }))
      if (options.json) {
        printJson(found)
        return
      }
      const rows = found.flatMap(({ volume, extents }) =>
        extents.map(({ offsetBytes, sizeBytes }) => [volume, String(offsetBytes), String(sizeBytes)]),
      )
      await printTable(['VOLUME', 'OFFSET', 'BYTES'], rows)
      for (const { volume, sizeBytes, extents } of found)
        say(
          `${volume}: ${sizeInWords(sizeBytes)} in ${extents.length} extent${extents.length === 1 ? '' : 's'} written; what differs is among them`,
        )
    })
}
