import { KiB } from '../../src/base/units.ts'
import { nbd, type NbdClient } from './nbd-client.ts'
import { pause } from './scenario-role.ts'
import { below, guestBytes, seededRandom } from './wire-samples.ts'

const workerCount = 4

/** A guest with a random load on one disk: overlapping writes of many sizes, zeros, trims and flushes, some at once. */
export class Guest {
  readonly failures: string[] = []
  writeCount = 0
  readonly #client: NbdClient
  readonly #random: () => number
  readonly #data: Buffer
  readonly #pauseMillis: number
  readonly #spanBytes: number
  #running = false
  #workers: Promise<void>[] = []

  /** `pauseMillis` after each request of a worker keeps the load gentle; it stays within the first `spanBytes` of the disk. */
  constructor(
    client: NbdClient,
    {
      seed,
      pauseMillis = 2,
      spanBytes = client.sizeBytes,
    }: { readonly seed: number; readonly pauseMillis?: number; readonly spanBytes?: number },
  ) {
    this.#client = client
    this.#random = seededRandom(seed)
    this.#data = guestBytes(this.#random, 512 * KiB)
    this.#pauseMillis = pauseMillis
    this.#spanBytes = spanBytes
  }

  start(): void {
    this.#running = true
    this.#workers = Array.from({ length: workerCount }, () => this.#work())
  }

  /** Returns when nothing is in flight any more: the disk stands still. */
  async rest(): Promise<void> {
    this.#running = false
    await Promise.all(this.#workers)
  }

  async runFor(writeCount: number): Promise<void> {
    const end = this.writeCount + writeCount
    this.start()
    while (this.writeCount < end && this.#running) await pause(5)
    await this.rest()
  }

  async #work(): Promise<void> {
    while (this.#running) {
      try {
        await this.#request()
        this.writeCount++
      } catch (error) {
        this.failures.push(String(error))
        this.#running = false
      }
      await pause(this.#pauseMillis)
    }
  }

  async #request(): Promise<void> {
    const random = this.#random
    const lengthBytes = 512 * (1 + below(random, random() < 0.05 ? 200 : 16))
    const sectorCount = this.#spanBytes / 512
    const offsetBytes = 512 * below(random, sectorCount - lengthBytes / 512)
    const kind = random()
    if (kind < 0.85) {
      const at = 16 * below(random, (this.#data.length - lengthBytes) / 16)
      await this.#client.write(offsetBytes, this.#data.subarray(at, at + lengthBytes))
      return
    }
    const type = kind < 0.9 ? nbd.trim : kind < 0.97 ? nbd.writeZeroes : nbd.flush
    const range = type === nbd.flush ? {} : { offsetBytes, lengthBytes }
    const answer = await this.#client.request(type, range)
    if (answer.error !== 0) throw new Error(`request ${type} failed: ${answer.error}`)
  }
}
