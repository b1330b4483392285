import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { regionSizeBytes } from '../base/limits.ts'
import { MiB } from '../base/units.ts'
import type { VolumeFile } from '../disk/disk.ts'
import { seedRegion } from '../mirror/mirror.ts'
import type { VpgContents } from '../manifest/manifest.ts'
import { regionName } from '../timeline/region-plan.ts'
import type { Preseed, VolumeDefinition, VpgDefinition } from '../timeline/definition.ts'
import type { RegionVersion } from '../timeline/state.ts'
import { patientStore } from './patient-store.ts'
import type { AgingTools } from './tools.ts'
import type { VpgAging } from './vpg-aging.ts'

// An image becomes a volume's base, as of before the first checkpoint (src/mirror/README.md says why that is right). Region by region, each a
// commit of its own with the count of those that are done, so that a kill costs one region. It makes no checkpoint: none includes the volume
// before its agent has compared all of it.

/** Where in which volume. */
export interface PreseedPlace {
  readonly volume: number
  readonly region: number
}

interface SeededRegion {
  readonly dataBytes: number
  readonly definition: VpgDefinition
}

/**
 * Durable on return: the image of this file is being taken, and from which region on. Fails REQUEST_INVALID where it is not as large as the volume,
 * and where something of the volume is known to its agent already; CONFIG_INVALID where it cannot be opened.
 */
export async function beginPreseed(
  tools: AgingTools,
  vpg: VpgAging,
  { volume, file }: { readonly volume: number; readonly file: string },
): Promise<VpgDefinition> {
  const image = tools.openImageFile(file)
  try {
    const { modifiedNanos } = image.identity()
    await vpg.decide(contents => {
      const defined = volumeOf(contents, volume)
      requireSize(image, file, defined)
      requireUncompared(defined)
      const before = defined.preseed
      const isSame = before?.file === file && before.modifiedNanos === modifiedNanos && before.state === 'under-way'
      const preseed: Preseed = {
        state: 'under-way',
        file,
        modifiedNanos,
        doneRegionCount: isSame ? before.doneRegionCount : 0,
      }
      return withVolume(contents, { ...defined, preseed })
    })
  } finally {
    await image.close()
  }
  return vpg.writer.brief.state.definition
}

/**
 * The region of the image is in the mirror on return, in the place of what an earlier image had there. Returns how many of its bytes are no zeros.
 * Fails as beginPreseed does, and CLOSING where the preseed was ended meanwhile.
 */
export async function preseedRegion(tools: AgingTools, vpg: VpgAging, at: PreseedPlace): Promise<SeededRegion> {
  return await vpg.writer.awake(() => seedAwake(tools, vpg, at))
}

async function seedAwake(tools: AgingTools, vpg: VpgAging, at: PreseedPlace): Promise<SeededRegion> {
  const { writer } = vpg
  const { preseed } = underWay(writer.contents, at.volume)
  const image = tools.openImageFile(preseed.file)
  const unnamed = new Set<string>()
  try {
    const { sizeBytes } = underWay(writer.contents, at.volume)
    requireSame(image, preseed, volumeOf(writer.contents, at.volume))
    const seed = (): Promise<RegionVersion> =>
      seedRegion({
        ...at,
        store: patientStore(tools.store, writer.patience.brief),
        newKey: () => {
          const key = writer.commits.newKey('base')
          unnamed.add(key)
          return key
        },
        workspace: tools.workspace,
        yieldNow: tools.turns.yieldNow,
        signal: tools.signal,
        vpg: writer.vpg,
        epoch: writer.contents.state.epoch,
        regionSizeBytes,
        read: readerOf(image, preseed.file),
        sizeBytes,
      })
    // A rewrite that was planned without the region is void, as commitVersions() sees, and none may take its pack for an orphan.
    const version = await writer.making.with(async () => {
      const seeded = await tools.mergePermit.with(() => tools.workspace.use(seed))
      await commitRegion(vpg, { at, version: seeded, preseed, begin: () => unnamed.clear() })
      return seeded
    })
    return { dataBytes: version.pack?.rawSizeBytes ?? 0, definition: writer.contents.state.definition }
  } finally {
    await image.close()
    // What no commit was begun for is nobody's. One that failed may count all the same: the next start sees whether it does, and removes what it does not name.
    if (writer.halted === undefined)
      for (const key of unnamed) await tools.store.remove(key, tools.signal).catch(() => undefined)
  }
}

/** Durable on return: the agent's synchronisation need not wait any longer. What is in the mirror by now stays, and is compared. */
export async function endPreseed(vpg: VpgAging, { volume }: { readonly volume: number }): Promise<VpgDefinition> {
  await vpg.decide(contents => {
    const { preseed, ...defined } = volumeOf(contents, volume)
    if (preseed?.state !== 'under-way') return undefined
    return withVolume(contents, { ...defined, preseed: { ...preseed, state: 'ended' } })
  })
  return vpg.writer.brief.state.definition
}

/**
 * Durable on return: nothing is put below the volume any more, so that what is compared with it now stays so. True where that was not so
 * before: what was opened of it earlier may lack something. Fails BUSY while an image of it is being read.
 */
export async function noteCompared(vpg: VpgAging, { volume }: { readonly volume: number }): Promise<boolean> {
  let isNews = false
  await vpg.decide(contents => {
    const defined = volumeOf(contents, volume)
    if (defined.preseed?.state === 'under-way')
      throw new Failure('BUSY', `an image of the volume "${defined.name}" is being read into its mirror`)
    isNews = defined.isCompared !== true
    return isNews ? withVolume(contents, { ...defined, isCompared: true }) : undefined
  })
  return isNews
}

/** What is committed of a region. */
interface RegionCommit {
  readonly at: PreseedPlace
  readonly version: RegionVersion
  readonly preseed: Preseed
  /** Called before the store is asked for the commit that names the version's pack. */
  begin(): void
}

async function commitRegion({ writer }: VpgAging, { at, version, preseed, begin }: RegionCommit): Promise<void> {
  await writer.exclusively(async turn => {
    const { contents } = turn
    const { definition, regions } = contents.state
    const defined = volumeOf(contents, at.volume)
    if (
      contents.deletedAtMicros !== undefined ||
      defined.preseed?.state !== 'under-way' ||
      defined.preseed.file !== preseed.file
    )
      throw new Failure('CLOSING', `the preseed of "${defined.name}" was ended`)
    const former = regions.filter(
      each => each.asOfOrdinal === version.asOfOrdinal && regionName(each) === regionName(at),
    )
    const doneRegionCount = at.region + 1
    const next = withVolume(contents, { ...defined, preseed: { ...defined.preseed, doneRegionCount } })
    assert(next.state.definition.id === definition.id, 'a definition of the same VPG')
    const kept = regions.filter(each => !former.includes(each))
    begin()
    await turn.commitManifest({
      contents: { ...next, state: { ...next.state, regions: version.pack === undefined ? kept : [...kept, version] } },
      leftKeys: former.flatMap(({ pack }) => (pack === undefined ? [] : [pack.object.key])),
    })
  })
}

function readerOf(image: VolumeFile, file: string): (target: Uint8Array, offsetBytes: number) => Promise<void> {
  return async (target, offsetBytes) => {
    try {
      await image.read(target, offsetBytes)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Failure('DISK_FAILED', `${file} cannot be read at ${offsetBytes}: ${why}`, { offsetBytes }, { cause })
    }
  }
}

function volumeOf({ state }: VpgContents, number: number): VolumeDefinition {
  const found = state.definition.volumes.find(volume => volume.number === number)
  if (found !== undefined) return found
  throw new Failure('UNKNOWN_VOLUME', `${state.definition.name} has no volume ${number} any more`)
}

function underWay(contents: VpgContents, number: number): VolumeDefinition & { readonly preseed: Preseed } {
  const { preseed, ...volume } = volumeOf(contents, number)
  if (preseed?.state !== 'under-way') throw new Failure('CLOSING', `the preseed of "${volume.name}" was ended`)
  return { ...volume, preseed }
}

function withVolume(contents: VpgContents, volume: VolumeDefinition): VpgContents {
  const { definition } = contents.state
  const volumes = definition.volumes.map(each => (each.number === volume.number ? volume : each))
  return { ...contents, state: { ...contents.state, definition: { ...definition, volumes } } }
}

function requireSame(image: VolumeFile, { file, modifiedNanos }: Preseed, volume: VolumeDefinition): void {
  requireSize(image, file, volume)
  if (image.identity().modifiedNanos === modifiedNanos) return
  throw new Failure(
    'REQUEST_INVALID',
    `${file} was changed while it was read: begin again, with an image that nobody writes to`,
  )
}

function requireSize(image: VolumeFile, file: string, { name, sizeBytes }: VolumeDefinition): void {
  if (image.sizeBytes === sizeBytes) return
  const inMiB = (bytes: number): string => `${bytes} bytes (${Math.round(bytes / MiB)} MiB)`
  throw new Failure(
    'REQUEST_INVALID',
    `${file} has ${inMiB(image.sizeBytes)}, the volume "${name}" has ${inMiB(sizeBytes)}: an image of another size is not taken`,
    { imageSizeBytes: image.sizeBytes, volumeSizeBytes: sizeBytes },
  )
}

function requireUncompared({ name, isCompared }: VolumeDefinition): void {
  if (isCompared !== true) return
  throw new Failure(
    'REQUEST_INVALID',
    `the volume "${name}" was compared with its disk already: what differs is known, and an image below it would be of no use`,
  )
}
