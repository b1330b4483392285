import { assert } from '../base/assert.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { newNonce, type PendingSegment, type VpgCommits } from '../manifest/manifest.ts'
import { SegmentBuilder, type FinishedSegment } from '../segment/segment.ts'
import type { AgingTools } from './tools.ts'
import type { UnsealedRecords } from './unsealed-records.ts'

/** The detail of a failure to build that says which unsealed record the log cannot give any more. */
export const unreadableDetail = 'unsealedIndex'

/**
 * The segment of the oldest unsealed records, as a commit that can be tried again: every attempt builds the same records
 * again, for the buffer is shared and nobody keeps 64 MiB while the store is away.
 */
export class SegmentCommit implements PendingSegment {
  readonly nonce = newNonce()
  buildMillis = 0
  readonly #tools: AgingTools
  readonly #commits: VpgCommits
  readonly #records: UnsealedRecords
  #recordCount: number | undefined
  #finished: FinishedSegment | undefined

  constructor(tools: AgingTools, commits: VpgCommits, records: UnsealedRecords) {
    this.#tools = tools
    this.#commits = commits
    this.#records = records
  }

  /** How many of the unsealed records it holds: as many as fit. Known once it was encoded. */
  get recordCount(): number {
    assert(this.#recordCount !== undefined, 'the segment was built')
    return this.#recordCount
  }

  /** True once it may have been sent: from then on it is this segment and no other. */
  get wasBuilt(): boolean {
    return this.#recordCount !== undefined
  }

  /** The bytes are valid until the shared buffer is given to another: the caller holds its permit. */
  readonly encode = async (commitNumber: number): Promise<Uint8Array> => {
    const { clock, segmentMemory, segmentSizeBytesMax, turns, frames } = this.#tools
    const startMillis = clock.monotonicMillis()
    const builder = new SegmentBuilder({
      vpg: this.#commits.vpg,
      epoch: this.#commits.brief.state.epoch,
      commitNumber,
      nonce: Buffer.from(this.nonce, 'hex'),
      createdAtMicros: clock.timestampMicros(),
      capacityBytes: segmentSizeBytesMax,
      buffer: segmentMemory.take(segmentSizeBytesMax),
    })
    const countMax = this.#recordCount ?? this.#records.count
    let index = 0
    for (; index < countMax; index++) {
      const { header, place } = this.#records.at(index)
      const full = builder.sizeBytes >= this.#tools.config.segmentSizeBytesTarget || !builder.fits(header)
      if (full && this.#recordCount === undefined) break
      await turns.yieldNow()
      try {
        builder.addFrom(header, record => frames.readUnchecked(place, record))
      } catch (error) {
        if (!failedWith(error, 'RECORD_CORRUPT') && !failedWith(error, 'NOT_FOUND')) throw error
        const details = { ...error.details, [unreadableDetail]: index }
        throw new Failure('RECORD_CORRUPT', error.message, details, { cause: error })
      }
    }
    this.#recordCount = index
    this.#finished = builder.finish()
    this.buildMillis = clock.monotonicMillis() - startMillis
    return this.#finished.body
  }

  readonly finish = (): FinishedSegment => {
    assert(this.#finished !== undefined, 'the segment was built')
    return this.#finished
  }
}
