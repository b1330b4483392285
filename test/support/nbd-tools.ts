import { execFile, execFileSync } from 'node:child_process'
import type { NbdListen } from '../../src/nbd/nbd.ts'

/** A reason to skip where the program is not installed, else false: tap's `skip` option. */
export function missing(...programs: readonly string[]): string | false {
  for (const program of programs) {
    try {
      execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' })
    } catch {
      return `${program} is not installed`
    }
  }
  return false
}

/** A reason to skip where fio was built without its nbd engine. */
export function fioLacksNbd(): string | false {
  return execFileSync('fio', ['--enghelp'], { encoding: 'utf8' }).includes('nbd') ? false : 'fio has no nbd engine'
}

export interface ToolResult {
  readonly status: number
  readonly output: string
}

/** Runs a program to its end, at most two minutes; never throws for its exit status. */
export function runTool(program: string, ...args: readonly string[]): Promise<ToolResult> {
  return new Promise(resolve =>
    execFile(program, args, { timeout: 120_000, maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) =>
      resolve({
        status: error === null ? 0 : typeof error.code === 'number' ? error.code : 1,
        output: stdout + stderr,
      }),
    ),
  )
}

export function nbdUri(address: NbdListen, exportName: string): string {
  return 'socketPath' in address
    ? `nbd+unix:///${exportName}?socket=${address.socketPath}`
    : `nbd://${address.host}:${address.port}/${exportName}`
}

/** Waits until the condition holds, looking again every few milliseconds; fails after a minute. */
export async function eventually(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
