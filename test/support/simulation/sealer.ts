import type { Pieces } from '../../../src/agent/sealing/pieces.ts'
import { frameOf, type RecordBatch, type Sealer } from '../../../src/agent/sealing/sealer.ts'
import { sealingPieceSizeBytes } from '../../../src/base/limits.ts'
import { BatchBuilder } from '../../../src/wire/wire.ts'
import type { Life } from './world.ts'

export interface SealerSettings {
  /** Of one batch, after those before it; 0: everything is sealed in line. */
  readonly delayMillisMax: number
  /** That it dies while it has a batch. */
  readonly deathShare: number
}

interface Job {
  readonly batch: RecordBatch
  readonly piece: Buffer
  readonly done: (sizeBytes: number | undefined) => void
}

const jobCountMax = 3
const awayMillis = 200
const pieceCountMax = 24

/** Pieces in which nothing of their last use can be read. */
class SimulatedPieces implements Pieces {
  leftCount = pieceCountMax

  take(): Buffer | undefined {
    if (this.leftCount === 0) return undefined
    this.leftCount--
    return Buffer.alloc(sealingPieceSizeBytes)
  }

  give(piece: Buffer): void {
    this.leftCount++
    piece.fill(0xee)
  }
}

/** Seals as the agent's thread does: one batch after another, in simulated time, of data where it lies. */
export class SimulatedSealer implements Sealer {
  readonly pieces = new SimulatedPieces()
  readonly #life: Life
  readonly #settings: SealerSettings
  readonly #builder = new BatchBuilder()
  readonly #jobs: Job[] = []
  #isAway = false

  constructor(life: Life, settings: SealerSettings) {
    this.#life = life
    this.#settings = settings
  }

  placeFor(): 'elsewhere' | 'in line' | 'later' {
    const { random } = this.#life.host.world
    if (this.#settings.delayMillisMax === 0 || this.#isAway) return 'in line'
    if (this.#jobs.length === jobCountMax) return random.chance(0.8) ? 'later' : 'in line'
    return random.chance(0.8) ? 'elsewhere' : 'in line'
  }

  seal(batch: RecordBatch, piece: Buffer, done: Job['done']): void {
    this.#life.host.world.count('a batch is sealed elsewhere')
    this.#jobs.push({ batch, piece, done })
    if (this.#jobs.length === 1) this.#work()
  }

  close(): Promise<void> {
    this.#isAway = true
    this.#jobs.length = 0
    return Promise.resolve()
  }

  #work(): void {
    const { world } = this.#life.host
    this.#life.after(world.delay(0, this.#settings.delayMillisMax), () => {
      const job = this.#jobs.shift()
      if (job === undefined) return
      if (world.random.chance(this.#settings.deathShare)) {
        this.#die(job)
        return
      }
      const { length } = frameOf(this.#builder, job.batch, sizeBytes => job.piece.subarray(0, sizeBytes))
      job.done(length)
      if (this.#jobs.length > 0) this.#work()
    })
  }

  #die(first: Job): void {
    this.#life.host.world.count('the thread that seals dies')
    this.#isAway = true
    for (const { done } of [first, ...this.#jobs.splice(0)]) done(undefined)
    this.#life.after(awayMillis, () => {
      this.#isAway = false
    })
  }
}
