import { existsSync } from 'node:fs'
import * as path from 'node:path'
import type { Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { ControlClient } from '../control/client.ts'
import type { ExportJob } from '../control/service.ts'
import { durationInWords, instantInWords, sizeInWords } from '../control/words.ts'
import { checkpointOption } from './checkpoint.ts'
import { clientCommand, clientOf, type ClientOptions } from './client.ts'
import { untilEnded } from './jobs.ts'
import { printFacts, printJson, printTable, say } from './output.ts'

interface ExportOptions extends ClientOptions {
  readonly checkpoint: string
  readonly volume?: string
  readonly to?: string
  readonly overwrite?: true
  readonly wait: boolean
}

export function exportCommand(): Command {
  // What is required is so of an export alone: commander would ask it of `list` and `cancel`, too.
  const command = clientCommand('export', 'write a volume as of a checkpoint into a sparse raw file')
  return command
    .usage('<vpg> --volume <name> --to <file> [options]\n       vra export list | cancel <id>')
    .enablePositionalOptions()
    .addCommand(listCommand())
    .addCommand(cancelCommand())
    .argument('<vpg>')
    .option('--volume <name>', 'which volume of the group; required')
    .option(
      '--to <file>',
      "on the daemon's host; written beside it (FILE.<random>.partial), synced, then renamed; required",
    )
    .addOption(checkpointOption())
    .option('--overwrite', 'replace the file')
    .option('--no-wait', 'return when the export has begun; see `vra export list`')
    .addHelpText(
      'after',
      `
The daemon writes the file as its own user. Ctrl-C cancels the export,
and "vra export cancel ID" one that was begun elsewhere.

Examples:
  vra export web --volume root --to /srv/root.img
  vra export web --volume root --checkpoint before-upgrade --to /srv/root.img
  vra export web --volume data --checkpoint "10m ago" --to /srv/data.img --overwrite
  vra export web --volume data --checkpoint 2026-03-29T02:14:55Z --to /srv/data.img`,
    )
    .action(async (vpg: string, options: ExportOptions) => {
      const client = new ControlClient(options.url)
      const { volume, checkpoint } = options
      if (volume === undefined) throw missing(command, '--volume <name>')
      if (options.to === undefined) throw missing(command, '--to <file>')
      const file = path.resolve(options.to)
      const begun = await client.startExport({ vpg, volume, checkpoint, file, overwrite: options.overwrite === true })
      const job = options.wait ? await untilEnded(begun, callsFor(client, begun.id)) : begun
      if (options.json) printJson(job)
      else printJob(job)
      if (job.state === 'done' && !options.json && !existsSync(file)) say(notSeenHere)
      if (job.state === 'cancelled') throw new Failure('CLOSING', `the export was cancelled, ${file} was not written`)
    })
}

const notSeenHere =
  "The file is not to be seen from here: it is on the daemon's host, and what is below /tmp there is in a /tmp of the daemon's own where systemd gives it one (PrivateTmp)."

function missing(command: Command, flags: string): never {
  return command.error(`error: required option '${flags}' not specified`, {
    code: 'commander.missingMandatoryOptionValue',
  })
}

function listCommand(): Command {
  return clientCommand('list', 'exports that run, and the last that have ended; the newest first').action(
    async (options: ClientOptions) => {
      const jobs = await clientOf(options).exports()
      if (options.json) printJson(jobs)
      else await printExportTable(jobs)
    },
  )
}

function cancelCommand(): Command {
  return clientCommand('cancel', 'end an export that runs; what it has written goes')
    .argument('<id>', 'as `vra export list` shows it')
    .action(async (id: string, options: ClientOptions) => {
      const job = await clientOf(options).cancelExport(id)
      if (options.json) printJson(job)
      else printJob(job)
      if (job.state !== 'cancelled')
        throw new Failure('REQUEST_INVALID', `the export had ended before it could be cancelled: ${job.state}`)
    })
}

/** Also what `vra status` shows. */
export async function printExportTable(jobs: readonly ExportJob[]): Promise<void> {
  await printTable(
    ['EXPORT', 'STATE', 'VPG', 'VOLUME', 'CHECKPOINT', 'DONE', 'FILE', 'WHY'],
    jobs.map(job => [
      job.id,
      job.state,
      job.vpg,
      job.volume,
      job.checkpoint,
      `${sizeInWords(job.doneBytes)} of ${sizeInWords(job.sizeBytes)}`,
      job.file,
      job.failure?.sentence ?? '',
    ]),
  )
}

function callsFor(client: ControlClient, id: string): Parameters<typeof untilEnded<ExportJob>>[1] {
  return {
    look: () => client.export(id),
    cancel: () => client.cancelExport(id),
    progressOf: job => ({ doneBytes: job.doneBytes, totalBytes: job.sizeBytes }),
  }
}

function printJob(job: ExportJob): void {
  const millis = job.endedAtMicros === undefined ? undefined : (job.endedAtMicros - job.startedAtMicros) / 1000
  printFacts([
    ['export', job.id],
    ['state', job.state],
    ['volume', `${job.vpg} ${job.volume}`],
    ['checkpoint', `${job.checkpoint}, ${instantInWords(job.checkpointTimestampMicros)}`],
    ['file', job.file],
    ['size', `${sizeInWords(job.sizeBytes)}, ${sizeInWords(job.dataBytes)} of it data`],
    ['took', millis === undefined ? undefined : durationInWords(millis)],
  ])
}
