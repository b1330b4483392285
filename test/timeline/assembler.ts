import t from 'tap'
import { CheckpointAssembler, type DurableMarker } from '../../src/timeline/assembler.ts'

function marker(stream: number, counter: number): DurableMarker {
  const at = { stream, generation: 1, sequence: counter, term: 1, counter }
  return { ...at, timestampMicros: counter, historyMillis: counter, participants: [1, 2], volumes: [] }
}

t.test('a stream that is hours behind costs the checkpoints that are given up, not those after them', async t => {
  const assembler = new CheckpointAssembler()
  for (let counter = 1; counter <= 100; counter++) assembler.add(marker(1, counter))
  const complete: number[] = []
  for (let counter = 1; counter <= 100; counter++) {
    if (assembler.add(marker(2, counter)) !== undefined) complete.push(counter)
  }
  t.strictSame(
    complete,
    Array.from({ length: 64 }, (_, index) => 37 + index),
  )
})
