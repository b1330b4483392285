import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { promisify } from 'node:util'
import { MiB } from '../base/units.ts'

// A real ext4 for the demonstration, made by e2fsprogs in a file, and a check of one. Nothing is mounted, so it needs no rights.

const run = promisify(execFile)
/** e2fsprogs lives where ordinary users' PATH does not look. */
const environment = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` }

const fileSystemBlockSizeBytes = 4096
const databaseSizeBytes = 96 * MiB

/** A half-open range of a disk that the load may overwrite without touching the file system's own structures. */
export interface DiskRange {
  readonly startBytes: number
  readonly endBytes: number
}

export interface DemoFileSystem {
  /** The image to copy to the protected disk. */
  readonly image: string
  /** Where on the disk the data of its big file lies. */
  readonly fileRanges: readonly DiskRange[]
}

/** True where the ext4 tools are installed. */
export async function haveExt4Tools(): Promise<boolean> {
  return run('mke2fs', ['-V'], { env: environment }).then(
    () => true,
    () => false,
  )
}

/** Makes an ext4 of that size with some hundred small files and one large one, in `directory`. */
export async function makeExt4(directory: string, sizeBytes: number): Promise<DemoFileSystem> {
  const content = path.join(directory, 'content')
  fs.mkdirSync(path.join(content, 'etc'), { recursive: true })
  for (let number = 0; number < 300; number++) {
    fs.writeFileSync(
      path.join(content, 'etc', `service-${number}.conf`),
      `port = ${8000 + number}\n`.repeat(1 + (number % 200)),
    )
  }
  fs.writeFileSync(path.join(content, 'database'), randomBytes(databaseSizeBytes))
  const image = path.join(directory, 'filesystem.img')
  fs.closeSync(fs.openSync(image, 'wx'))
  fs.truncateSync(image, sizeBytes)
  const size = String(fileSystemBlockSizeBytes)
  await run('mke2fs', ['-q', '-t', 'ext4', '-b', size, '-d', content, '-L', 'demo', image], { env: environment })
  const { stdout } = await run('debugfs', ['-R', 'dump_extents /database', image], { env: environment })
  return { image, fileRanges: parseExtents(stdout) }
}

/** What `e2fsck -fn` says of the image: clean, or its output. */
export async function checkExt4(image: string): Promise<'clean' | string> {
  try {
    await run('e2fsck', ['-f', '-n', image], { env: environment })
    return 'clean'
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string }
    return `${stdout ?? ''}${stderr ?? ''}`.trim()
  }
}

/** The leaves of debugfs' dump_extents: "depth/ depth  i/ n  first - last  physicalFirst - physicalLast  count". */
function parseExtents(text: string): DiskRange[] {
  const leaf = /^\s*(\d+)\/\s*(\d+)\s+\d+\/\s*\d+\s+\d+\s*-\s*\d+\s+(\d+)\s*-\s*(\d+)\s+\d+/gm
  return [...text.matchAll(leaf)]
    .filter(match => match[1] === match[2])
    .map(match => ({
      startBytes: Number(match[3]) * fileSystemBlockSizeBytes,
      endBytes: (Number(match[4]) + 1) * fileSystemBlockSizeBytes,
    }))
}
