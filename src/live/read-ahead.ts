import { KiB, MiB } from '../base/units.ts'
import type { VolumeRange } from '../image/image.ts'

/** Rows of reads that are followed at a time. */
const rowsMax = 8
/** Reads of a row overtake one another, by no more than this. */
const slackSizeBytes = 1 * MiB
const windowSizeBytesMin = 256 * KiB
const windowSizeBytesMax = 4 * MiB

interface Row {
  /** Where its next read would begin. */
  nextBytes: number
  /** Brought up to here. */
  aheadBytes: number
  windowSizeBytes: number
  readCount: number
  isUnderWay: boolean
}

/** Sees reads that follow one another, and brings what comes next before it is asked for; twice as much each time, up to a limit. */
export class ReadAhead {
  readonly #sizeBytes: number
  readonly #prefetch: (range: VolumeRange) => Promise<void>
  /** The one that was read last is the last. */
  #rows: Row[] = []

  constructor(sizeBytes: number, prefetch: (range: VolumeRange) => Promise<void>) {
    this.#sizeBytes = sizeBytes
    this.#prefetch = prefetch
  }

  noteRead(offsetBytes: number, lengthBytes: number): void {
    const row = this.#rowOf(offsetBytes)
    row.readCount++
    row.nextBytes = Math.max(row.nextBytes, offsetBytes + lengthBytes)
    if (row.readCount < 2 || row.isUnderWay || row.aheadBytes - row.nextBytes > row.windowSizeBytes / 2) return
    const startBytes = Math.max(row.aheadBytes, row.nextBytes)
    const endBytes = Math.min(this.#sizeBytes, startBytes + row.windowSizeBytes)
    if (startBytes >= endBytes) return
    row.aheadBytes = endBytes
    row.windowSizeBytes = Math.min(windowSizeBytesMax, 2 * row.windowSizeBytes)
    row.isUnderWay = true
    const isOver = (): void => void (row.isUnderWay = false)
    this.#prefetch({ startBytes, endBytes }).then(isOver, isOver) // what it fails with, the read of that place says
  }

  #rowOf(offsetBytes: number): Row {
    const index = this.#rows.findIndex(({ nextBytes }) => Math.abs(offsetBytes - nextBytes) <= slackSizeBytes)
    const known = this.#rows[index]
    if (known !== undefined) {
      this.#rows.splice(index, 1)
      this.#rows.push(known)
      return known
    }
    const [nextBytes, aheadBytes] = [offsetBytes, 0]
    const row = { nextBytes, aheadBytes, windowSizeBytes: windowSizeBytesMin, readCount: 0, isUnderWay: false }
    this.#rows.push(row)
    if (this.#rows.length > rowsMax) this.#rows.shift()
    return row
  }
}
