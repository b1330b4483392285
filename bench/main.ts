import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import { parseArgs } from 'node:util'
import type { Aim, Bench, BenchResult, LatencyCurve, ResultTable } from './bench.ts'
import { aging, agingEncrypted, agingToS3 } from './aging.ts'
import { image } from './image.ts'
import { holds } from './holds.ts'
import { ingest } from './ingest.ts'
import { describeMachine, measureSyncRate } from './machine.ts'
import { plotLatency } from './plot.ts'
import { recover } from './recover.ts'
import { restart } from './restart.ts'
import { scale } from './scale.ts'
import { sync } from './sync.ts'
import { formatAims, formatTable } from './report.ts'

// npm run bench -- [NAME...] [--quick | --full] [--rows TEXT] [--directory DIR]
//
// Measures the built program as it is deployed: the daemon in a process of its own on a fresh data directory, senders in others.
// Nothing is asserted: what is aimed at stands beside what was measured. Results go to bench/results as JSON and SVG.
// --rows: of the ingest bench, those whose names hold the text, "100 streams, 4 KiB" for one.

const benches: readonly Bench[] = [
  ingest,
  restart,
  image,
  aging,
  agingToS3,
  agingEncrypted,
  holds,
  sync,
  recover,
  scale,
]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    full: { type: 'boolean', default: false },
    rows: { type: 'string', default: '' },
    directory: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) {
  console.log('npm run bench -- [NAME...] [--quick | --full] [--rows TEXT] [--directory DIR ON THE DISK TO MEASURE]\n')
  for (const { name, describes } of benches) console.log(`  ${name.padEnd(10)} ${describes}`)
  process.exit(0)
}

const chosen = positionals.length === 0 ? benches : benches.filter(({ name }) => positionals.includes(name))
const unknown = positionals.filter(name => !benches.some(bench => bench.name === name))
if (unknown.length > 0) {
  console.error(`no such bench: ${unknown.join(', ')}; there are ${benches.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}

// /tmp is memory on many machines, and what is measured here is a disk.
const parent = values.directory ?? (process.env['TMPDIR'] === undefined ? '/var/tmp' : os.tmpdir())
const directory = mkdtempSync(path.join(parent, 'vra-bench-'))
process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1))

const machine = describeMachine(directory)
console.log(
  `${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Linux ${machine.kernel}, Node ${machine.node}`,
)
console.log(`${machine.fileSystem} at ${directory}; load average at the start ${machine.loadAverage.toFixed(1)}\n`)
const disk = measureSyncRate(directory, values.quick ? 300 : 1_000)
console.log(formatTable(disk))

const results: Record<string, BenchResult | { readonly failed: string }> = {}
const tables: ResultTable[] = [disk]
const aims: Aim[] = []
const curves: LatencyCurve[] = []
for (const bench of chosen) {
  const say = (line: string): void => console.error(`  ${bench.name}: ${line}`)
  const own = path.join(directory, bench.name)
  mkdirSync(own)
  try {
    const result = await bench.run({ directory: own, quick: values.quick, full: values.full, rows: values.rows, say })
    results[bench.name] = result
    tables.push(...result.tables)
    aims.push(...result.aims)
    curves.push(...result.curves)
    for (const table of result.tables) console.log(formatTable(table))
  } catch (error) {
    // One bench that cannot run takes nothing from the others.
    const failed = error instanceof Error ? (error.stack ?? error.message) : String(error)
    results[bench.name] = { failed }
    console.log(`${bench.name} failed: ${failed}\n`)
    process.exitCode = 1
  }
  rmSync(own, { recursive: true, force: true })
}
if (aims.length > 0) console.log(formatAims(aims))

const output = path.resolve(import.meta.dirname, '../../bench/results')
const name = new Date().toISOString().slice(0, 19).replaceAll(':', '-')
mkdirSync(output, { recursive: true })
writeFileSync(
  path.join(output, `${name}.json`),
  JSON.stringify({ machine, quick: values.quick, disk, results }, undefined, 2),
)
if (curves.length > 0) writeFileSync(path.join(output, `${name}.svg`), plotLatency(curves))
console.log(`results: ${path.join(output, name)}.json${curves.length > 0 ? ' and .svg' : ''}`)
