#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { CommanderError, type Command } from 'commander'
import { Failure, failureToRecord } from '../base/failure.ts'
import { exitStatusOf } from './exit.ts'
import { say } from './output.ts'
import { buildProgram } from './program.ts'
import { roles } from './roles.ts'

const packageFile = new URL('../../../package.json', import.meta.url)
const { version } = JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }

// A reader that has seen enough (`vra ... | head`) is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1)
})

try {
  const program = buildProgram(version, roles)
  await program.parseAsync(refusable(program, process.argv))
} catch (error) {
  const exitStatus = exitStatusOf(error)
  // Commander has said its own.
  if (!(error instanceof CommanderError))
    say(isJsonAsked(process.argv) ? errorLine(error, exitStatus) : sentenceOf(error))
  process.exitCode = exitStatus
}

/** Of a command that is none, only its name: commander would take its --help for the program's, and succeed. */
function refusable({ commands }: Command, argv: readonly string[]): readonly string[] {
  const name = argv[2]
  const isCommand = name === undefined || name.startsWith('-') || commands.some(command => command.name() === name)
  return isCommand ? argv : argv.slice(0, 3)
}

/** What stands behind `--` is another program's. */
function isJsonAsked(argv: readonly string[]): boolean {
  const own = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv
  return own.includes('--json')
}

/** For programs: one line, the last of standard error. */
function errorLine(error: unknown, exitStatus: number): string {
  const known = error instanceof Failure ? failureToRecord(error) : { code: undefined, sentence: sentenceOf(error) }
  return JSON.stringify({ error: { ...known, exitStatus } })
}

/** One line for what was foreseen; where it happened for what was not. */
function sentenceOf(error: unknown): string {
  if (error instanceof Failure) return `vra: ${error.message}`
  return `vra: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
}
