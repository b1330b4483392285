import { Failure } from '../base/failure.ts'
import type { Disk, OpenVolumeFile, VolumeFile, VolumeFileIdentity } from '../disk/disk.ts'
import { DirtyMap } from './dirty-map.ts'
import type { AgentVolumeConfig } from './options.ts'
import type { VolumeParts } from './protected-volume.ts'
import type { StateDirectory } from './state-directory.ts'
import type { OpenSync, RunState, VolumeState } from './state.ts'

export interface OpenDeps {
  readonly directory: StateDirectory
  readonly disk: Disk
  readonly openVolumeFile: OpenVolumeFile
  /** A number that no former map has: 32 bits by chance. */
  readonly newMapIdentity: () => number
  readonly timestampMicros: () => number
  /** Whether the stream goes on exactly where it stopped. */
  readonly isExact: boolean
}

/**
 * Opens a disk and its dirty map, and finds out what has to be sent of it; what is pending is durable on return, and not yet saved is
 * only the state. Fails CONFIG_INVALID where the disk cannot be served: also where it has become smaller; BUSY where another agent serves it.
 */
export async function openVolume({ name, path }: AgentVolumeConfig, deps: OpenDeps): Promise<VolumeParts> {
  const file = deps.openVolumeFile(path)
  let map: DirtyMap | undefined
  try {
    await file.claim()
    const known = deps.directory.state.volumes.find(each => each.name === name)
    if (known !== undefined) refuseSmaller(path, known.identity, file)
    const mapPath = deps.directory.mapFile(name)
    const { disk, openVolumeFile } = deps
    const found = known === undefined ? undefined : DirtyMap.open(disk, openVolumeFile, mapPath, file.sizeBytes)
    const fresh = { sizeBytes: file.sizeBytes, identity: deps.newMapIdentity(), pending: 'everything' } as const
    map = found ?? DirtyMap.create(disk, openVolumeFile, mapPath, fresh)
    const plan = planSync(name, known, found, file.identity(), deps)
    if (plan.pending === 'everything' && map === found)
      await map.addAllPending() // a fresh one has it
    else if (plan.pending === 'marks') map.repeat()
    const { sync: _before, unmapped: _map, isSuspect: _suspect, ...rest } = known ?? { name, identity: file.identity() }
    const sync = plan.sync
    return { path, file, map, state: { ...rest, identity: file.identity(), ...(sync === undefined ? {} : { sync }) } }
  } catch (error) {
    await map?.abandon()
    await file.close()
    throw error
  }
}

interface Plan {
  readonly sync: OpenSync | undefined
  /** Beyond what the map says is pending. */
  readonly pending: 'everything' | 'marks' | 'nothing'
}

function planSync(
  name: string,
  known: VolumeState | undefined,
  map: DirtyMap | undefined,
  identity: VolumeFileIdentity,
  { directory, isExact, timestampMicros }: OpenDeps,
): Plan {
  const { run } = directory.state
  const open = (kind: OpenSync['kind'], reason: string): OpenSync =>
    known?.sync?.kind === 'initial' || (known?.sync?.kind === 'full' && kind !== 'initial')
      ? known.sync
      : { kind, reason, sinceTimestampMicros: known?.sync?.sinceTimestampMicros ?? timestampMicros() }
  if (known === undefined) return { sync: open('initial', 'it is sent for the first time'), pending: 'everything' }
  const changed = whyChanged(name, run, known.identity, identity)
  if (changed !== undefined) return { sync: open('delta', changed), pending: 'everything' }
  if (known.unmapped !== undefined) return { sync: open('delta', known.unmapped), pending: 'everything' }
  if (map === undefined)
    return {
      sync: open('delta', 'its dirty map is damaged or gone: the whole disk is compared'),
      pending: 'everything',
    }
  if (known.isSuspect === true)
    return { sync: known.sync ?? open('bitmap', 'a flush of the local disk had failed'), pending: 'marks' }
  if (map.damagedPageCount > 0) {
    const what = `${map.damagedPageCount} of the pages of its dirty map are damaged: all their regions are sent`
    return { sync: known.sync ?? open('bitmap', what), pending: isExact ? 'nothing' : 'marks' }
  }
  if (!isExact) return { sync: known.sync ?? open('bitmap', whyNotExact(run)), pending: 'marks' }
  return { sync: known.sync, pending: 'nothing' }
}

function whyNotExact(run: RunState): string {
  return run.kind === 'running'
    ? 'the agent was killed, or its host went down: what the VRA may lack of it is sent'
    : 'the agent was stopped while writes were not sent any more'
}

function refuseSmaller(path: string, before: VolumeFileIdentity, file: VolumeFile): void {
  if (file.sizeBytes >= before.sizeBytes) return
  throw new Failure(
    'CONFIG_INVALID',
    `the disk ${path} has become smaller: it had ${before.sizeBytes} bytes and has ${file.sizeBytes}. What its end held would be ` +
      'lost at the VRA, too: give it its size back, or protect it as a volume of another name.',
    { sizeBytesBefore: before.sizeBytes, sizeBytes: file.sizeBytes },
  )
}

/** Why the disk cannot be taken for the one that the agent left; undefined where it can. */
function whyChanged(
  name: string,
  run: RunState,
  before: VolumeFileIdentity,
  now: VolumeFileIdentity,
): string | undefined {
  if (before.sizeBytes !== now.sizeBytes)
    return (
      `the disk has grown from ${before.sizeBytes} to ${now.sizeBytes} bytes: the whole of it is compared, as soon as the VPG's ` +
      'definition says the new size'
    )
  if (before.device !== now.device || before.inode !== now.inode)
    return 'the disk is another one (device or inode) than when the agent stopped: the whole of it is compared'
  if (run.kind === 'running' && run.written.includes(name)) return undefined // its times are later, by the agent's own writes
  if (now.writes !== undefined) return now.writes !== '' && before.writes === now.writes ? undefined : whyMaybeWritten
  if (before.modifiedNanos !== now.modifiedNanos || before.changedNanos !== now.changedNanos)
    return 'the disk was changed while the agent did not run (its modification times are others): the whole of it is compared'
  return undefined
}

const whyMaybeWritten =
  'the block device may have been written to while the agent did not run (the host was started anew, the device attached anew, its count of written sectors ' +
  'is another, or is not to be had): the whole of it is compared'
