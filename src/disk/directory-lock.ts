import * as fs from 'node:fs'
import * as path from 'node:path'
import { Failure } from '../base/failure.ts'

const lockName = 'lock'

/** A process in a way that a later process with the same number is not. */
function identityOf(processId: number): string | undefined {
  try {
    const stat = fs.readFileSync(`/proc/${processId}/stat`, 'utf8')
    // The command's name, in parentheses, may hold blanks; the start time is the 20th field behind it.
    const startTime = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    return `${processId} ${startTime} ${boot}`
  } catch {
    return undefined
  }
}

/**
 * Keeps a directory to one process: writes a lock file that names it. A lock whose process is gone (killed, or before a
 * reboot) is taken over. Returns what gives the directory back. Fails BUSY while another process holds it.
 */
export function lockDirectory(directory: string): () => void {
  const file = path.join(directory, lockName)
  const own = identityOf(process.pid) ?? String(process.pid)
  for (let attempt = 0; attempt < 10; attempt++) {
    try {
      fs.writeFileSync(file, own, { flag: 'wx' })
      return () => fs.rmSync(file, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const held = readLock(file)
    const holder = Number(held.split(' ')[0])
    if (held !== '' && holder !== process.pid && identityOf(holder) === held)
      throw new Failure('BUSY', `${directory} is in use by process ${holder}: stop that one first`, {
        directory,
        holder,
      })
    removeStale(file, held)
  }
  throw new Failure('BUSY', `${directory} is being taken by another process at this moment`, { directory })
}

function readLock(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/** Two processes may find the same stale lock: moving it away first shows which of them has removed what. */
function removeStale(file: string, expected: string): void {
  const aside = `${file}.${process.pid}`
  try {
    fs.renameSync(file, aside)
  } catch {
    return
  }
  const moved = readLock(aside)
  if (moved !== expected && !fs.existsSync(file)) fs.renameSync(aside, file)
  else fs.rmSync(aside, { force: true })
}
