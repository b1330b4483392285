import { Failure } from '../base/failure.ts'
import { formatCheckpointId, ordinal } from '../base/ids.ts'
import { extentSizeBytesMax } from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { ObjectRef } from '../timeline/state.ts'
import { headerFault, packHeaderSizeBytes, packTrailerSizeBytes } from './pack-format.ts'
import { PackReader, readExactly, type RegionExtents } from './pack-reader.ts'
import type { PackFault, PackReport } from './types.ts'

/**
 * Reads the whole pack and checks every byte of it: header, index, fence, trailer, and each block to its last raw byte. What is wrong
 * with it is in the report; what is wrong with the way to it (STORE_UNAVAILABLE) is thrown.
 */
export async function verifyPack(store: ObjectStore, object: ObjectRef, signal: AbortSignal): Promise<PackReport> {
  const faults: PackFault[] = []
  const reader = await collect(faults, () => PackReader.open(store, object, signal))
  if (reader === undefined) return { object, extentCount: 0, blockCount: 0, faults }
  const { extentCount, blockCount } = reader.trailer
  await collect(faults, async () => {
    const header = await readExactly(store, object.key, 0, packHeaderSizeBytes, signal)
    const fault = headerFault(header, reader.trailerBytes)
    if (fault !== undefined) faults.push({ offsetBytes: 0, sentence: fault })
  })
  const seen = { extentCount: 0, blockCount: 0, endOffsetBytes: packHeaderSizeBytes, region: -1 }
  for (const entry of reader.fence) {
    const note = (what: string): void => {
      const sentence = `region ${entry.region} of volume ${reader.trailer.identity.volume}: ${what}`
      faults.push({ offsetBytes: entry.sectionOffsetBytes, sentence })
    }
    if (entry.region <= seen.region) note('the fence is not in order')
    seen.region = entry.region
    seen.extentCount += entry.extentCount
    seen.blockCount += entry.blockCount
    const extents = await collect(faults, async () => await reader.readRegion(entry.region, signal))
    if (extents === undefined) continue
    orderFaults(extents).forEach(note)
    for (let block = 0; block < extents.blocks.count; block++) {
      if (extents.blocks.offsetBytes[block] !== seen.endOffsetBytes)
        note(`block ${extents.blocks.firstBlock + block} does not follow the one before`)
      seen.endOffsetBytes = extents.blocks.offsetBytes[block]! + extents.blocks.storedSizeBytes[block]!
    }
    await verifyBlocks(reader, extents, faults, signal)
  }
  if (seen.extentCount !== extentCount || seen.blockCount !== blockCount)
    faults.push({
      offsetBytes: object.sizeBytes - packTrailerSizeBytes,
      sentence: 'fence and trailer do not agree on the number of extents or blocks',
    })
  return { object, extentCount, blockCount, faults }
}

async function collect<T>(faults: PackFault[], work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof Failure) || error.reaction === 'retry' || error.reaction === 'cancelled') throw error
    faults.push(faultOf(error))
    return undefined
  }
}

/** Whoever reads the report has the object's name beside the fault. */
function faultOf({ message, details: { fault, offsetBytes } }: Failure): PackFault {
  return {
    offsetBytes: typeof offsetBytes === 'number' ? offsetBytes : undefined,
    sentence: typeof fault === 'string' ? fault : message,
  }
}

const unitSectors = extentSizeBytesMax / sectorSizeBytes

function orderFaults({ count, start, length, zero, ordinalIndex }: RegionExtents): string[] {
  for (let index = 0; index < count; index++) {
    const crosses = (start[index]! % unitSectors) + length[index]! > unitSectors
    if (zero[index] === 0 && crosses) return [`extent ${index} crosses a multiple of 64 KiB`]
  }
  for (let index = 1; index < count; index++) {
    const inOrder =
      start[index - 1]! < start[index]! ||
      (start[index - 1] === start[index] && ordinalIndex[index - 1]! < ordinalIndex[index]!)
    if (!inOrder) return [`extent ${index} is out of order`]
  }
  return []
}

/** All blocks in large ranges; where one is bad, again block by block, so that the report names each. */
async function verifyBlocks(
  reader: PackReader,
  { blocks }: RegionExtents,
  faults: PackFault[],
  signal: AbortSignal,
): Promise<void> {
  const all = Uint32Array.from({ length: blocks.count }, (_, block) => block)
  try {
    await reader.readBlocks(blocks, all, () => undefined, signal)
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== 'OBJECT_CORRUPT') throw error
    for (const block of all) await collect(faults, () => reader.readBlocks(blocks, [block], () => undefined, signal))
  }
}

/** What the pack says of itself, a fact a line. Fails OBJECT_CORRUPT where it cannot be read. */
export async function* dumpPack(store: ObjectStore, object: ObjectRef, signal: AbortSignal): AsyncGenerator<string> {
  const reader = await PackReader.open(store, object, signal)
  const { identity, ...counts } = reader.trailer
  yield `pack ${object.key} kind=${identity.kind} vpg=${identity.vpg} epoch=${identity.epoch} volume=${identity.volume}`
  yield `span from=${checkpointName(identity.fromOrdinal)} to=${checkpointName(identity.toOrdinal)}`
  yield `size stored=${object.sizeBytes} raw=${counts.rawSizeBytes} extents=${counts.extentCount} blocks=${counts.blockCount}`
  for (const entry of reader.fence) {
    yield `region ${entry.region} extents=${entry.extentCount} blocks=${entry.blockCount} raw=${entry.rawSizeBytes}`
    const extents = await reader.readRegion(entry.region, signal)
    for (let index = 0; index < (extents?.count ?? 0); index++)
      yield extentLine(reader, extents!, index, entry.region * identity.regionSizeBytes)
  }
}

function extentLine(reader: PackReader, extents: RegionExtents, index: number, regionOffsetBytes: number): string {
  const offsetBytes = regionOffsetBytes + extents.start[index]! * sectorSizeBytes
  const sizeBytes = extents.length[index]! * sectorSizeBytes
  const checkpoint = checkpointName(reader.ordinals[extents.ordinalIndex[index]!]!)
  const place = `extent offset=${offsetBytes} size=${sizeBytes} checkpoint=${checkpoint}`
  if (extents.zero[index] === 1) return `${place} zeros`
  const block = extents.blocks.firstBlock + extents.block[index]!
  return `${place} block=${block} rawOffset=${extents.rawOffsetBytes[index]}`
}

function checkpointName(value: number): string {
  return formatCheckpointId(ordinal(value))
}
