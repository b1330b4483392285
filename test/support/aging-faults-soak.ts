import { parseArgs } from 'node:util'
import { faultKinds, runWithFault } from './aging-faults.ts'

// `npm run soak:store -- --seed N --kind NAME --step N --timeout-millis N`: every request of the history with every fault, or with one of them.

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    kind: { type: 'string' },
    from: { type: 'string', default: '0' },
    step: { type: 'string', default: '1' },
    'timeout-millis': { type: 'string' },
  },
})
const seed = Number(values.seed)
const startMillis = performance.now()
/** Undefined: as the kind of fault wants. */
const requestTimeoutMillis = values['timeout-millis'] === undefined ? undefined : Number(values['timeout-millis'])
const calm = await runWithFault(seed, undefined, requestTimeoutMillis)
console.log(`seed ${seed}: ${calm.operations.length} requests, ${JSON.stringify(calm.told)}`)
for (const fault of calm.faults) console.log(`without any fault: ${fault}`)
const wanted = JSON.stringify(calm.retained)
let runCount = 0
let brokenCount = 0
for (const [kind, faultOf] of Object.entries(faultKinds)) {
  if (values.kind !== undefined && values.kind !== kind) continue
  for (let call = Number(values.from); call < calm.operations.length; call += Number(values.step)) {
    const operation = calm.operations[call]
    if (operation === undefined || faultOf(operation) === undefined) continue
    runCount++
    const run = await runWithFault(seed, { kind, call }, requestTimeoutMillis)
    const faults = [...run.faults]
    if (JSON.stringify(run.retained) !== wanted) faults.push(`it retains ${run.retained.join(', ')}`)
    if (faults.length === 0) continue
    brokenCount++
    process.exitCode = 1
    for (const fault of faults) console.log(`${kind} at call ${call} (${operation}): ${fault}`)
  }
}
const seconds = (performance.now() - startMillis) / 1000
console.log(`${runCount} runs in ${seconds.toFixed(1)} s, ${brokenCount} broken`)
