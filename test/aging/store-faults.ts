import t from 'tap'
import { faultKinds, runWithFault } from '../support/aging-faults.ts'
import { randomFrom } from '../support/segment-records.ts'

// A history goes through sealing, folding, rewriting, thinning, merging, garbage and control records over the SDK, and requests of it meet
// faults. Invariants, whatever the request and the fault:
//
//   - the same checkpoints are retained as without it, and each shows exactly the writes before it
//   - nothing is told damaged, fenced or lost, and no object is left that neither manifest nor garbage names
//   - nothing is overwritten: the bucket refuses any other create
//
// Here each kind of fault meets some requests; `npm run soak:store` has every request meet every fault.

const seed = 1
const callsPerKind = 1

t.test('whatever request of aging meets whatever fault, it is made again and ends in the same', async t => {
  const calm = await runWithFault(seed)
  t.strictSame(calm.faults, [], 'without any fault')
  for (const name of ['segmentCommitted', 'folded', 'regionRewritten', 'checkpointsThinned', 'deltasMerged'])
    t.ok((calm.told[name] ?? 0) > 0, `the history came to ${name}`)
  t.ok((calm.told['garbageRemoved'] ?? 0) > 1, 'and to garbage')
  const random = randomFrom(20261126)
  for (const [kind, faultOf] of Object.entries(faultKinds)) {
    const calls = calm.operations.flatMap((operation, call) => (faultOf(operation) === undefined ? [] : [call]))
    for (let count = 0; count < callsPerKind; count++) {
      const call = calls[Math.floor(random() * calls.length)] ?? 0
      const run = await runWithFault(seed, { kind, call })
      const where = `${kind} at request ${call}, ${calm.operations[call]}`
      if (run.faults.length > 0) t.fail(`${where}: ${run.faults.join('; ')}`)
      t.strictSame(run.retained, calm.retained, where)
    }
  }
})

t.test('and so it does when every sixth request meets one', async t => {
  const calm = await runWithFault(seed)
  for (const storm of [1, 2, 3]) {
    const run = await runWithFault(seed, { storm })
    t.strictSame(run.faults, [], `storm ${storm}`)
    t.strictSame(run.retained, calm.retained, `storm ${storm}`)
    t.ok(run.faultCount > calm.operations.length / 10, `storm ${storm}: ${run.faultCount} faults`)
  }
})
