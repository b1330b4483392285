import { logGroupSizeBytesMax, logRecordHeaderSizeBytes } from '../base/limits.ts'
import type { RecordHeader } from './record.ts'
import { type LogDamage, type LogRecordPlace, type MissingRecords, placeOf, type RecoveredStream } from './recovered.ts'
import type { RecordPlace } from './log-file.ts'

interface StreamState {
  last: LogRecordPlace
  /** How often the chain of files had been broken when `last` came: over a break nothing is known to be missing. */
  breakCount: number
}

interface Damage {
  readonly place: RecordPlace
  readonly reason: string
  readonly missing: MissingRecords[]
}

/**
 * Holds the records of a scan against the rule that a stream has no gap inside a generation, and tells what is missing.
 * Records come in log order; stretches that cannot be read may be told before or between.
 */
export class StreamContinuity {
  readonly #streams = new Map<string, StreamState>()
  readonly #places: LogRecordPlace[] = []
  readonly #replaced = new Set<LogRecordPlace>()
  readonly #damages: Damage[] = []
  readonly #placesMax: number
  #breakCount = 0
  #placeCount = 0
  #replacedCount = 0

  /** So many places are told, the newest; the rules are held over all records. */
  constructor(placesMax: number) {
    this.#placesMax = placesMax
  }

  /** The records that follow are of the next file; `followsPrevious` is false where files between may be missing. */
  beginFile(followsPrevious: boolean): void {
    if (!followsPrevious) this.#breakCount++
  }

  damage(place: RecordPlace, reason: string): void {
    this.#damages.push({
      place: { fileIdentity: place.fileIdentity, offsetBytes: place.offsetBytes, sizeBytes: place.sizeBytes },
      reason,
      missing: [],
    })
  }

  add(header: RecordHeader): void {
    const place = placeOf(header)
    this.#follow(place)
    this.#placeCount++
    this.#places.push(place)
    const keptMax = Math.max(this.#placesMax, replaceableMax)
    if (this.#places.length >= 2 * keptMax) this.#places.splice(0, this.#places.length - keptMax)
  }

  /** A record whose header is whole and whose frame is not: its numbers are known, and used up. */
  lose(header: RecordHeader, reason: string): void {
    const place = placeOf(header)
    this.#follow(place)
    this.#damages.push({ place, reason, missing: [missingOf(place, place.firstSequence, place.lastSequence)] })
  }

  #follow(place: LogRecordPlace): void {
    const key = keyOf(place)
    const state = this.#streams.get(key)
    if (state === undefined) {
      this.#streams.set(key, { last: place, breakCount: this.#breakCount })
      return
    }
    const { last } = state
    if (last.generation === place.generation && last.epoch === place.epoch) {
      if (place.firstSequence <= last.lastSequence) this.#replace(place)
      else if (place.firstSequence > last.lastSequence + 1) {
        this.#gap(state, place, missingOf(place, last.lastSequence + 1, place.firstSequence - 1))
      }
    } else if (place.generation > last.generation && place.epoch === last.epoch && place.firstSequence > 1) {
      this.#gap(state, place, missingOf(place, 1, place.firstSequence - 1))
    }
    state.last = place
    state.breakCount = this.#breakCount
  }

  /** A group that was written again after an error stands twice: the later one counts. */
  #replace(by: LogRecordPlace): void {
    for (const last of this.#places.slice(-replaceableMax).reverse()) {
      if (last.vpg !== by.vpg || last.stream !== by.stream) continue
      if (last.generation !== by.generation || last.lastSequence < by.firstSequence) return
      if (!this.#replaced.has(last)) this.#replacedCount++
      this.#replaced.add(last)
    }
  }

  #gap(state: StreamState, found: LogRecordPlace, missing: MissingRecords): void {
    if (state.breakCount !== this.#breakCount) return
    const cause = this.#damages.find(({ place }) => isBefore(state.last, place) && isBefore(place, found))
    if (cause !== undefined) cause.missing.push(missing)
    else {
      const place = { fileIdentity: found.fileIdentity, offsetBytes: found.offsetBytes, sizeBytes: 0 }
      this.#damages.push({ place, reason: 'records before it are missing', missing: [missing] })
    }
  }

  keeps(header: RecordHeader): boolean {
    if (this.#replaced.size === 0) return true
    return ![...this.#replaced].some(
      place => place.fileIdentity === header.fileIdentity && place.offsetBytes === header.offsetBytes,
    )
  }

  records(): LogRecordPlace[] {
    return this.#places.filter(place => !this.#replaced.has(place)).slice(-this.#placesMax)
  }

  /** Records that count and are not among records(). */
  get untoldCount(): number {
    return this.#placeCount - this.#replacedCount - this.records().length
  }

  streams(): RecoveredStream[] {
    return [...this.#streams.values()].map(({ last }) => ({
      vpg: last.vpg,
      stream: last.stream,
      epoch: last.epoch,
      generation: last.generation,
      lastSequence: last.lastSequence,
    }))
  }

  /** By place. */
  damages(): LogDamage[] {
    return this.#damages
      .toSorted((a, b) => (isBefore(a.place, b.place) ? -1 : 1))
      .map(({ place, reason, missing }) => ({
        fileIdentity: place.fileIdentity,
        offsetBytes: place.offsetBytes,
        sizeBytes: place.sizeBytes,
        missing,
        sentence: sentenceOf(place, reason, missing),
      }))
  }
}

/** More records than one group can hold: only those of the newest group are ever replaced. */
const replaceableMax = Math.ceil(logGroupSizeBytesMax / logRecordHeaderSizeBytes)

function keyOf(place: LogRecordPlace): string {
  return `${place.vpg}/${place.stream}`
}

function missingOf(place: LogRecordPlace, firstSequence: number, lastSequence: number): MissingRecords {
  return { vpg: place.vpg, stream: place.stream, generation: place.generation, firstSequence, lastSequence }
}

function isBefore(a: RecordPlace, b: RecordPlace): boolean {
  return a.fileIdentity < b.fileIdentity || (a.fileIdentity === b.fileIdentity && a.offsetBytes < b.offsetBytes)
}

function sentenceOf(place: RecordPlace, reason: string, missing: readonly MissingRecords[]): string {
  const where = `log file ${place.fileIdentity}, ${place.sizeBytes} bytes at offset ${place.offsetBytes}: ${reason}`
  const whose = missing.map(
    ({ vpg, stream, generation, firstSequence, lastSequence }) =>
      `VPG ${vpg} stream ${stream} generation ${generation} sequences ${firstSequence} to ${lastSequence}`,
  )
  return whose.length === 0 ? where : `${where}; lost: ${whose.join(', ')}`
}
