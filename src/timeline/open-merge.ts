import { foldSizeBytesMax, openDeltaGrowth, openDeltasMergedMin } from '../base/limits.ts'
import type { DeltaSpan, PackRef } from './state.ts'

// Open deltas that nothing has closed yet, and how they become fewer while a synchronisation lasts. README.md has the rule, and what it costs.

/** The open deltas behind the last closed one, oldest first. */
export function unclosedDeltas(deltas: readonly DeltaSpan[]): readonly DeltaSpan[] {
  if (deltas.at(-1)?.open === undefined) return []
  return deltas.slice(deltas.findLastIndex(delta => delta.open === undefined) + 1)
}

/**
 * Adjacent open deltas of one size class, when there are enough of them; undefined where there are not. An older one that is smaller than one
 * after it counts as that, so of each class there is one row, and never more than openDeltasMergedMin - 1 in it when nothing is left to merge.
 */
export function openRun(open: readonly DeltaSpan[], foldBytes = foldSizeBytesMax): readonly DeltaSpan[] | undefined {
  for (let end = open.length; end > 0;) {
    const own = classOf(open[end - 1], foldBytes)
    let first = end - 1
    while (first > 0 && classOf(open[first - 1], foldBytes) <= own) first--
    if (end - first >= openDeltasMergedMin) return open.slice(first, end)
    end = first
  }
  return undefined
}

/** 0: what one fold makes; each class above is openDeltaGrowth times as much. */
function classOf(delta: DeltaSpan | undefined, foldBytes: number): number {
  const share = (delta === undefined ? 0 : packBytes(delta)) / foldBytes
  let own = 0
  for (let least = openDeltaGrowth; least <= share; least *= openDeltaGrowth) own++
  return own
}

/** Of the packs that are still there. */
export function packBytes({ packs }: Pick<DeltaSpan, 'packs'>): number {
  return packs.reduce((sum, pack) => sum + pack.rawSizeBytes, 0)
}

/** What becomes of the packs of some open deltas. */
export interface OpenMerge {
  /** Where they lie none of the other deltas has anything: they are taken over as they are. */
  readonly alone: readonly PackRef[]
  /** Packs that lie over one another, as parts of their deltas, oldest first: of each group the last writes are put into new packs. */
  readonly groups: readonly (readonly DeltaSpan[])[]
}

/**
 * By place: as many groups as are read within the bound, one at least, and all packs that lie alone. What is left stays where it is, for the
 * next time. Only what lies over one another is read and written at all: what a synchronisation sends of a quiet disk is not.
 */
export function planOpenMerge(run: readonly DeltaSpan[], readSizeBytesMax: number): OpenMerge {
  const placed = run.flatMap((delta, age) => delta.packs.map(pack => ({ pack, delta, age })))
  placed.sort((a, b) => byPlace(a.pack, b.pack))
  const alone: PackRef[] = []
  const groups: DeltaSpan[][] = []
  let sizeBytes = 0
  for (let first = 0; first < placed.length;) {
    let [end, endBytes] = [first, 0]
    for (; end < placed.length; end++) {
      const { volume, startBytes, endBytes: own } = placed[end]!.pack
      if (end > first && (volume !== placed[first]!.pack.volume || startBytes >= endBytes)) break
      endBytes = Math.max(endBytes, own)
    }
    const group = placed.slice(first, end)
    first = end
    if (group.length === 1) {
      alone.push(group[0]!.pack)
      continue
    }
    const groupBytes = packBytes({ packs: group.map(({ pack }) => pack) })
    if (groups.length > 0 && sizeBytes + groupBytes > readSizeBytesMax) continue
    sizeBytes += groupBytes
    const parts = new Map<number, { readonly delta: DeltaSpan; readonly packs: PackRef[] }>()
    for (const { pack, delta, age } of group.sort((a, b) => a.age - b.age)) {
      const part = parts.get(age)
      if (part === undefined) parts.set(age, { delta, packs: [pack] })
      else part.packs.push(pack)
    }
    groups.push([...parts.values()].map(({ delta, packs }) => ({ ...delta, packs })))
  }
  return { alone, groups }
}

/**
 * The run with what was merged: the packs that lay alone and the new ones are the last delta's. Those before it keep what is left of them, and go
 * when nothing is left of any.
 */
export function afterOpenMerge(
  run: readonly DeltaSpan[],
  { alone, groups }: OpenMerge,
  made: readonly PackRef[],
): readonly DeltaSpan[] {
  const gone = new Set([...alone, ...groups.flat().flatMap(part => part.packs)].map(({ object }) => object.key))
  const left = run.map(delta => ({ ...delta, packs: delta.packs.filter(({ object }) => !gone.has(object.key)) }))
  const [before, last] = [left.slice(0, -1), left.slice(-1)]
  const merged = last.map(delta => {
    const packs = [...delta.packs, ...alone, ...made].sort(byPlace)
    return { ...delta, packs, rawSizeBytes: packBytes({ packs }) }
  })
  return before.every(({ packs }) => packs.length === 0) ? merged : [...before, ...merged]
}

function byPlace(a: PackRef, b: PackRef): number {
  return a.volume - b.volume || a.startBytes - b.startBytes || a.endBytes - b.endBytes
}
