// Guest data, by generators with names, so that a figure says what it was measured with. Seeded: every run sends the same.
//
//   random      uniform bytes; nothing compresses it
//   half-zeros  of each 4 KiB the first half is random, the rest zeros, as fio makes them with buffer_compress_percentage=50:
//               half the size, and LZ4 is fast with both halves
//   zipf-text   words of a vocabulary of 2048 (4 to 12 letters), drawn with probability 1/rank, separated by spaces and line
//               ends; after every eighth word a field of 8 random base-64 characters, as logs and tables have them.
//               LZ4 makes 64 KiB of it some 2.0 times smaller, at the speed that text has, not that of zeros.

export type DataKind = 'random' | 'half-zeros' | 'zipf-text'

/** xorshift128+ would do as well; this one is short, and fast enough to fill a gigabyte. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1
  }

  /** An integer of 32 bits (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }

  below(count: number): number {
    return Math.floor((this.next() / 2 ** 32) * count)
  }
}

export class DataGenerator {
  readonly #kind: DataKind
  readonly #random: Random
  readonly #words: readonly Buffer[]

  constructor(kind: DataKind, seed: number) {
    this.#kind = kind
    this.#random = new Random(seed)
    this.#words = kind === 'zipf-text' ? vocabulary(this.#random) : []
  }

  fill(target: Buffer): void {
    if (this.#kind === 'zipf-text') this.#fillText(target)
    else this.#fillRandom(target)
    if (this.#kind === 'half-zeros') for (let at = 2048; at < target.length; at += 4096) target.fill(0, at, at + 2048)
  }

  #fillRandom(target: Buffer): void {
    for (let at = 0; at + 4 <= target.length; at += 4) target.writeUInt32LE(this.#random.next(), at)
  }

  #fillText(target: Buffer): void {
    for (let at = 0, count = 0; at < target.length; count++) {
      // Inverse of the cumulated 1/rank: rank = size ^ u.
      const rank = Math.floor(vocabularySize ** (this.#random.next() / 2 ** 32)) - 1
      at += (this.#words[rank] ?? space).copy(target, at)
      if (count % 8 === 7 && at < target.length) at += this.#field().copy(target, at)
    }
  }

  #field(): Buffer {
    const field = Buffer.allocUnsafe(6)
    field.writeUInt32LE(this.#random.next(), 0)
    field.writeUInt16LE(this.#random.next() % 65_536, 4)
    return Buffer.from(`${field.toString('base64')}${this.#random.below(8) === 0 ? '\n' : ' '}`)
  }
}

const vocabularySize = 2048
const space = Buffer.from(' ')

function vocabulary(random: Random): Buffer[] {
  return Array.from({ length: vocabularySize }, () => {
    const letters = Array.from({ length: 4 + random.below(9) }, () => 97 + Math.min(random.below(26), random.below(26)))
    return Buffer.from(`${String.fromCharCode(...letters)} `)
  })
}
