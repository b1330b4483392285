import type { Clock } from '../base/clock.ts'
import { ebsBlockSizeBytes } from '../base/limits.ts'
import type { StandbyCopy } from '../recovery/target.ts'
import type { Json } from '../timeline/recovery.ts'
import { mayBeUnnoted, type SnapshotMemory } from './memory.ts'
import { unlistedMillisMax } from './polling.ts'
import { noTraces, type Traces } from './traces.ts'

// What is remembered of a VPG's standby chains, beside the checkpoints that their links hold. Listings of EC2 are late, both of what is new and of what is
// gone: a link is what stands here, and whatever else bears the chain's tag is on its way out.

/** A completed snapshot, upon which recoveries and the next link are put. */
export interface Link {
  readonly snapshot: string
  /** The checkpoint that it holds. */
  readonly ordinal: number
  /** Of the link before it only these blocks were put; of a whole one all that are no zeros. */
  readonly putBlockCount: number
  readonly isWhole: boolean
  /** It is encrypted with, and so is whatever is put upon it; absent: nobody named one. */
  readonly kmsKey?: string
}

export interface ChainMemory {
  /** Of links that were begun: part of their tokens, so that none is ever asked for with another's. */
  readonly serial: number
  readonly link?: Link
  /** The next link, of the checkpoint of this ordinal. */
  readonly making?: SnapshotMemory & { readonly ordinal: number }
  /** Snapshots that are not known to be gone. */
  readonly leaving?: readonly string[]
  /** Something was begun and given up before its id was known: only its tag finds it. */
  readonly isUnnoted?: true
}

export interface ChainsMemory {
  /** By volume number. */
  readonly volumes: Readonly<Record<string, ChainMemory>>
  readonly changedAtMicros?: number
}

export const noChain: ChainMemory = { serial: 0 }

export function chainsMemoryOf(json: Json): ChainsMemory {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return { volumes: {} }
  return { volumes: {}, ...(json as object) }
}

/** By volume number. */
export function linksOf(json: Json): ReadonlyMap<number, Link> {
  const links = Object.entries(chainsMemoryOf(json).volumes).flatMap(([volume, { link }]) =>
    link === undefined ? [] : [[Number(volume), link] as const],
  )
  return new Map(links)
}

/** As StandbyTarget has them. */
export function copiesOf(json: Json): readonly StandbyCopy[] {
  return [...linksOf(json)].map(([volume, { snapshot, ordinal, putBlockCount, isWhole }]) => {
    const putSizeBytes = putBlockCount * ebsBlockSizeBytes
    return { volume, place: snapshot, ordinal, putSizeBytes, isWhole }
  })
}

/** The chain without what is being made of it. */
export function givenUp(chain: ChainMemory): ChainMemory {
  const { making, leaving = [], ...rest } = chain
  if (making === undefined) return chain
  const { snapshot } = making
  if (snapshot !== undefined) return { ...rest, leaving: [...leaving, snapshot] }
  return mayBeUnnoted(making) ? { ...rest, leaving, isUnnoted: true } : { ...rest, leaving }
}

/** What there may be, of which all must go; as tracesOf for a recovery. */
export function tracesOfChains(json: Json, clock: Clock): Traces {
  const { volumes, changedAtMicros } = chainsMemoryOf(json)
  const chains = Object.values(volumes)
  const sinceMillis = changedAtMicros === undefined ? 0 : (clock.timestampMicros() - changedAtMicros) / 1000
  return {
    ...noTraces,
    snapshots: chains.flatMap(({ link, making, leaving = [] }) => [
      ...leaving,
      ...[link?.snapshot, making?.snapshot].filter(id => id !== undefined),
    ]),
    isSomethingUnnoted: chains.some(
      ({ making, isUnnoted }) => isUnnoted === true || (making !== undefined && mayBeUnnoted(making)),
    ),
    unlistedMillis: json === null ? 0 : Math.max(0, unlistedMillisMax - Math.max(0, sinceMillis)),
  }
}
