import t from 'tap'
import { takeCut, takeHold } from '../../src/cut/hold-state.ts'
import { CutHistory, soundRules, type CutRules } from '../support/cut-model.ts'
import { seededRandom } from '../support/wire-samples.ts'

// Random histories of holds and cuts; the invariants are at the head of cut-model.ts. SEED in the environment repeats one.

const firstSeed = Number(process.env['SEED'] ?? 1)
const historyCount = process.env['SEED'] === undefined ? 2_500 : 1
const stepCount = 400

function firstFault(rules: CutRules, faultsOf = (history: CutHistory) => history.faults()): string | undefined {
  for (let seed = firstSeed; seed < firstSeed + historyCount; seed++) {
    const history = new CutHistory(seededRandom(seed), rules)
    history.run(stepCount)
    const [fault] = faultsOf(history)
    if (fault !== undefined) return `SEED=${seed}: ${fault}`
  }
  return undefined
}

t.test(
  'no history of lost, late, repeated and reordered messages, crashes and rival coordinators tears a checkpoint',
  async t => {
    t.equal(firstFault(soundRules), undefined)
  },
)

t.test('checkpoints are made all the while, also through the faults', async t => {
  let [undisturbed, disturbed] = [0, 0]
  for (let seed = 1; seed <= 200; seed++) {
    const calm = new CutHistory(seededRandom(seed), soundRules, false)
    calm.run(stepCount)
    undisturbed += calm.checkpointCount
    const wild = new CutHistory(seededRandom(seed), soundRules)
    wild.run(stepCount)
    disturbed += wild.checkpointCount
  }
  t.ok(undisturbed > 200, `${undisturbed} without faults`)
  t.ok(disturbed > 100, `${disturbed} with faults`)
})

const broken: Readonly<Record<string, CutRules>> = {
  'markers without holding the numbering': { ...soundRules, holdsNumbering: false },
  'an answer before the number': { ...soundRules, answersBeforeNumber: true },
  'a cut without its hold': {
    ...soundRules,
    takeCut: (state, ...rest) => ({ state: takeCut(state, ...rest).state, refusal: undefined }),
  },
  'a counter held twice': {
    ...soundRules,
    takeHold: (state, request, ...rest) => {
      const forgetful = state.highestCounter >= request.counter && state.hold === undefined
      return takeHold(forgetful ? { ...state, highestCounter: 0 } : state, request, ...rest)
    },
  },
}

for (const [what, rules] of Object.entries(broken))
  t.test(`the checker finds the torn checkpoints of ${what}`, async t => {
    t.match(
      firstFault(rules, history => history.tornCheckpoints()),
      /lacks/,
    )
  })
