import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../../src/cli/vra.js', import.meta.url))

export interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Started {
  readonly interrupt: () => void
  readonly ended: Promise<Ended>
}

/** Runs `vra ARGUMENTS` as a child whose output is no terminal. */
export function runCli(
  argv: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  cwd?: string,
): Promise<Ended> {
  return startCli(argv, environment, cwd).ended
}

/** The same for a command that goes on until Ctrl-C. */
export function startCli(
  argv: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  cwd?: string,
): Started {
  const child = spawn(process.execPath, [program, ...argv], {
    env: { PATH: process.env['PATH'], ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(cwd === undefined ? {} : { cwd }),
  })
  const ended = new Promise<Ended>((resolve, reject) => {
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    child.once('error', reject)
    child.once('close', status => resolve({ status, stdout, stderr }))
  })
  return { interrupt: () => void child.kill('SIGINT'), ended }
}
