import * as fs from 'node:fs'

/**
 * Has the disk work on what was written to a file while more is written. It promises nothing: durable is what a sync() says that
 * comes after, and a write that fails here fails there, too, as every open file is told of it.
 */
export class SyncAhead {
  readonly #descriptor: number
  #underWay: Promise<void> | undefined

  private constructor(descriptor: number) {
    this.#descriptor = descriptor
  }

  static open(file: string): SyncAhead {
    return new SyncAhead(fs.openSync(file, 'r+'))
  }

  get isUnderWay(): boolean {
    return this.#underWay !== undefined
  }

  /** Begins, unless it is under way. It waits in no thread of the caller's. */
  begin(): void {
    this.#underWay ??= new Promise(resolve => {
      fs.fdatasync(this.#descriptor, () => {
        this.#underWay = undefined
        resolve()
      })
    })
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    await this.#underWay
    fs.closeSync(this.#descriptor)
  }
}
