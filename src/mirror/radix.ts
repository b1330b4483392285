const digitBits = 11
/** Below this, clearing the digits' counters costs more than sorting by hand. */
const insertionCountMax = 64
const digitCount = 2 ** digitBits

/** Bits, not arithmetic: keys are 32 bits wide by their type, and this is the innermost line of every sort. */
function digitOf(key: number, shift: number): number {
  return (key >>> shift) & (digitCount - 1)
}

/** Stable order of `count` keys, as their numbers, least significant digit first. `order` and `spare` hold the answer and a copy. */
export function radixOrder(keys: Uint32Array, count: number, order: Uint32Array, spare: Uint32Array): Uint32Array {
  let largest = 0
  let sorted = true
  for (let index = 0; index < count; index++) {
    const key = keys[index]!
    if (index > 0 && key < keys[index - 1]!) sorted = false
    if (key > largest) largest = key
    order[index] = index
  }
  if (sorted) return order
  if (count <= insertionCountMax) return insertionOrder(keys, count, order)
  let from = order
  let to = spare
  const next = new Uint32Array(digitCount)
  for (let shift = 0; shift < 32 && largest >= 2 ** shift; shift += digitBits) {
    next.fill(0)
    for (let index = 0; index < count; index++) next[digitOf(keys[index]!, shift)]!++
    let sum = 0
    for (let digit = 0; digit < digitCount; digit++) {
      const size = next[digit]!
      next[digit] = sum
      sum += size
    }
    for (let index = 0; index < count; index++) {
      const id = from[index]!
      to[next[digitOf(keys[id]!, shift)]!++] = id
    }
    ;[from, to] = [to, from]
  }
  return from
}

function insertionOrder(keys: Uint32Array, count: number, order: Uint32Array): Uint32Array {
  for (let index = 1; index < count; index++) {
    const key = keys[index]!
    let at = index
    for (; at > 0 && keys[order[at - 1]!]! > key; at--) order[at] = order[at - 1]!
    order[at] = index
  }
  return order
}
