import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Failure } from '../base/failure.ts'

const program = fileURLToPath(new URL('../cli/vra.js', import.meta.url))
const stopMillisMax = 15_000

/** One `vra` process of the demonstration, its output in a file. */
export class Role {
  readonly name: string
  readonly #child: ChildProcess
  readonly #logFile: string

  private constructor(name: string, child: ChildProcess, logFile: string) {
    this.name = name
    this.#child = child
    this.#logFile = logFile
  }

  /** Starts `vra ARGUMENTS`, and returns when its output says `ready`. Fails PEER_LOST where it ends before. */
  static async start(name: string, argv: readonly string[], ready: RegExp, logFile: string): Promise<Role> {
    const child = spawn(process.execPath, [program, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] })
    const role = new Role(name, child, logFile)
    const log = createWriteStream(logFile)
    let seen = ''
    await new Promise<void>((resolve, reject) => {
      const look = (chunk: Buffer): void => {
        log.write(chunk)
        if (seen.length < 65536) seen += chunk.toString()
        if (ready.test(seen)) resolve()
      }
      child.stdout?.on('data', look)
      child.stderr?.on('data', look)
      child.once('exit', code => {
        log.end()
        reject(new Failure('PEER_LOST', `${name} ended with status ${code} before it was ready:\n${seen.slice(-2000)}`))
      })
    })
    return role
  }

  get logFile(): string {
    return this.#logFile
  }

  /** Asks it to stop, and makes it after a while. Returns when the process is gone. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const gone = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    const late = setTimeout(() => this.#child.kill('SIGKILL'), stopMillisMax)
    await gone
    clearTimeout(late)
  }
}
