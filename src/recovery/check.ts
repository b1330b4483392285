import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as nextTurn } from 'node:timers/promises'
import { onAbort } from '../base/abort.ts'
import type { Clock } from '../base/clock.ts'
import { drillOutputSizeBytesMax } from '../base/limits.ts'
import type { DrillResult } from '../timeline/recovery.ts'

// The check of a drill: a command that looks at what was recovered, and says by its exit status whether it is good.

/** How long a check that was told to end may take for it, and how long whoever holds its output is waited for. */
const endMillisMax = 5_000
const goneCheckMillis = 5

export interface Check {
  /** For /bin/sh. */
  readonly command: string
  readonly timeoutMillis: number
}

/** What was recovered, as the API tells it. */
export interface Recovered {
  readonly id: string
  readonly vpg: string
  readonly target: string
  readonly checkpoint: string | undefined
  readonly checkpointTimestampMicros: number | undefined
  readonly things: readonly {
    readonly vm: string
    readonly volume: string | undefined
    readonly kind: string
    readonly place: string
  }[]
}

/**
 * What a check finds in its environment: VRA_VPG, VRA_RECOVERY, VRA_TARGET, VRA_CHECKPOINT, VRA_CHECKPOINT_TIME, all places as JSON in VRA_THINGS, and each in
 * VRA_<kind>_<volume or machine>: VRA_NBD_root=nbd://..., VRA_FILE_root=/srv/..., VRA_EC2_INSTANCE_app1=i-.... What a name of a variable cannot have is "_".
 */
export function checkEnvironment(recovered: Recovered): Record<string, string> {
  const { id, vpg, target, checkpoint = '', checkpointTimestampMicros, things } = recovered
  const places = things.map(({ vm, volume, kind, place }) => {
    const name = `${kind.toUpperCase()}_${volume ?? vm}`.replaceAll(/[^A-Za-z0-9_]/g, '_')
    return [`VRA_${name}`, place] as const
  })
  const time = checkpointTimestampMicros === undefined ? '' : new Date(checkpointTimestampMicros / 1000).toISOString()
  return {
    ...Object.fromEntries(places),
    ...{ VRA_VPG: vpg, VRA_RECOVERY: id, VRA_TARGET: target, VRA_CHECKPOINT: checkpoint, VRA_CHECKPOINT_TIME: time },
    VRA_THINGS: JSON.stringify(things),
  }
}

export interface CheckRun extends Check {
  /** All of it: nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>
  readonly clock: Clock
  /** Everything that it says, as it comes. */
  readonly told?: (chunk: Buffer) => void
}

/**
 * Runs the command in a process group of its own, and says what came of it. Of that group nothing runs any more on return, however it ended. Fails with the signal's reason
 * when that was aborted.
 */
export async function runCheck(run: CheckRun, signal: AbortSignal): Promise<DrillResult> {
  signal.throwIfAborted()
  const { command, timeoutMillis, environment, clock, told } = run
  const startMillis = clock.monotonicMillis()
  const child = spawn('/bin/sh', ['-c', command], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...environment },
  })
  const output = new Tail(drillOutputSizeBytesMax)
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output.add(chunk)
      told?.(chunk)
    })
  const ended = outcomeOf(child)
  const late = new AbortController()
  const forget = onAbort(signal, () => late.abort())
  try {
    const timeout = clock.sleep(timeoutMillis, late.signal).then(
      () => 'timed-out' as const,
      () => 'aborted' as const,
    )
    const first = await Promise.race([ended, timeout])
    if (typeof first === 'string') await endGroup(child, ended, clock)
    signal.throwIfAborted()
    const checkMillis = clock.monotonicMillis() - startMillis
    if (typeof first === 'string') return { outcome: 'timed-out', output: output.text(), checkMillis }
    const { exitStatus, cannotStart } = first
    if (cannotStart !== undefined) return { outcome: 'failed', output: cannotStart, checkMillis }
    await drained(child, clock)
    return { outcome: exitStatus === 0 ? 'passed' : 'failed', exitStatus, output: output.text(), checkMillis }
  } finally {
    forget()
    late.abort()
    await killedGroup(child, clock)
    child.stdout.destroy()
    child.stderr.destroy()
  }
}

interface Ended {
  readonly exitStatus?: number
  readonly cannotStart?: string
}

async function outcomeOf(child: ChildProcess): Promise<Ended> {
  return await new Promise(resolve => {
    child.once('error', error => resolve({ cannotStart: error.message }))
    child.once('exit', code => resolve(code === null ? {} : { exitStatus: code }))
  })
}

async function endGroup(child: ChildProcess, ended: Promise<Ended>, clock: Clock): Promise<void> {
  killGroup(child, 'SIGTERM')
  await inPatience(clock, () => ended)
  killGroup(child, 'SIGKILL')
}

/** What it left running may hold its output open. */
async function drained(child: ChildProcess, clock: Clock): Promise<void> {
  if (child.stdout?.closed === true && child.stderr?.closed === true) return
  killGroup(child, 'SIGKILL')
  await inPatience(clock, signal => once(child, 'close', { signal }).catch(() => undefined))
}

/** Waits for it, or until patience is at its end; then the signal says that nobody waits any more. */
async function inPatience(clock: Clock, wait: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
  const patience = new AbortController()
  await Promise.race([wait(patience.signal), clock.sleep(endMillisMax, patience.signal).catch(() => undefined)])
  patience.abort()
}

/** A killed process may hold its files, and the mounts below them, for a moment more: whoever undoes what was recovered would find them busy. */
async function killedGroup(child: ChildProcess, clock: Clock): Promise<void> {
  await inPatience(clock, async signal => {
    while (!signal.aborted && killGroup(child, 'SIGKILL')) await nextTurn(goneCheckMillis)
  })
}

/** False when nobody is left there. */
function killGroup({ pid }: ChildProcess, signal: NodeJS.Signals): boolean {
  if (pid === undefined) return false
  try {
    process.kill(-pid, signal)
    return true
  } catch (error) {
    // It is gone; or what is left of it is another user's by now.
    if (!['ESRCH', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    return false
  }
}

/** The end of a text, as UTF-8 without what would steer a terminal. */
class Tail {
  readonly #sizeBytesMax: number
  #bytes = Buffer.alloc(0)

  constructor(sizeBytesMax: number) {
    this.#sizeBytesMax = sizeBytesMax
  }

  add(chunk: Buffer): void {
    const kept = chunk.subarray(Math.max(0, chunk.length - this.#sizeBytesMax))
    this.#bytes = Buffer.concat([this.#bytes, kept]).subarray(-this.#sizeBytesMax)
  }

  text(): string {
    return this.#bytes.toString('utf8').replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f]/g, ' ')
  }
}
