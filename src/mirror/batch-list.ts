import { Failure } from '../base/failure.ts'
import type { BatchColumns, RecordSource } from '../segment/record-source.ts'
import { Float64Column, Uint32Column } from './columns.ts'
import type { CutFinder } from './cut-finder.ts'

/** Batches of many sources, numbered from 0 as they were added; by number what each column has. */
export class BatchList {
  readonly #source = new Uint32Column()
  readonly #number = new Uint32Column()
  readonly #stream = new Uint32Column()
  readonly #generation = new Float64Column()
  readonly #sequence = new Float64Column()

  get count(): number {
    return this.#source.count
  }

  /** The index of its source. */
  get source(): Uint32Array {
    return this.#source.values()
  }

  /** Its number in the source. */
  get number(): Uint32Array {
    return this.#number.values()
  }

  /** In commit order. */
  add(source: number, number: number, batches: BatchColumns): void {
    this.#source.push(source)
    this.#number.push(number)
    this.#stream.push(batches.stream[number]!)
    this.#generation.push(batches.generation[number]!)
    this.#sequence.push(batches.firstSequence[number]!)
  }

  /**
   * Batches in order of age. They come in commit order, which is that of every stream; should a record stand twice, or late, its
   * position decides: a stream's batches take the stream's places in ascending order.
   */
  byAge(): Uint32Array {
    const stream = this.#stream.values()
    const generation = this.#generation.values()
    const sequence = this.#sequence.values()
    const compare = (a: number, b: number): number => generation[a]! - generation[b]! || sequence[a]! - sequence[b]!
    const order = new Uint32Array(stream.length)
    const newest = new Map<number, number>()
    let ascending = true
    for (let batch = 0; batch < stream.length; batch++) {
      order[batch] = batch
      const before = newest.get(stream[batch]!)
      ascending &&= before === undefined || compare(before, batch) <= 0
      newest.set(stream[batch]!, batch)
    }
    if (ascending) return order
    for (const one of newest.keys()) {
      const places = order.filter(batch => stream[batch] === one)
      const byPosition = places.slice().sort((a, b) => compare(a, b) || a - b)
      places.forEach((place, index) => (order[place] = byPosition[index]!))
    }
    return order
  }
}

/** The cut that the batch belongs to, or undefined. A marker is never inside a batch, so a batch belongs to one cut. */
export function cutOfBatch(
  source: RecordSource,
  batches: BatchColumns,
  batch: number,
  finder: CutFinder,
): number | undefined {
  if (batches.writeCount[batch] === 0) return undefined
  const stream = batches.stream[batch]!
  const generation = batches.generation[batch]!
  const firstSequence = batches.firstSequence[batch]!
  const first = finder.find(stream, generation, firstSequence)
  const last = finder.find(stream, generation, firstSequence + batches.writeCount[batch]! - 1)
  if (first !== last)
    throw new Failure('RECORD_CORRUPT', `a batch of ${source.name} lies on both sides of a checkpoint's marker`, {
      source: source.name,
      stream,
      generation,
      firstSequence,
    })
  return first === -1 ? undefined : first
}
