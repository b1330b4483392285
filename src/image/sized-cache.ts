/** Keeps what was used last, up to a sum of sizes. */
export class SizedCache<V> {
  readonly #sizeBytesMax: number
  readonly #entries = new Map<string, { readonly value: V; readonly sizeBytes: number }>()
  #sizeBytes = 0

  constructor(sizeBytesMax: number) {
    this.#sizeBytesMax = sizeBytesMax
  }

  get(key: string): V | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    return entry.value
  }

  /** Keeps the value in place of an older one of that key; what was used longest ago goes. */
  set(key: string, value: V, sizeBytes: number): void {
    this.#drop(key)
    this.#entries.set(key, { value, sizeBytes })
    this.#sizeBytes += sizeBytes
    for (const oldest of this.#entries.keys()) {
      if (this.#sizeBytes <= this.#sizeBytesMax || oldest === key) break
      this.#drop(oldest)
    }
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    this.#entries.delete(key)
    this.#sizeBytes -= entry.sizeBytes
  }
}
