import { Option, type Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { clientCommand, clientOf, collected, type ClientOptions } from './client.ts'
import { printJson, printLine } from './output.ts'

interface SyncOptions extends ClientOptions {
  readonly volume?: readonly string[]
  readonly delta?: true
  readonly full?: true
}

export function syncCommand(): Command {
  return clientCommand('sync', 'have volumes compared with, or sent to, the VRA once more')
    .argument('<vpg>')
    .option('--volume <name>', 'only this one; once for each (default: all)', collected(String))
    .addOption(new Option('--delta', 'compare hashes, send the blocks that differ').conflicts('full'))
    .option('--full', 'send every block')
    .addHelpText(
      'after',
      `
An agent synchronises by itself what it knows to be needed; this is for what it cannot know. There are no new checkpoints of the
group until it is done; the older ones stay.

Examples:
  vra sync web --delta
  vra sync web --volume root --full`,
    )
    .action(async (vpg: string, options: SyncOptions) => {
      if (options.delta !== true && options.full !== true)
        throw new Failure('REQUEST_INVALID', 'say how: --delta or --full')
      const kind = options.full === true ? 'full' : 'delta'
      const { volume: volumes } = options
      const status = await clientOf(options).requestSync(vpg, { kind, ...(volumes === undefined ? {} : { volumes }) })
      if (options.json) printJson(status)
      else printLine(`asked for; \`vra vpg show ${vpg}\` tells how far it is`)
    })
}
