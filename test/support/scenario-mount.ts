import { spawn, type ChildProcess } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { missing, runTool, type ToolResult } from './nbd-tools.ts'
import { pause, until } from './scenario-role.ts'

/** A reason to skip where no loop device can be mounted here. */
export function cannotMount(...programs: readonly string[]): string | false {
  if (process.getuid?.() !== 0) return 'mounting takes root'
  if (!fs.existsSync('/dev/loop-control')) return 'no /dev/loop-control'
  return missing('losetup', 'mkfs.ext4', 'mount', 'timeout', ...programs)
}

/** A program with a time limit: what waits for a disk that went away waits for ever. */
export function run(...command: readonly string[]): Promise<ToolResult> {
  return runTool('timeout', '-k', '1', '110', ...command)
}

export async function mustRun(...command: readonly string[]): Promise<string> {
  const { status, output } = await run(...command)
  if (status !== 0) throw new Error(`${command.join(' ')}: ${status}: ${output}`)
  return output.trim()
}

export function isMounted(at: string): boolean {
  return fs.readFileSync('/proc/mounts', 'utf8').includes(` ${at} `)
}

export async function unmount(at: string): Promise<void> {
  for (let tries = 0; tries < 50 && isMounted(at); tries++) {
    if ((await run('umount', at)).status !== 0) await pause(100)
  }
}

/** An NBD export as a file, and that as a block device: nbdfuse and a loop device. Everything is gone after close(). */
export class ServedDisk {
  readonly fuseFile: string
  readonly #fuse: ChildProcess
  readonly #fuseEnded: Promise<unknown>
  #loop: string | undefined

  private constructor(fuseFile: string, fuse: ChildProcess) {
    this.fuseFile = fuseFile
    this.#fuse = fuse
    this.#fuseEnded = new Promise(resolve => fuse.once('exit', resolve))
  }

  /** The directory is made. */
  static async open(directory: string, uri: string): Promise<ServedDisk> {
    fs.mkdirSync(directory)
    const fuseFile = path.join(directory, 'disk')
    fs.writeFileSync(fuseFile, '')
    const fuse = spawn('nbdfuse', [fuseFile, uri], { stdio: 'ignore' })
    const disk = new ServedDisk(fuseFile, fuse)
    await until('nbdfuse is mounted', () => isMounted(fuseFile) || fuse.exitCode !== null)
    return disk
  }

  /** A loop device over it, or undefined where none is to be had. */
  async attach(): Promise<string | undefined> {
    const attached = await run('losetup', '--find', '--show', '--direct-io=on', this.fuseFile)
    if (attached.status === 0) this.#loop = attached.output.trim()
    return this.#loop
  }

  /** File systems on it must be unmounted. */
  async close(): Promise<void> {
    if (this.#loop !== undefined) await run('losetup', '-d', this.#loop)
    await unmount(this.fuseFile)
    if (this.#fuse.exitCode === null) this.#fuse.kill()
    await this.#fuseEnded
  }
}
