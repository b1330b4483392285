import type { Command } from 'commander'
import type { VraStatus } from '../control/service.ts'
import {
  countInWords,
  durationInWords,
  provenInWords,
  recoveryInWords,
  sizeInWords,
  throttlingInWords,
} from '../control/words.ts'
import { clientCommand, clientOf, type ClientOptions } from './client.ts'
import { printExportTable } from './export.ts'
import { printFacts, printJson, printLine } from './output.ts'
import { printVpgTable, refusalInWords } from './vpg.ts'

export function statusCommand(): Command {
  return clientCommand('status', 'the daemon, what it protects, and what a person should know now').action(
    async (options: ClientOptions) => {
      const status = await clientOf(options).status()
      if (options.json) printJson(status)
      else await printStatus(status)
    },
  )
}

function failingInWords({ sinceMicros, sentence }: NonNullable<VraStatus['storeFailing']>): string {
  return `since ${new Date(sinceMicros / 1000).toISOString()}: ${sentence}`
}

async function printStatus(status: VraStatus): Promise<void> {
  const { ingest, journal } = status
  printFacts([
    ['daemon', `${status.software}, up ${durationInWords((status.nowMicros - status.startedAtMicros) / 1000)}`],
    ['state', status.ready ? 'ready' : 'recovering'],
    [
      'agents',
      `${status.listen.host}:${status.listen.port} (${status.listen.tls ? 'TLS' : 'plain TCP'}), ${ingest.sessionCount} ${ingest.sessionCount === 1 ? 'session' : 'sessions'}`,
    ],
    ['data', status.dataDirectory],
    ['store', status.store],
    ['store says', throttlingInWords(status.queues, status.nowMicros)],
    ['store fails', status.storeFailing === undefined ? undefined : failingInWords(status.storeFailing)],
    ['writes', `${countInWords(ingest.writesPerSecond)}/s, ${sizeInWords(ingest.bytesPerSecond)}/s`],
    ['ack latency', `p50 ${ingest.ackMillisP50.toFixed(1)} ms, p99 ${ingest.ackMillisP99.toFixed(1)} ms`],
    [
      'journal',
      `${sizeInWords(journal.logSizeBytes)} of ${sizeInWords(journal.logSizeBytesMax)}, ${sizeInWords(journal.diskFreeBytes)} free on its disk`,
    ],
    ['journal full', journal.full],
    ...status.refusals.map(refusal => ['refused', refusalInWords(refusal, status.nowMicros)] as const),
    ...status.vpgs.flatMap(({ name, drills }) => {
      const proven = provenInWords(drills, status.nowMicros)
      return proven === undefined ? [] : [['proven', `${name}: ${proven}`] as const]
    }),
    ...status.vpgs.flatMap(({ name, recoveries }) =>
      recoveries.map(recovery => ['recovery', `${name}: ${recoveryInWords(recovery, status.nowMicros)}`] as const),
    ),
    ...status.alerts.map(
      alert => [alert.severity, alert.vpg === undefined ? alert.sentence : `${alert.vpg} ${alert.sentence}`] as const,
    ),
  ])
  if (status.vpgs.length > 0) {
    printLine()
    await printVpgTable(status.vpgs, status.nowMicros)
  }
  if (status.exports.length > 0) {
    printLine()
    await printExportTable(status.exports)
  }
}
