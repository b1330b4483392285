import { Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { pageSizeMax } from '../base/limits.ts'
import { ControlClient } from '../control/client.ts'
import type { DumpPage, VerifyJob, VerifyRequest } from '../control/service.ts'
import { countInWords, durationInWords, sizeInWords } from '../control/words.ts'
import { clientCommand, clientOf, countArgument, type ClientOptions } from './client.ts'
import { untilEnded } from './jobs.ts'
import { printFacts, printJson, printLine, printTable } from './output.ts'

/** `vra journal` and `vra mirror`: the same two commands over different bytes. */
export function verifiableCommand(what: VerifyRequest['what'], description: string): Command {
  return new Command(what).description(description).addCommand(verifyCommand(what)).addCommand(dumpCommand(what))
}

function verifyCommand(what: VerifyRequest['what']): Command {
  return clientCommand('verify', 'read and check every byte; exit status 5 where damage is found')
    .option('--vpg <name>', 'only this group')
    .action(async (options: ClientOptions & { readonly vpg?: string }) => {
      const client = new ControlClient(options.url)
      const begun = await client.startVerify({ what, ...(options.vpg === undefined ? {} : { vpg: options.vpg }) })
      const job = await untilEnded(begun, {
        look: () => client.verify(begun.id),
        cancel: () => client.cancelVerify(begun.id),
        progressOf: ({ checkedSizeBytes, totalSizeBytes }) => ({
          doneBytes: checkedSizeBytes,
          totalBytes: totalSizeBytes,
        }),
      })
      if (options.json) printJson(job)
      else await printFindings(job)
      if (job.state === 'cancelled') throw new Failure('CLOSING', 'the verification was cancelled')
      const count = job.findings.length + job.moreFindings
      if (count > 0) throw new Failure('RECORD_CORRUPT', `damage in ${countInWords(count)} places`)
    })
}

async function printFindings(job: VerifyJob): Promise<void> {
  if (job.findings.length > 0)
    await printTable(
      ['VPG', 'PLACE', 'OFFSET', 'WHAT'],
      job.findings.map(({ vpg, place, offsetBytes, sentence }) => [
        vpg ?? '-',
        place,
        offsetBytes?.toString() ?? '-',
        sentence,
      ]),
    )
  const millis = job.endedAtMicros === undefined ? undefined : (job.endedAtMicros - job.startedAtMicros) / 1000
  printFacts([
    [
      'checked',
      `${countInWords(job.checkedCount)} ${job.what === 'journal' ? 'records' : 'objects'}, ${sizeInWords(job.checkedSizeBytes)}`,
    ],
    ['damaged', countInWords(job.findings.length + job.moreFindings)],
    ['took', millis === undefined ? undefined : durationInWords(millis)],
  ])
}

interface DumpOptions extends ClientOptions {
  readonly vpg?: string
  readonly limit: number
  readonly after?: string
}

function dumpCommand(what: VerifyRequest['what']): Command {
  return clientCommand('dump', 'what is where, one line each; with --json, one page')
    .option('--vpg <name>', 'only this group')
    .option('--limit <count>', 'lines at most', countArgument, pageSizeMax)
    .option('--after <place>', 'go on behind the page before (its "next")')
    .action(async (options: DumpOptions) => {
      const client = clientOf(options)
      const request = { what, ...(options.vpg === undefined ? {} : { vpg: options.vpg }) }
      let after = options.after
      let left = options.limit
      do {
        const limit = Math.min(left, pageSizeMax)
        const page = await client.dump({ ...request, limit, ...(after === undefined ? {} : { after }) })
        if (options.json) return printJson(page)
        for (const line of page.lines) printLine(lineInWords(line))
        left -= page.lines.length
        after = page.next
      } while (after !== undefined && left > 0)
    })
}

/** A mirror's line is words already, and begins with the object or fact that it is about. */
function lineInWords(line: DumpPage['lines'][number]): string {
  if (typeof line['line'] === 'string') return line['line']
  return Object.entries(line)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ')
}
