import { Option, type Command } from 'commander'
import type { CostFacts, FormSize, GapFacts, Period, VpgTimeline, VpgVersions } from '../control/service.ts'
import { agoInWords, countInWords, durationInWords, instantInWords, sizeInWords } from '../control/words.ts'
import { Failure } from '../base/failure.ts'
import { clientCommand, clientOf, type ClientOptions } from './client.ts'
import { onTerminal, printable, printJson, printLine, printTable } from './output.ts'

export function timelineCommand(): Command {
  return clientCommand('timeline', 'what can be recovered how densely, what that takes in the store, and what it costs')
    .argument('[vpg]', 'without one: all of them, in a line each')
    .addOption(
      new Option(
        '--versions',
        'list what a bucket with versions keeps of removed objects, too: minutes, where there is much',
      ),
    )
    .addHelpText(
      'after',
      '\nExamples:\n  vra timeline web\n  vra timeline web --versions\n  vra timeline\n  vra timeline web --json',
    )
    .action(async (vpg: string | undefined, options: ClientOptions & { readonly versions?: true }) => {
      const client = clientOf(options)
      if (vpg !== undefined) {
        const timeline = await client.timeline(vpg)
        const versions = options.versions === undefined ? undefined : await client.versions(vpg)
        if (options.json) printJson(versions === undefined ? timeline : { ...timeline, versions })
        else for (const line of [...drawTimeline(timeline), ...versionsOf(versions)]) printLine(coloured(line))
        return
      }
      if (options.versions) throw new Failure('REQUEST_INVALID', '--versions is of one VPG: name it')
      const timelines: VpgTimeline[] = []
      for (const { name } of await client.listVpgs()) timelines.push(await client.timeline(name))
      if (options.json) printJson(timelines)
      else
        await printTable(
          ['VPG', 'HISTORY', 'CHECKPOINTS', 'GAPS', 'OBJECTS', 'STORED', 'A MONTH'],
          timelines.map(rowOf),
        )
    })
}

function rowOf({ vpg, historyMillis, checkpointCount, gaps, moreGaps, forms, cost }: VpgTimeline): string[] {
  const sizeBytes = sum(forms, form => form.sizeBytes)
  const objectCount = sum(forms, form => form.objectCount)
  const counts = [checkpointCount, gaps.length + moreGaps, objectCount].map(countInWords)
  return [vpg, durationInWords(historyMillis), ...counts, sizeInWords(sizeBytes), money(cost.total, cost)]
}

/** At most 80 columns, but for what others have named. */
export function drawTimeline(timeline: VpgTimeline): string[] {
  return [
    ...headOf(timeline),
    ...densitiesOf(timeline),
    ...gapsOf(timeline),
    ...storeOf(timeline),
    ...writtenOf(timeline),
    ...costOf(timeline),
  ]
}

function headOf({ vpg, checkpointCount, withdrawnCount, historyMillis, newest, nowMicros }: VpgTimeline): string[] {
  if (newest === undefined) return [`${printable(vpg)}   no checkpoint yet`]
  const withdrawn = withdrawnCount === 0 ? '' : `, ${countInWords(withdrawnCount)} more withdrawn`
  const span = historyMillis === 0 ? '' : ` over ${durationInWords(historyMillis)}`
  return [
    `${printable(vpg)}   ${countInWords(checkpointCount)} checkpoints${span}${withdrawn}`,
    `${' '.repeat(vpg.length)}   the newest ${newest.checkpoint}, ${agoInWords(newest.timestampMicros, nowMicros)}`,
  ]
}

//    age           young ────────────────────────────────── old    checkpoints    kept
//    0 – 4 h       ████████████████████████████████████████        2,880          every one
const labelWidth = 12
const barWidth = 40
const countWidth = 9

function densitiesOf({ periods, historyMillis }: VpgTimeline): string[] {
  const arrow = `young ${'─'.repeat(barWidth - 10)} old`
  const lines = periods.map(period => {
    const { fromAgeMillis, toAgeMillis, everyMillis, checkpointCount } = period
    const label = `${fromAgeMillis === 0 ? '0' : durationInWords(fromAgeMillis)} – ${shortly(toAgeMillis)}`
    const kept = everyMillis === 0 ? 'every one' : `1 in ${durationInWords(everyMillis)}`
    return line(label, barOf(period, historyMillis), countInWords(checkpointCount), kept)
  })
  return [
    '',
    line('age', arrow, 'there', 'kept'),
    ...lines,
    line('', '█ as dense as kept  blank: a gap', '', '').trimEnd() + '  · older than all',
  ]
}

function line(label: string, bar: string, count: string, kept: string): string {
  return `  ${label.padEnd(labelWidth)} ${bar.padEnd(barWidth)} ${count.padStart(countWidth)}  ${kept}`.trimEnd()
}

function shortly(millis: number): string {
  const hourMillis = 3_600_000
  return durationInWords(millis > 48 * hourMillis ? Math.round(millis / (24 * hourMillis)) * 24 * hourMillis : millis)
}

const levels = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']

/** One character a column; a period of few parts has wide ones. */
function barOf({ coverage, fromAgeMillis, toAgeMillis }: Period, historyMillis: number): string {
  const cellMillis = (toAgeMillis - fromAgeMillis) / coverage.length
  return Array.from({ length: barWidth }, (_, column) => {
    const cell = Math.floor((column * coverage.length) / barWidth)
    const startMillis = fromAgeMillis + cell * cellMillis
    if (startMillis >= historyMillis) return '·'
    // The last one that the history reaches into is as full as it can be.
    const reached = Math.min(1, (historyMillis - startMillis) / cellMillis)
    const share = (coverage[cell] ?? 0) / reached
    return levels[share > 0.99 ? 8 : Math.ceil(share * 7)] ?? '█'
  }).join('')
}

const gapsDrawnMax = 8

function gapsOf({ gaps, moreGaps, newest }: VpgTimeline): string[] {
  if (newest === undefined) return []
  if (gaps.length === 0) return ['', '  No gaps: between any two neighbours lies no more than the retention leaves.']
  const more = gaps.length - gapsDrawnMax + moreGaps
  return [
    '',
    '  gaps, the newest first',
    ...gaps.slice(0, gapsDrawnMax).flatMap(gapOf),
    ...(more > 0 ? [`    and ${countInWords(more)} more (--json names up to ${gaps.length})`] : []),
  ]
}

function gapOf({ after, before, wallMillis, historyMillis, reason }: GapFacts): string[] {
  const instant = (micros: number): string => instantInWords(micros).slice(0, 19)
  const stood = wallMillis > 2 * historyMillis ? ' (nothing was protected for most of it)' : ''
  return [
    `    ${instant(after.timestampMicros)} → ${instant(before.timestampMicros)} UTC   ${durationInWords(Math.max(wallMillis, historyMillis))}`,
    `      ${after.checkpoint} → ${before.checkpoint}: ${printable(reason)}${stood}`,
  ]
}

const formWords: Readonly<Record<FormSize['form'], string>> = {
  segments: 'segments',
  deltas: 'deltas',
  base: 'base',
  superseded: 'former base',
  manifests: 'manifests',
}

function storeOf({ forms, garbageCount }: VpgTimeline): string[] {
  const allSizeBytes = sum(forms, form => form.sizeBytes)
  const row = (name: string, of: readonly FormSize[]): string => {
    const sizeBytes = sum(of, form => form.sizeBytes)
    const indexSizeBytes = sum(of, form => form.indexSizeBytes)
    const objects = countInWords(sum(of, form => form.objectCount)).padStart(11)
    const sizes = [sizeBytes, indexSizeBytes].map(size => sizeInWords(size).padStart(12)).join('')
    return `  ${name.padEnd(labelWidth)} ${objects}${sizes}   ${shareBar(sizeBytes / Math.max(1, allSizeBytes))}`.trimEnd()
  }
  const garbage =
    garbageCount === 0
      ? []
      : [`  and ${countInWords(garbageCount)} that nothing needs, deleted when their grace period is over`]
  return [
    '',
    `  ${'in the store'.padEnd(labelWidth)} ${'objects'.padStart(11)}${'bytes'.padStart(12)}${'of it index'.padStart(12)}`,
    ...forms.map(form => row(formWords[form.form], [form])),
    row('in all', forms),
    ...garbage,
  ]
}

function versionsOf(versions: VpgVersions | undefined): string[] {
  if (versions === undefined) return []
  const { versioning, expire, forms, markerCount, isWhole, costPerMonth, currency } = versions
  if (versioning === 'none') return ['', '  The store keeps no versions: what is removed is gone.']
  if (versioning === 'unknown')
    return [
      '',
      '  Whether the bucket keeps versions cannot be told: to be asked for it,',
      '  the role needs s3:GetBucketVersioning and s3:ListBucketVersions.',
    ]
  const row = (name: string, count: number, sizeBytes: number): string =>
    `  ${name.padEnd(labelWidth)} ${countInWords(count).padStart(11)}${sizeInWords(sizeBytes).padStart(12)}`
  const all = [sum(forms, ({ count }) => count), sum(forms, ({ sizeBytes }) => sizeBytes)] as const
  const atLeast = isWhole ? '' : ', at least'
  return [
    '',
    `  ${'removed, kept'.padEnd(labelWidth)} ${'versions'.padStart(10)}${'bytes'.padStart(12)}`,
    ...forms.map(({ form, count, sizeBytes }) => row(form, count, sizeBytes)),
    row('in all', ...all),
    `  ${costPerMonth.toFixed(2)} ${currency} a month${atLeast}; and ${countInWords(markerCount)} markers of removals`,
    expire
      ? '  A lifecycle rule of the bucket removes them.'
      : '  No lifecycle rule removes them: see `vra store check`.',
  ]
}

const shareWidth = 24
const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']

function shareBar(share: number): string {
  const parts = Math.round(share * shareWidth * 8)
  return '█'.repeat(Math.floor(parts / 8)) + (eighths[parts % 8] ?? '')
}

function writtenOf({ requests, writeAmplification, putsPerGiB, nowMicros }: VpgTimeline): string[] {
  if (writeAmplification === undefined || putsPerGiB === undefined) return []
  const { puts, rawSizeBytes, sinceMicros } = requests
  const per = (form: keyof typeof puts): string => {
    const { count, sizeBytes } = puts[form]
    const guest = rawSizeBytes / 1024 ** 3
    return `  ${form.padEnd(labelWidth)} ${countInWords(count).padStart(11)}${sizeInWords(sizeBytes).padStart(12)}${(sizeBytes / rawSizeBytes).toFixed(2).padStart(12)}${(count / guest).toFixed(1).padStart(12)}`
  }
  const elapsed = durationInWords((nowMicros - sinceMicros) / 1000)
  return [
    '',
    `  ${'written'.padEnd(labelWidth)} ${'puts'.padStart(11)}${'bytes'.padStart(12)}${'per byte'.padStart(12)}${'puts/GiB'.padStart(12)}`,
    ...(['segments', 'deltas', 'base', 'manifests'] as const).map(per),
    `  ${'in all'.padEnd(labelWidth)} ${' '.repeat(23)}${writeAmplification.toFixed(2).padStart(12)}${putsPerGiB.toFixed(1).padStart(12)}`,
    `  for ${sizeInWords(rawSizeBytes)} of guest data in ${elapsed}`,
  ]
}

/** Before that what a start asks of the store outweighs what a month will. */
const tellingMillisMin = 3_600_000

function costOf({ cost, forms, requests, nowMicros }: VpgTimeline): string[] {
  const { prices } = cost
  const elapsedMillis = (nowMicros - requests.sinceMicros) / 1000
  const perMonth = (count: number): string => countInWords((count * 730 * 3_600_000) / Math.max(1, elapsedMillis))
  const thousand = (price: number): string => `× ${price} ${prices.currency}/1,000`
  const row = (name: string, what: string, price: string, value: number): string =>
    `  ${name.padEnd(labelWidth)} ${what.padStart(11)}  ${price.padEnd(22)}${money(value, cost).padStart(14)}`.trimEnd()
  const putCount = sum(Object.values(requests.puts), ({ count }) => count)
  const source = prices.isDefault
    ? ['  These are the prices of S3 Standard in us-east-1, for want of others:', '  `prices` in the configuration.']
    : ['  Prices as configured.']
  return [
    '',
    '  a month',
    row(
      'storage',
      sizeInWords(sum(forms, form => form.sizeBytes)),
      `× ${prices.storagePerGiBMonth} ${prices.currency}/GiB`,
      cost.storage,
    ),
    row('puts', perMonth(putCount), thousand(prices.putsPerThousand), cost.puts),
    row('lists', perMonth(requests.listCount), thousand(prices.putsPerThousand), cost.lists),
    row('gets', perMonth(requests.gets.count), thousand(prices.getsPerThousand), cost.gets),
    row('in all', '', '', cost.total),
    ...source,
    `  Requests as counted in the last ${durationInWords(elapsedMillis)}${elapsedMillis < tellingMillisMin ? ', which is too short to tell a month by' : ''}; without exports.`,
  ]
}

/** Bars and what is not there, for eyes; what is piped stays plain. */
function coloured(line: string): string {
  if (!onTerminal() || process.env['NO_COLOR'] !== undefined) return line
  return line.replaceAll(/[▁-▏]+/g, '\x1b[32m$&\x1b[39m').replaceAll(/·{2,}/g, '\x1b[2m$&\x1b[22m')
}

function money(amount: number, { prices }: CostFacts): string {
  return `${amount.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })} ${prices.currency}`
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0)
}
