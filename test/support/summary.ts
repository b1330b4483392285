import { readFileSync } from 'node:fs'

// Ends a test run with what failed, and then with one line that a machine can read: counts the assertions and skips of the TAP text
// given as a file. The text itself is many thousand lines long, and what reports it shows the end of it.

const diagnosisLinesMax = 40

interface Failure {
  readonly path: string
  readonly diagnosis: string[]
}

const counts = { passed: 0, failed: 0, skipped: 0 }
const failures: Failure[] = []
/** The subtests around the line at hand, by how far they are indented. */
const around = new Map<number, string>()
let open: { readonly failure: Failure; readonly indent: number } | undefined

for (const line of readFileSync(process.argv[2] ?? '/dev/stdin', 'utf8').split('\n')) {
  const indent = line.length - line.trimStart().length
  const subtest = /^\s*# Subtest: (.*)$/.exec(line)
  if (subtest !== null) {
    for (const deeper of around.keys()) if (deeper >= indent) around.delete(deeper)
    around.set(indent, subtest[1] ?? '')
    continue
  }
  const assertion = /^\s*(not )?ok \d+(.*)$/.exec(line)
  if (assertion === null) {
    if (open !== undefined && indent > open.indent && open.failure.diagnosis.length < diagnosisLinesMax)
      open.failure.diagnosis.push(line.slice(open.indent))
    else if (indent <= (open?.indent ?? 0)) open = undefined
    continue
  }
  open = undefined
  if (/# SKIP\b/i.test(assertion[2] ?? '')) counts.skipped++
  else if (assertion[1] === undefined) counts.passed++
  else {
    counts.failed++
    const outer = [...around].filter(([depth]) => depth < indent).sort(([a], [b]) => a - b)
    const failure = { path: [...outer.map(([, name]) => name), (assertion[2] ?? '').trim()].join(' > '), diagnosis: [] }
    failures.push(failure)
    open = { failure, indent }
  }
}

for (const { path, diagnosis } of failures) console.log(['', `FAILED ${path}`, ...diagnosis].join('\n'))
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0
