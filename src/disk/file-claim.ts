import { spawnSync } from 'node:child_process'
import { Failure } from '../base/failure.ts'

// One agent a raw file, kept by the kernel: flock(2) on the descriptor by which the file is served.
//
// The lock is the file's own, not its name's: links of both kinds, other mounts of the file system and containers all meet it. It belongs to
// the open file, so it lasts as long as this process has that open and ends with it, however that was. Node has no flock(2), and a native
// package for one call is one more thing to compile: flock(1), which every distribution and BusyBox have, is given the descriptor, locks
// the open file that both share, and ends.

const claimMillisMax = 10_000
/** Where the child finds the descriptor: after stdin, stdout and stderr. */
const childDescriptor = '3'

/** On return the file is this descriptor's until it is closed. Fails BUSY where another holds it, CONFIG_INVALID where it cannot be claimed. */
export function claimFile(descriptor: number, file: string, program = 'flock'): void {
  const { status, stderr, error, signal } = spawnSync(program, ['-x', '-n', childDescriptor], {
    stdio: ['ignore', 'ignore', 'pipe', descriptor],
    timeout: claimMillisMax,
    encoding: 'utf8',
  })
  if (status === 0) return
  const words = (stderr ?? '').trim()
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

function whyNotRun(error: Error): string {
  const { code, message } = error as NodeJS.ErrnoException
  return code === 'ENOENT' ? 'the program flock (of util-linux, or BusyBox) is not in the PATH' : message
}
