import * as path from 'node:path'
import { ordinal, sequence, type Ordinal, type StreamPosition, type VpgId } from '../../src/base/ids.ts'
import { Catalog, type CatalogEvents, type CheckpointQuery, type TailRow } from '../../src/catalog/catalog.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import type { SegmentSpan } from '../../src/timeline/state.ts'

/** Keeps what it is told. */
export class HeardEvents implements CatalogEvents {
  readonly begunAnew: string[] = []
  readonly failures: string[] = []
  droppedCount = 0

  catalogBegunAnew(reason: string): void {
    this.begunAnew.push(reason)
  }
  tailRowsDropped(count: number): void {
    this.droppedCount += count
  }
  catalogFailing(sentence: string): void {
    this.failures.push(sentence)
  }
}

/** Checkpoint number n: every label is 5 s after the one before it. */
export function checkpointNumber(number: number): Checkpoint {
  return {
    ordinal: ordinalOf(number),
    timestampMicros: labelOf(number),
    historyMillis: number * 5000,
    vector: [{ stream: 1, generation: 1, sequence: sequence(number * 40) }],
    volumes: [
      { number: 1, sizeBytes: 2 ** 40, included: true },
      { number: 2, sizeBytes: 4096, included: number % 2 === 0 },
    ],
  }
}

export function ordinalOf(number: number): Ordinal {
  return ordinal(3 * 2 ** 32 + number)
}

export function labelOf(number: number): number {
  return 1_700_000_000_000_000 + number * 5_000_000
}

export function checkpointNumbers(first: number, last: number): Checkpoint[] {
  return Array.from({ length: last - first + 1 }, (_, index) => checkpointNumber(first + index))
}

/** Batches of 10 records each, the first one at 1. */
export function tailRows(vpg: VpgId, count: number, stream = 1, generation = 1): TailRow[] {
  return Array.from({ length: count }, (_, index) => ({
    vpg,
    stream,
    generation,
    firstSequence: index * 10 + 1,
    lastSequence: index * 10 + 10,
    timestampMicros: labelOf(index),
    fileIdentity: 2 ** 40 + 1,
    offsetBytes: index * 4096,
    sizeBytes: 4000,
  }))
}

export function position(stream: number, generation: number, at: number): StreamPosition {
  return { stream, generation, sequence: sequence(at) }
}

export function segmentSpan(commitNumber: number, firstSequence: number, lastSequence: number): SegmentSpan {
  return {
    kind: 'segment',
    commitNumber,
    object: { key: `segment-${commitNumber}`, sizeBytes: 1000 },
    footerOffsetBytes: 500,
    footerSizeBytes: 500,
    ranges: [{ stream: 1, generation: 1, firstSequence, lastSequence }],
    writeCount: 10,
    rawSizeBytes: 40960,
    firstOrdinal: ordinal(0),
    lastOrdinal: ordinal(0),
  }
}

/** A catalog in a file of its own, closed after the test. */
export async function openedCatalog(
  t: { testdir(): string; teardown(close: () => Promise<void>): void },
  file = path.join(t.testdir(), 'index.sqlite'),
) {
  const events = new HeardEvents()
  const catalog = await Catalog.open({ file, events })
  t.teardown(() => catalog.close())
  return { catalog, events, file }
}

/** The ordinals of all pages of a listing. */
export async function everyPage(catalog: Catalog, query: Omit<CheckpointQuery, 'limit' | 'after'>): Promise<Ordinal[]> {
  const found: Ordinal[] = []
  for (;;) {
    const after = found.at(-1)
    const page = await catalog.listCheckpoints({ ...query, limit: 1000, ...(after === undefined ? {} : { after }) })
    for (const checkpoint of page.checkpoints) found.push(checkpoint.ordinal)
    if (!page.more) return found
  }
}
