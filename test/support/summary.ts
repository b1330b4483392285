import { readFileSync } from 'node:fs'

// Ends a test run with one line that a machine can read: counts the assertions and skips of the TAP text given as a file.

const text = readFileSync(process.argv[2] ?? '/dev/stdin', 'utf8')
const counts = { passed: 0, failed: 0, skipped: 0 }
for (const line of text.split('\n')) {
  const match = /^\s*(not )?ok \d+(.*)$/.exec(line)
  if (match === null) continue
  if (/# SKIP\b/i.test(match[2] ?? '')) counts.skipped++
  else if (match[1] !== undefined) counts.failed++
  else counts.passed++
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0
