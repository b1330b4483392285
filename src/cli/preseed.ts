import * as path from 'node:path'
import type { Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { ControlClient } from '../control/client.ts'
import type { PreseedJob } from '../control/service.ts'
import { durationInWords, sizeInWords } from '../control/words.ts'
import { clientCommand, type ClientOptions } from './client.ts'
import { untilEnded } from './jobs.ts'
import { printFacts, printJson } from './output.ts'

interface PreseedOptions extends ClientOptions {
  readonly volume: string
  readonly from: string
  readonly wait: boolean
}

export function preseedCommand(): Command {
  return clientCommand(
    'preseed',
    'begin the mirror of a volume with a raw image, so that only what differs crosses the link',
  )
    .argument('<vpg>')
    .requiredOption('--volume <name>', 'which volume of the group')
    .requiredOption('--from <file>', "a raw image or a block device on the daemon's host, as large as the volume")
    .option('--no-wait', 'return when it has begun; see `vra vpg show`')
    .addHelpText(
      'after',
      `
For a volume that its agent has not sent yet: define it, hand the image over, then start the agent. An agent that is there already waits
with the first synchronisation of this volume, and then compares the disk with the image, block by block. There is no checkpoint of the volume
before all of it was compared, so an old or a wrong image costs time, not data. Nobody may write to the image meanwhile. Ctrl-C cancels: what was read
by then stays and is compared. A restarted daemon goes on where it was.

Examples:
  vra vpg create web --volume root=40GiB --agent host1
  vra preseed web --volume root --from /mnt/usb/root.img`,
    )
    .action(async (vpg: string, options: PreseedOptions) => {
      const client = new ControlClient(options.url)
      const begun = await client.startPreseed({ vpg, volume: options.volume, file: path.resolve(options.from) })
      const job = options.wait ? await untilEnded(begun, callsFor(client, begun.id)) : begun
      if (options.json) printJson(job)
      else printJob(job)
    })
}

function callsFor(client: ControlClient, id: string): Parameters<typeof untilEnded<PreseedJob>>[1] {
  return {
    look: () => client.preseed(id),
    cancel: async () => {
      const { state } = await client.cancelPreseed(id)
      if (state !== 'cancelled') return client.preseed(id)
      throw new Failure('CLOSING', 'the preseed was cancelled; what was read stays, and is compared')
    },
    progressOf: job => ({ doneBytes: job.doneBytes, totalBytes: job.sizeBytes }),
  }
}

function printJob(job: PreseedJob): void {
  const millis = job.endedAtMicros === undefined ? undefined : (job.endedAtMicros - job.startedAtMicros) / 1000
  printFacts([
    ['preseed', job.id],
    ['state', job.state],
    ['volume', `${job.vpg} ${job.volume}`],
    ['file', job.file],
    ['size', `${sizeInWords(job.sizeBytes)}, ${sizeInWords(job.dataBytes)} of it data`],
    ['took', millis === undefined ? undefined : durationInWords(millis)],
  ])
}
