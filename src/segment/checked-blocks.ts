import { assert } from '../base/assert.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { ByteRange } from '../store/object-store.ts'
import { restoreBlock, type BatchView } from '../wire/wire.ts'
import type { RawPart } from './record-source.ts'

// Of a batch only the whole has a checksum in the format, and its blocks can be decompressed alone. So when a batch was read whole, and
// passed, its blocks are summed one by one from the very bytes that passed, and the sums kept: 12 bytes a block. A later read
// needs the wanted blocks only, and what it finds is held against these sums.

/** Columns of a batch's row: ends within the raw payload and within the stored one, and the sum of what is stored. */
const columns = 3

/** Neighbouring blocks of one batch. */
export interface BlockRun {
  readonly batch: number
  readonly firstBlock: number
  readonly endBlock: number
  /** In the memory that the batch was remembered from. */
  readonly stored: ByteRange
  /** In the raw payload. */
  readonly raw: ByteRange
}

/** The blocks of the batches of one source that were read whole and passed their checks. It grows as the source's columns of writes do, and stays smaller. */
export class CheckedBlocks {
  readonly #rows = new Map<number, { readonly storedStartBytes: number; readonly blocks: Uint32Array }>()

  /** The batch, which is checked, lies in `source`. One of a single block is passed over: it is read whole in any case. */
  remember(batch: number, view: BatchView, source: Uint8Array): void {
    const { payload, blockCount } = view
    if (blockCount < 2 || this.#rows.has(batch)) return
    const blocks = new Uint32Array(columns * blockCount)
    let [rawEnd, storedEnd] = [0, 0]
    for (let block = 0; block < blockCount; block++) {
      const storedStart = storedEnd
      rawEnd += view.blockRawSizeBytes(block)
      storedEnd += view.blockStoredSizeBytes(block)
      blocks.set([rawEnd, storedEnd, crc32c(payload.subarray(storedStart, storedEnd))], columns * block)
    }
    this.#rows.set(batch, { storedStartBytes: payload.byteOffset - source.byteOffset, blocks })
  }

  /**
   * Remembers the batch, and gives what lies in the fewest blocks that hold the range. Undefined for a batch of a single block, and where a block does not
   * decompress.
   */
  firstPart(batch: number, range: ByteRange, view: BatchView, source: Uint8Array): RawPart | undefined {
    this.remember(batch, view, source)
    const run = this.find(batch, range)
    if (run === undefined) return undefined
    const raw = this.restore(run, source.subarray(run.stored.startBytes, run.stored.endBytes))
    return raw === undefined ? undefined : { rawOffsetBytes: run.raw.startBytes, raw }
  }

  /** The fewest blocks that hold the range of the raw payload; undefined for a batch that was not remembered. */
  find(batch: number, range: ByteRange): BlockRun | undefined {
    const row = this.#rows.get(batch)
    if (row === undefined) return undefined
    const { blocks, storedStartBytes } = row
    const ends = (block: number, column: number): number => (block < 0 ? 0 : blocks[columns * block + column]!)
    let firstBlock = 0
    while (ends(firstBlock, 0) <= range.startBytes) firstBlock++
    let endBlock = firstBlock + 1
    while (ends(endBlock - 1, 0) < range.endBytes) endBlock++
    assert(columns * endBlock <= blocks.length, `batch ${batch} has a payload as long as ${range.endBytes} bytes`)
    return {
      ...{ batch, firstBlock, endBlock },
      stored: {
        startBytes: storedStartBytes + ends(firstBlock - 1, 1),
        endBytes: storedStartBytes + ends(endBlock - 1, 1),
      },
      raw: { startBytes: ends(firstBlock - 1, 0), endBytes: ends(endBlock - 1, 0) },
    }
  }

  /** The raw bytes of the run, in memory of their own; undefined where what is stored is not what was remembered. */
  restore({ batch, firstBlock, endBlock, stored, raw }: BlockRun, bytes: Uint8Array): Uint8Array | undefined {
    const row = this.#rows.get(batch)
    assert(row !== undefined && bytes.length === stored.endBytes - stored.startBytes, 'these are the bytes of the run')
    const target = Buffer.allocUnsafeSlow(raw.endBytes - raw.startBytes)
    let [rawStart, storedStart] = [raw.startBytes, stored.startBytes]
    for (let block = firstBlock; block < endBlock; block++) {
      const rawEnd = row.blocks[columns * block]!
      const storedEnd = row.storedStartBytes + row.blocks[columns * block + 1]!
      const own = bytes.subarray(storedStart - stored.startBytes, storedEnd - stored.startBytes)
      if (crc32c(own) !== row.blocks[columns * block + 2]) return undefined
      if (!restoreBlock(own, target.subarray(rawStart - raw.startBytes, rawEnd - raw.startBytes))) return undefined
      ;[rawStart, storedStart] = [rawEnd, storedEnd]
    }
    return target
  }
}
