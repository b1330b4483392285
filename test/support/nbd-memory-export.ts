import type { NbdExport, NbdExtent } from '../../src/nbd/nbd.ts'

const pageSizeBytes = 4096

/** A disk in memory that keeps a page for every 4 KiB that was written, so that huge ones cost nothing. */
export class MemoryExport implements NbdExport {
  readonly name: string
  readonly description = 'a disk in memory'
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly pages = new Map<number, Uint8Array>()
  /** Called before every request is served; may wait, or throw. */
  before: (command: string) => Promise<void> = () => Promise.resolve()
  readonly calls: string[] = []

  constructor(name: string, sizeBytes: number, options: { readonly readOnly?: boolean } = {}) {
    this.name = name
    this.sizeBytes = sizeBytes
    this.readOnly = options.readOnly ?? false
  }

  async read(offsetBytes: number, target: Uint8Array): Promise<void> {
    await this.#begin('read')
    this.#eachPage(offsetBytes, target.length, (page, within, length, at) => {
      const held = this.pages.get(page)
      if (held === undefined) target.fill(0, at, at + length)
      else target.set(held.subarray(within, within + length), at)
    })
  }

  async write(offsetBytes: number, data: Uint8Array, options: { readonly fua: boolean }): Promise<void> {
    await this.#begin(options.fua ? 'write-fua' : 'write')
    this.#eachPage(offsetBytes, data.length, (page, within, length, at) => {
      const held = this.pages.get(page) ?? new Uint8Array(pageSizeBytes)
      held.set(data.subarray(at, at + length), within)
      this.pages.set(page, held)
    })
  }

  async zero(offsetBytes: number, lengthBytes: number, options: { readonly mayTrim: boolean }): Promise<void> {
    await this.#begin(options.mayTrim ? 'zero' : 'zero-no-hole')
    this.#clear(offsetBytes, lengthBytes)
  }

  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#begin('trim')
    this.#clear(offsetBytes, lengthBytes)
  }

  async flush(): Promise<void> {
    await this.#begin('flush')
  }

  async blockStatus(offsetBytes: number, lengthBytes: number): Promise<readonly NbdExtent[]> {
    await this.#begin('block-status')
    const extents: NbdExtent[] = []
    this.#eachPage(offsetBytes, Math.min(lengthBytes, 16 * 1024 * 1024), (page, _within, length) => {
      extents.push({ lengthBytes: length, kind: this.pages.has(page) ? 'data' : 'hole' })
    })
    return extents
  }

  #clear(offsetBytes: number, lengthBytes: number): void {
    const end = offsetBytes + lengthBytes
    for (const [page, held] of this.pages) {
      const start = page * pageSizeBytes
      if (start >= offsetBytes && start + pageSizeBytes <= end) this.pages.delete(page)
      else if (start < end && start + pageSizeBytes > offsetBytes)
        held.fill(0, Math.max(0, offsetBytes - start), Math.min(pageSizeBytes, end - start))
    }
  }

  #eachPage(
    offsetBytes: number,
    lengthBytes: number,
    visit: (page: number, within: number, length: number, at: number) => void,
  ): void {
    for (let at = 0; at < lengthBytes;) {
      const within = (offsetBytes + at) % pageSizeBytes
      const length = Math.min(pageSizeBytes - within, lengthBytes - at)
      visit((offsetBytes + at - within) / pageSizeBytes, within, length, at)
      at += length
    }
  }

  async #begin(command: string): Promise<void> {
    this.calls.push(command)
    await this.before(command)
  }
}
