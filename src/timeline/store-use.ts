import { newestVersions, regionName } from './region-plan.ts'
import type { ObjectRef, PackRef, RegionVersion, VpgState } from './state.ts'

// What a VPG takes in the store, by the form that its bytes have.

export type Form = (typeof forms)[number]

/** `superseded`: region versions that a newer one follows, which older checkpoints read. `manifests`: the root, its pages, and those of deltas. */
export const forms = ['segments', 'deltas', 'base', 'superseded', 'manifests'] as const

export interface FormSize {
  readonly form: Form
  readonly objectCount: number
  readonly sizeBytes: number
  /** Of these bytes, those that say where the others are. */
  readonly indexSizeBytes: number
}

/** All that the newest manifest refers to, and itself; without garbage. `manifest` are its root and pages. */
export function storeUseOf(
  state: Pick<VpgState, 'segments' | 'deltas' | 'regions'>,
  manifest: readonly ObjectRef[],
): FormSize[] {
  const newest = newestVersions(state.regions)
  const isNewest = (version: RegionVersion): boolean => newest.get(regionName(version)) === version
  const packs = (versions: readonly RegionVersion[]): PackRef[] =>
    versions.flatMap(({ pack }) => (pack === undefined ? [] : [pack]))
  const segments = state.segments.map(({ object, footerSizeBytes }) => ({ object, indexSizeBytes: footerSizeBytes }))
  const pages = [...manifest, ...state.deltas.map(delta => delta.checkpoints)]
  return [
    sizeOf('segments', segments),
    sizeOf('deltas', state.deltas.flatMap(delta => delta.packs).map(indexed)),
    sizeOf('base', packs(state.regions.filter(isNewest)).map(indexed)),
    sizeOf('superseded', packs(state.regions.filter(version => !isNewest(version))).map(indexed)),
    sizeOf(
      'manifests',
      pages.map(object => ({ object, indexSizeBytes: object.sizeBytes })),
    ),
  ]
}

interface Indexed {
  readonly object: ObjectRef
  readonly indexSizeBytes: number
}

function indexed({ object, indexOffsetBytes }: PackRef): Indexed {
  return { object, indexSizeBytes: object.sizeBytes - indexOffsetBytes }
}

function sizeOf(form: Form, objects: readonly Indexed[]): FormSize {
  let [sizeBytes, indexSizeBytes] = [0, 0]
  for (const each of objects) {
    sizeBytes += each.object.sizeBytes
    indexSizeBytes += each.indexSizeBytes
  }
  return { form, objectCount: objects.length, sizeBytes, indexSizeBytes }
}
