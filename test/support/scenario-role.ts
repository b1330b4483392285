import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('../../src/cli/vra.js', import.meta.url))
const waitMillisMax = 120_000
const pollMillis = 20

/** Looks again and again until the condition gives something; fails after two minutes, saying what never happened. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  millisMax = waitMillisMax,
): Promise<T> {
  const deadline = performance.now() + millisMax
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`)
    await pause(pollMillis)
  }
}

/** For load and for moments of a kill; never to wait for something. */
export function pause(millis: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, millis))
}

let nextPort = 20_000 + ((process.pid * 97) % 11_000)

/** A port that nobody uses, below those that the kernel gives to outgoing connections: it stays free across restarts. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = nextPort++
    const server = createServer()
    const free = await new Promise<boolean>(resolve => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!free) continue
    await new Promise(resolve => server.close(resolve))
    return port
  }
}

/** A `vra` process that stays: a role, to be stopped or killed and started again. Its output goes to a file. */
export class RoleProcess {
  readonly #child: ChildProcess
  readonly #logFile: string
  readonly #startBytes: number
  #status: number | string | undefined

  private constructor(child: ChildProcess, logFile: string, startBytes: number) {
    this.#child = child
    this.#logFile = logFile
    this.#startBytes = startBytes
    child.once('exit', (status, signal) => (this.#status = status ?? signal ?? 'gone'))
  }

  /** Returns at once; see untilSaid(). `before` stands before the command, which it replaces itself with. */
  static spawn(
    argv: readonly string[],
    logFile: string,
    environment: NodeJS.ProcessEnv = {},
    before: readonly string[] = [],
  ): RoleProcess {
    const log = fs.openSync(logFile, 'a')
    const startBytes = fs.fstatSync(log).size
    const [command = '', ...rest] = [...before, process.execPath, program, ...argv]
    const child = spawn(command, rest, {
      stdio: ['ignore', log, log],
      env: { ...process.env, ...environment },
    })
    fs.closeSync(log)
    return new RoleProcess(child, logFile, startBytes)
  }

  get isRunning(): boolean {
    return this.#status === undefined
  }

  /** What this process has said, and none before it in the same file. */
  get output(): string {
    return fs.readFileSync(this.#logFile).subarray(this.#startBytes).toString()
  }

  /** Waits until the output matches. Fails when the process ends before. */
  async untilSaid(words: RegExp): Promise<RegExpExecArray> {
    return until(`${words} in ${this.#logFile}`, () => {
      const ended = !this.isRunning
      const match = words.exec(this.output)
      if (match !== null) return match
      if (ended) throw new Error(`ended with ${this.#status} before ${words}:\n${this.output.slice(-3000)}`)
      return undefined
    })
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** SIGKILL: no code of the process runs any more. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** SIGTERM; the exit status, or the signal that it died of. */
  async stop(): Promise<number | string> {
    return this.#end('SIGTERM')
  }

  /** The exit status of a process that ends by itself. */
  async untilEnded(): Promise<number | string> {
    return until('the end of the process', () => this.#status)
  }

  async #end(signal: NodeJS.Signals): Promise<number | string> {
    if (this.#status === undefined) {
      const gone = once(this.#child, 'exit')
      this.#child.kill(signal)
      const late = setTimeout(() => this.#child.kill('SIGKILL'), waitMillisMax)
      await gone
      clearTimeout(late)
    }
    return this.#status ?? 'gone'
  }
}

export interface CommandResult {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs `vra ARGUMENTS` to its end. */
export function runVra(argv: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<CommandResult> {
  return new Promise(resolve =>
    execFile(
      process.execPath,
      [program, ...argv],
      { timeout: waitMillisMax, maxBuffer: 64 * 1024 * 1024, env: { ...process.env, ...environment } },
      (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
        resolve({ status, stdout, stderr })
      },
    ),
  )
}
