import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { VolumeFile, VolumeFileIdentity } from '../disk/disk.ts'
import type { AgentVolumeConfig } from './options.ts'
import type { RunState, StateDirectory, VolumeState } from './state.ts'
import { findData } from './volume.ts'

/**
 * Looks at every disk before it is served, and writes down what it finds. A disk that is new here must hold zeros only
 * (SYNC_REQUIRED otherwise: its data could not be sent yet). A known disk continues only where it is as the agent left it; otherwise
 * its volume is marked as needing a sync.
 */
export async function inspectVolumes(
  directory: StateDirectory,
  configs: readonly AgentVolumeConfig[],
  files: readonly VolumeFile[],
  clock: Clock,
): Promise<void> {
  const { run, volumes } = directory.state
  const inspected: VolumeState[] = []
  for (const [index, { name, path }] of configs.entries()) {
    const file = files[index]!
    const known = volumes.find(each => each.name === name)
    if (known === undefined) {
      await refuseData(path, file)
      inspected.push({ name, identity: file.identity() })
      continue
    }
    const reason = known.needsSync === undefined ? whyNotExact(name, run, known.identity, file.identity()) : undefined
    const needsSync =
      reason === undefined ? {} : { needsSync: { reason, sinceTimestampMicros: clock.timestampMicros() } }
    inspected.push({ ...known, ...needsSync })
  }
  directory.save({ volumes: inspected })
}

async function refuseData(path: string, file: VolumeFile): Promise<void> {
  const offsetBytes = await findData(file)
  if (offsetBytes === undefined) return
  throw new Failure(
    'SYNC_REQUIRED',
    `the disk ${path} already holds data (the first byte that is not zero is at ${offsetBytes}): protecting it takes an initial ` +
      'synchronisation, which this version does not have. Begin with an empty disk and copy the data in through the agent.',
    { offsetBytes },
  )
}

function whyNotExact(
  name: string,
  run: RunState,
  before: VolumeFileIdentity,
  now: VolumeFileIdentity,
): string | undefined {
  if (run.kind === 'running' && run.written.includes(name))
    return 'the agent was killed, or its host went down, after the volume had been written: the VRA may lack some of its last writes'
  if (before.sizeBytes !== now.sizeBytes)
    return `the size of the disk changed from ${before.sizeBytes} to ${now.sizeBytes} bytes while the agent did not run`
  if (before.device !== now.device || before.inode !== now.inode)
    return 'the disk is another one (device or inode) than when the agent stopped'
  if (before.modifiedNanos !== now.modifiedNanos || before.changedNanos !== now.changedNanos)
    return 'the disk was changed while the agent did not run (its modification times are others)'
  return undefined
}
