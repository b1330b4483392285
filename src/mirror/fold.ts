import * as path from 'node:path'
import { assert } from '../base/assert.ts'
import { extentAlignmentBytes, packRawSizeBytesMax, regionSizeBytes } from '../base/limits.ts'
import { MiB, sectorSizeBytes } from '../base/units.ts'
import type { Disk } from '../disk/disk.ts'
import type { PackRef } from '../timeline/state.ts'
import { FoldPlan } from './fold-plan.ts'
import { PackWriter } from './pack-writer.ts'
import { Pace } from './pace.ts'
import { radixOrder } from './radix.ts'
import { FilePartitions, MemoryPartition, partitionCount, type Partitions } from './scratch.ts'
import type { FoldLimits, FoldRequest, FoldResult } from './types.ts'
import { indexWrites, noData, type WriteIndex } from './write-index.ts'

// Folding: from writes in order of time to a delta in order of place.
//
//   columns of every source ─> index of all writes ─> merge, region by region ─> what survives, sorted by place
//   each source once, in order ─> surviving data ─> partitions (ranges of places) in memory or a scratch file
//   partition by partition ─> packs ─> store
//
// In memory are about 40 bytes for each write, one pack, one partition, and a buffer of 32 to 256 KiB for each partition.

export const defaultFoldLimits: FoldLimits = {
  packRawSizeBytesMax,
  memorySizeBytesMax: 32 * MiB,
  partitionSizeBytes: 8 * MiB,
  regionSizeBytes,
}

const scratchPrefix = 'fold-'
const scratchSuffix = '.scratch'

/** Removes what a fold that was killed left in the directory. At start, before the first fold. */
export function removeScratch(disk: Disk, scratchDirectory: string): void {
  for (const name of disk.list(scratchDirectory)) {
    if (name.startsWith(scratchPrefix) && name.endsWith(scratchSuffix)) disk.remove(path.join(scratchDirectory, name))
  }
}

/**
 * Makes one delta of everything between two cuts: per place the last write of each retained checkpoint. On return its packs are
 * durable in the store; they are in no manifest yet. Fails as the sources and the store do, and DISK_FAILED for the scratch file;
 * packs that were created before a failure have keys that newKey gave.
 */
export async function fold(request: FoldRequest): Promise<FoldResult> {
  const { checkpoints, limits, signal } = request
  assert(checkpoints.length > 0 && checkpoints.length <= 0xffff, 'a delta holds 1 to 65,535 checkpoints')
  const pace = new Pace(request.yieldNow, signal)
  const cuts = { from: request.fromVector, vectors: checkpoints.map(checkpoint => checkpoint.vector) }
  const options = { holes: request.holes, regionSizeBytes: limits.regionSizeBytes }
  const index = await indexWrites(request.sources, cuts, options, pace, signal)
  const plan = await planFold(index, limits, pace)
  const partitions = openPartitions(request, plan)
  try {
    const place = await partitionData(request, index, plan, partitions, pace)
    return await writePacks(request, index, plan, place, partitions, pace)
  } finally {
    partitions.close()
  }
}

async function planFold(index: WriteIndex, limits: FoldLimits, pace: Pace): Promise<FoldPlan> {
  const plan = new FoldPlan(index, {
    packSizeBytesMax: limits.packRawSizeBytesMax,
    unitSectors: extentAlignmentBytes / sectorSizeBytes,
  })
  for (const bucket of index.buckets) {
    plan.addBucket(bucket)
    if (pace.due) await pace.step()
  }
  return plan
}

function openPartitions({ disk, scratchDirectory, vpg, limits, workspace }: FoldRequest, plan: FoldPlan): Partitions {
  if (plan.rawSizeBytes <= limits.memorySizeBytesMax) {
    plan.partition(1)
    return new MemoryPartition(workspace.partition, plan.rawSizeBytes)
  }
  const count = partitionCount(plan.rawSizeBytes, limits.partitionSizeBytes)
  plan.partition(count)
  const file = path.join(scratchDirectory, `${scratchPrefix}${vpg}${scratchSuffix}`)
  return new FilePartitions(disk, file, count, workspace.partition)
}

/** Reads every source once, in order, and puts surviving data into partitions; returns where each fragment's begins in its own. */
async function partitionData(
  { sources, signal }: FoldRequest,
  index: WriteIndex,
  plan: FoldPlan,
  partitions: Partitions,
  pace: Pace,
): Promise<Uint32Array> {
  const { piece, start, length, count } = plan.fragments()
  const place = new Uint32Array(count)
  const byTime = radixOrder(piece, count, new Uint32Array(count), new Uint32Array(count)).filter(
    fragment => index.rawOffsetBytes[piece[fragment]!] !== noData,
  )
  const batchOf = (at: number): number => index.batch[piece[byTime[at]!]!]!
  for (let next = 0; next < byTime.length;) {
    const sourceIndex = index.batchSource[batchOf(next)]!
    const wanted = new Set<number>()
    let end = next
    for (; end < byTime.length && index.batchSource[batchOf(end)] === sourceIndex; end++)
      wanted.add(index.batchNumber[batchOf(end)]!)
    const keep = async (batch: number, payload: Uint8Array): Promise<void> => {
      for (; next < end && index.batchNumber[batchOf(next)] === batch; next++) {
        const fragment = byTime[next]!
        const own = piece[fragment]!
        const at = index.rawOffsetBytes[own]! + (start[fragment]! - index.start[own]!) * sectorSizeBytes
        const bytes = payload.subarray(at, at + length[fragment]! * sectorSizeBytes)
        place[fragment] = partitions.append(plan.partitionOf(fragment), bytes)
      }
      if (pace.due) await pace.step()
    }
    await sources[sourceIndex]!.scanBatches(batch => wanted.has(batch), keep, signal)
    assert(next === end, 'a source gives every batch that is wanted, in order')
  }
  return place
}

async function writePacks(
  request: FoldRequest,
  index: WriteIndex,
  plan: FoldPlan,
  place: Uint32Array,
  partitions: Partitions,
  pace: Pace,
): Promise<FoldResult> {
  const { checkpoints, limits, store, signal, vpg, epoch, fromOrdinal } = request
  const writer = new PackWriter(request.workspace.pack)
  const { piece, start, length } = plan.fragments()
  const regionSectors = limits.regionSizeBytes / sectorSizeBytes
  const toOrdinal = checkpoints.at(-1)!.ordinal
  const packs: PackRef[] = []
  let loaded = -1
  let data: Uint8Array = new Uint8Array(0)
  for (const pack of plan.packs()) {
    const key = request.newKey()
    const identity = { kind: 'delta', volume: pack.volume, vpg, key, epoch, fromOrdinal, toOrdinal } as const
    const groups = new Set<number>()
    for (let fragment = pack.first; fragment < pack.end; fragment++) groups.add(index.group[piece[fragment]!]!)
    const ordinals = [...groups].sort((a, b) => a - b).map(group => checkpoints[group]!.ordinal)
    const hints = { rawSizeBytes: pack.rawSizeBytes, extentCount: pack.end - pack.first }
    writer.begin({ ...identity, regionSizeBytes: limits.regionSizeBytes }, ordinals, hints)
    for (let fragment = pack.first; fragment < pack.end; fragment++) {
      const own = piece[fragment]!
      const ordinal = checkpoints[index.group[own]!]!.ordinal
      const startSector = plan.regionOf(fragment) * regionSectors + start[fragment]!
      if (index.rawOffsetBytes[own] === noData) {
        writer.addZeros(startSector, ordinal, length[fragment]!)
      } else {
        const partition = plan.partitionOf(fragment)
        if (partition !== loaded) data = partitions.load((loaded = partition))
        const at = place[fragment]!
        writer.add(startSector, ordinal, data.subarray(at, at + length[fragment]! * sectorSizeBytes))
      }
      if (pace.due) await pace.step()
    }
    const { bytes, ref } = writer.finish()
    await store.create(key, bytes, signal)
    packs.push(ref)
  }
  return {
    packs,
    rawSizeBytes: packs.reduce((sum, pack) => sum + pack.rawSizeBytes, 0),
    storedSizeBytes: packs.reduce((sum, pack) => sum + pack.object.sizeBytes, 0),
  }
}
