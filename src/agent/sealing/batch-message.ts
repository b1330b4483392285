import type { BatchWrite, RecordBatch } from './sealer.ts'

//   doubles   field
//     0       generation
//     1       first sequence
//     2       timestamp, µs
//     3       1: hurried
//     4 ...   a write each: volume, offset, length, which piece (-1: zeros, no data), where in it

const headCount = 4
const fieldCount = 5

/** A batch as a message to another thread: numbers, and the shared memory that its data lies in. */
export interface BatchMessage {
  readonly numbers: Float64Array
  readonly memory: readonly SharedArrayBuffer[]
}

/** All data of the batch is in shared memory. */
export function toMessage({
  generation,
  firstSequence,
  timestampMicros,
  isHurried,
  writes,
}: RecordBatch): BatchMessage {
  const numbers = new Float64Array(headCount + fieldCount * writes.length)
  numbers.set([generation, firstSequence, timestampMicros, isHurried ? 1 : 0])
  const memory: SharedArrayBuffer[] = []
  let at = headCount
  for (const { volume, offsetBytes, lengthBytes, data } of writes) {
    const shared = data?.buffer as SharedArrayBuffer | undefined
    if (shared !== undefined && memory.at(-1) !== shared) memory.push(shared) // neighbours mostly lie in one piece
    numbers[at] = volume
    numbers[at + 1] = offsetBytes
    numbers[at + 2] = lengthBytes
    numbers[at + 3] = shared === undefined ? -1 : memory.length - 1
    numbers[at + 4] = data?.byteOffset ?? 0
    at += fieldCount
  }
  return { numbers, memory }
}

export function fromMessage({ numbers, memory }: BatchMessage): RecordBatch {
  const [generation = 0, firstSequence = 0, timestampMicros = 0, hurried = 0] = numbers
  const writes: BatchWrite[] = []
  for (let at = headCount; at < numbers.length; at += fieldCount) {
    const [volume = 0, offsetBytes = 0, lengthBytes = 0, index = 0, startBytes = 0] = numbers.subarray(at)
    const shared = memory[index]
    const data = shared === undefined ? undefined : new Uint8Array(shared, startBytes, lengthBytes)
    writes.push({ volume, offsetBytes, lengthBytes, data })
  }
  return { generation, firstSequence, timestampMicros, isHurried: hurried === 1, writes }
}
