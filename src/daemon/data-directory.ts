import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { Failure } from '../base/failure.ts'
import type { Closable } from '../base/shutdown.ts'
import { bootId, readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'
import { lockDirectory, makeHeldDirectory } from '../disk/directory-lock.ts'

/** The VRA's own directory, held by this process: journal, index, scratch, and who this appliance is. */
export class DataDirectory implements Closable {
  readonly directory: string
  /** Made once, at the first start; VPGs in the object store name it as their owner. */
  readonly applianceId: string
  readonly #lock: Closable

  private constructor(directory: string, applianceId: string, lock: Closable) {
    this.directory = directory
    this.applianceId = applianceId
    this.#lock = lock
  }

  /** Makes the directory where there is none. Fails BUSY while another process holds it, CONFIG_INVALID where it is not ours, or cannot be. */
  static async open(disk: Disk, directory: string): Promise<DataDirectory> {
    makeHeldDirectory(disk, directory)
    disk.syncDirectory(path.dirname(directory))
    const lock = await lockDirectory(directory)
    try {
      return new DataDirectory(directory, readApplianceId(disk, directory), lock)
    } catch (error) {
      await lock.close()
      throw error
    }
  }

  get scratchDirectory(): string {
    return path.join(this.directory, 'scratch')
  }

  /** What is remembered of VPGs for a start without the store. */
  get memoDirectory(): string {
    return path.join(this.directory, 'vpgs')
  }

  /** Which tenure of the appliance a process of this directory held last. */
  get tenureFile(): string {
    return path.join(this.directory, 'tenure.json')
  }

  /** The same for who opens this very directory in this boot of the machine, after this process has ended; another one for whoever opens a copy of it. */
  get place(): string {
    const { dev, ino } = fs.statSync(this.directory, { bigint: true })
    return `${bootId()}:${dev}:${ino}`
  }

  /** How far the verification in the background is. */
  get scrubFile(): string {
    return path.join(this.directory, 'scrub.json')
  }

  /** What is written to live disks whose recoveries name no directory. */
  get liveDirectory(): string {
    return path.join(this.directory, 'live')
  }

  /** Scratches of removed recoveries that were not to be found. */
  get scratchOrphansFile(): string {
    return path.join(this.directory, 'scratch-orphans.json')
  }

  /** Blocks that were read from a bucket; may be deleted at any time. */
  get cacheFile(): string {
    return path.join(this.directory, 'cache', 'blocks')
  }

  get indexFile(): string {
    return path.join(this.directory, 'journal-index.sqlite')
  }

  async close(): Promise<void> {
    await this.#lock.close()
  }
}

function readApplianceId(disk: Disk, directory: string): string {
  const file = path.join(directory, 'appliance-id')
  const held = readWholeFile(disk, file)
  if (held === undefined) {
    const made = randomBytes(16).toString('hex')
    replaceFile(disk, file, Buffer.from(`${made}\n`))
    return made
  }
  const text = Buffer.from(held).toString().trim()
  if (!/^[0-9a-f]{32}$/.test(text))
    throw new Failure(
      'CONFIG_INVALID',
      `${file} does not hold an appliance id: is ${directory} a data directory of the VRA?`,
    )
  return text
}
