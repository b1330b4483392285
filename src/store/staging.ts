import { createHash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import { threadId } from 'node:worker_threads'
import type { FileCalls } from '../disk/disk.ts'

// An object is made under a name in the staging directory that says whose it is, so that what a killed process leaves
// behind can be told from what another thread, process or host is making at this moment:
//
//   <host>.<boot>.<process id>-<start>.<thread>-<random>

/** Of whoever made it, known or not: nobody takes a day to write one object. */
const ageMillisMax = 24 * 3_600_000

interface Owner {
  readonly host: string
  readonly boot: string
  readonly process: string
}

const self: Owner = {
  host: createHash('sha256').update(os.hostname()).digest('hex').slice(0, 8),
  boot: readOr('/proc/sys/kernel/random/boot_id', 'unknown').slice(0, 8),
  process: `${process.pid}-${startOf(readOr(`/proc/${process.pid}/stat`, ''))}`,
}

export function stagedFileName(): string {
  return `${self.host}.${self.boot}.${self.process}.${threadId}-${randomUUID().slice(0, 13)}`
}

/**
 * Removes staged files whose process of this host is no more, and any that is a day old. Where it errs, the create that
 * owned the file fails and is tried again: an object is never harmed, its bytes have a name of their own by then.
 */
export async function removeLeftovers(calls: FileCalls, directory: string): Promise<void> {
  for (const name of await calls.readdir(directory)) {
    const file = path.join(directory, name)
    if ((await ownerIsGone(calls, name)) || (await isOld(calls, file))) await calls.unlink(file).catch(() => undefined)
  }
}

async function ownerIsGone(calls: FileCalls, name: string): Promise<boolean> {
  const [host, boot, processName] = name.split('.')
  if (host !== self.host || processName === undefined) return false
  if (boot !== self.boot) return true
  const [processId, start] = processName.split('-')
  const stat = await calls.readFile(`/proc/${processId}/stat`, 'utf8').catch(() => '')
  return startOf(stat) !== start
}

async function isOld(calls: FileCalls, file: string): Promise<boolean> {
  const stats = await calls.stat(file).catch(() => undefined)
  return stats !== undefined && Date.now() - stats.mtimeMs > ageMillisMax
}

/** When a process started, in ticks since boot: the 22nd field of its stat line; its name, in parentheses, may hold spaces. */
function startOf(statLine: string): string {
  return statLine.slice(statLine.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}

function readOr(file: string, otherwise: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return otherwise
  }
}
