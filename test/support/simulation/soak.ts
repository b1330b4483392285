import { parseArgs } from 'node:util'
import { BrokenHistory, runHistory } from './history.ts'

// `npm run soak -- --seeds N --from S`: so many histories, one after the other; --trace tells everything that happens in the first.

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '10000' },
    from: { type: 'string', default: '1' },
    trace: { type: 'boolean', default: false },
  },
})
const from = Number(values.from)
const count = values.trace ? 1 : Number(values.seeds)
const totals = {
  eventCount: 0,
  simulatedMillis: 0,
  recordCount: 0,
  checkpointCount: 0,
  imageCount: 0,
  answeredCount: 0,
  syncCount: 0,
}
const counts = new Map<string, number>()
let brokenCount = 0
const startMillis = performance.now()
for (let seed = from; seed < from + count; seed++) {
  try {
    const outcome = await runHistory({ seed, keepsTrace: values.trace })
    for (const [what, times] of outcome.counts) counts.set(what, (counts.get(what) ?? 0) + times)
    totals.eventCount += outcome.eventCount
    totals.simulatedMillis += outcome.simulatedMillis
    totals.recordCount += outcome.recordCount
    totals.checkpointCount += outcome.checkpointCount
    totals.imageCount += outcome.imageCount
    totals.answeredCount += outcome.answeredCount
    totals.syncCount += outcome.syncCount
    for (const line of outcome.lines) console.log(line)
  } catch (error) {
    if (!(error instanceof BrokenHistory)) throw error
    brokenCount++
    for (const line of error.lines) console.log(line)
    console.log(error.message)
    process.exitCode = 1
  }
}
const seconds = (performance.now() - startMillis) / 1000
const cpuSeconds = process.cpuUsage().user / 1e6 + process.cpuUsage().system / 1e6
console.log(`${count} histories in ${seconds.toFixed(1)} s (${cpuSeconds.toFixed(1)} s of CPU), ${brokenCount} broken`)
console.log(
  `${totals.eventCount} events, ${Math.round(totals.simulatedMillis / 3_600_000)} simulated hours, ${totals.answeredCount} requests of guests, ` +
    `${totals.recordCount} records and ${totals.checkpointCount} checkpoints compared, ${totals.imageCount} of them read as images; ${totals.syncCount} synchronisations`,
)
console.log('of these in 1,000 histories:')
for (const [what, times] of [...counts].sort(([a], [b]) => (a < b ? -1 : 1)))
  console.log(`${((times * 1000) / count).toFixed(0).padStart(8)}  ${what}`)
