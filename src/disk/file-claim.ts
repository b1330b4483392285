import { spawn } from 'node:child_process'
import { Failure } from '../base/failure.ts'

// One agent a raw file, kept by the kernel: flock(2) on the descriptor by which the file is served.
//
// The lock is the file's own, not its name's: links of both kinds, other mounts of the file system and containers all meet it. It belongs to
// the open file, so it lasts as long as this process has that open and ends with it, however that was. Node has no flock(2), and a native
// package for one call is one more thing to compile: flock(1), which every distribution and BusyBox have, is given the descriptor, locks
// the open file that both share, and ends.

const claimMillisMax = 10_000
/** Characters of what the program says. */
const wordsSizeMax = 1_000
/** Where the child finds the descriptor: after stdin, stdout and stderr. */
const childDescriptor = '3'

/** When it resolves the file is this descriptor's until it is closed. Fails BUSY where another holds it, CONFIG_INVALID where it cannot be claimed. */
export async function claimFile(descriptor: number, file: string, program = 'flock'): Promise<void> {
  const { status, signal, words, error } = await flock(descriptor, program)
  if (status === 0) return
  if (status === 1 && words === '')
    throw new Failure(
      'BUSY',
      `the volume's disk ${file} is in use: another agent serves the same file, under this name or another (links included): stop that one first`,
    )
  const why = error === undefined ? words || `flock ended with ${signal ?? status}` : whyNotRun(error)
  throw new Failure(
    'CONFIG_INVALID',
    `the volume's disk ${file} cannot be claimed, so another agent could write to it unseen: ${why}`,
    {},
    { cause: error },
  )
}

interface Outcome {
  readonly status?: number | null
  readonly signal?: NodeJS.Signals | null
  /** What it said, if anything. */
  readonly words: string
  /** Why it could not be run. */
  readonly error?: Error
}

function flock(descriptor: number, program: string): Promise<Outcome> {
  const child = spawn(program, ['-x', '-n', childDescriptor], {
    stdio: ['ignore', 'ignore', 'pipe', descriptor],
    timeout: claimMillisMax,
  })
  let words = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (words = `${words}${text}`.slice(0, wordsSizeMax)))
  return new Promise(resolve => {
    child.once('error', error => resolve({ words, error }))
    child.once('close', (status, signal) => resolve({ status, signal, words: words.trim() }))
  })
}

function whyNotRun(error: Error): string {
  const { code, message } = error as NodeJS.ErrnoException
  return code === 'ENOENT' ? 'the program flock (of util-linux, or BusyBox) is not in the PATH' : message
}
