import { comparePositions, type Position, type PositionVector, type StreamPosition } from '../base/ids.ts'
import type { SegmentSpan, StreamRange } from './state.ts'

// Positions of several streams. A stream that a vector does not name has nothing in it.

/** The vector's position in this stream, if it has one. */
export function positionIn(vector: PositionVector, stream: number): StreamPosition | undefined {
  return vector.find(position => position.stream === stream)
}

/** True when a record that ends at this position lies at or before the cut (a cut's own markers do). */
export function liesWithin(vector: PositionVector, stream: number, last: Position): boolean {
  const end = positionIn(vector, stream)
  return end !== undefined && comparePositions(last, end) <= 0
}

/** True when every position of the cut has been reached. */
export function covers(reached: readonly StreamPosition[], cut: PositionVector): boolean {
  return cut.every(position => liesWithin(reached, position.stream, position))
}

/** The vector moved on to where these ranges end; it never goes back. Ascending by stream. */
export function advanced(vector: PositionVector, ranges: readonly StreamRange[]): StreamPosition[] {
  const ends = new Map(vector.map(position => [position.stream, position]))
  for (const { stream, generation, lastSequence } of ranges) {
    const end = { stream, generation, sequence: lastSequence as StreamPosition['sequence'] }
    const before = ends.get(stream)
    if (before === undefined || comparePositions(before, end) < 0) ends.set(stream, end)
  }
  return [...ends.values()].sort((a, b) => a.stream - b.stream)
}

/** True when all the segment's records lie at or before the cut: a delta that ends there speaks for all of them. */
export function segmentLiesWithin(segment: SegmentSpan, cut: PositionVector): boolean {
  return segment.ranges.every(range =>
    liesWithin(cut, range.stream, {
      generation: range.generation,
      sequence: range.lastSequence as StreamPosition['sequence'],
    }),
  )
}

/** True when some of the segment's records lie at or before the cut. */
export function segmentStartsWithin(segment: SegmentSpan, cut: PositionVector): boolean {
  return segment.ranges.some(range =>
    liesWithin(cut, range.stream, {
      generation: range.generation,
      sequence: range.firstSequence as StreamPosition['sequence'],
    }),
  )
}
