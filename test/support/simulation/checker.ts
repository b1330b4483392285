import type { Ordinal } from '../../../src/base/ids.ts'
import { checkpointOrdinal } from '../../../src/base/ids.ts'
import { decodeFrame, decompressPayload, type BatchView, type Marker } from '../../../src/wire/wire.ts'
import type { MarkedMoment, SimulatedAgent } from './agent.ts'
import { stampOf } from './guests.ts'
import { sameBytes, sectorBytes, zeroSector, type Sectors } from './volume.ts'
import type { KeptRecord } from './vra.ts'

/** A mutation: images are made as if every marker stood one record later. */
export interface CheckMutations {
  readonly movesMarkers?: boolean
}

/**
 * Makes the images that the VRA's records make, and holds them against what the disks held. Two sets of disks go side by side, one through
 * the records and one through the disks' changes; only where they differ is looked at.
 */
class Comparison {
  readonly #agent: SimulatedAgent
  readonly #images = new Map<number, Sectors>()
  #disks = new Map<number, Sectors>()
  #changeCount = 0
  readonly #different = new Map<number, Set<number>>()

  constructor(agent: SimulatedAgent) {
    this.#agent = agent
    for (const { number } of agent.volumes) {
      this.#images.set(number, new Map())
      this.#disks.set(number, new Map())
      this.#different.set(number, new Set())
    }
  }

  apply(batch: BatchView): void {
    const payload = new Uint8Array(batch.rawSizeBytes)
    if (!decompressPayload(batch, payload)) throw new Error('a kept batch does not decompress')
    let at = 0
    for (let index = 0; index < batch.writeCount; index++) {
      const volume = batch.volume(index)
      const firstSector = batch.offsetBytes(index) / sectorBytes
      const count = batch.lengthBytes(index) / sectorBytes
      for (let sector = 0; sector < count; sector++) {
        const bytes = batch.isZero(index) ? zeroSector : payload.subarray(at, (at += sectorBytes))
        this.#images.get(volume)!.set(firstSector + sector, bytes)
        this.#compare(volume, firstSector + sector)
      }
    }
  }

  /** Where an image is not what the disks in the checkpoint were at that moment; undefined where they are equal. */
  differenceAt(moment: MarkedMoment, included: ReadonlySet<number>): string | undefined {
    this.#goTo(moment.changeCount)
    for (const { number, name } of this.#agent.volumes) {
      if (!included.has(number)) continue
      const uncertain = moment.uncertain.get(number)
      for (const sector of this.#different.get(number)!) {
        const held = this.#images.get(number)!.get(sector) ?? zeroSector
        if (uncertain?.get(sector)?.some(bytes => sameBytes(bytes, held)) === true) continue
        const was = this.#disks.get(number)!.get(sector) ?? zeroSector
        return `${name}, sector ${sector}: the image has ${stampOf(held)}, the disk had ${stampOf(was)}`
      }
    }
    return undefined
  }

  #goTo(changeCount: number): void {
    if (changeCount < this.#changeCount) {
      for (const [number, sectors] of this.#disks) {
        const touched = [...sectors.keys()]
        sectors.clear()
        for (const sector of touched) this.#compare(number, sector)
      }
      this.#changeCount = 0
    }
    for (; this.#changeCount < changeCount; this.#changeCount++) {
      const { volume, sector, bytes } = this.#agent.changes[this.#changeCount]!
      this.#disks.get(volume)!.set(sector, bytes)
      this.#compare(volume, sector)
    }
  }

  #compare(volume: number, sector: number): void {
    const image = this.#images.get(volume)!.get(sector) ?? zeroSector
    const disk = this.#disks.get(volume)!.get(sector) ?? zeroSector
    const different = this.#different.get(volume)!
    if (sameBytes(image, disk)) different.delete(sector)
    else different.add(sector)
  }
}

/**
 * Fails where the records have a gap, or where an image at a marker is not what the disks held when it was numbered, or a checkpoint that
 * was told of is missing.
 */
export function checkRecords(
  records: readonly KeptRecord[],
  agent: SimulatedAgent,
  announced: readonly Ordinal[],
  mutations: CheckMutations = {},
): void {
  const comparison = new Comparison(agent)
  const found = new Set<Ordinal>()
  let position = { generation: 0, sequence: 0 }
  let labelMicros = 0
  let moved: Marker | undefined
  for (const { header, frame } of records) {
    const { generation, firstSequence, lastSequence } = header
    const isNext =
      generation === position.generation
        ? firstSequence === position.sequence + 1
        : generation > position.generation && firstSequence === 1
    if (!isNext)
      throw new Error(`${generation}/${firstSequence} follows ${position.generation}/${position.sequence} at the VRA`)
    position = { generation, sequence: lastSequence }
    const message = decodeFrame(frame)
    if (message.type === 'write-batch') {
      comparison.apply(message)
      if (moved !== undefined) checkMoment(comparison, agent, moved)
      moved = undefined
      continue
    }
    if (message.type !== 'marker') throw new Error(`a ${message.type} was kept`)
    const ordinal = checkpointOrdinal(message.term, message.counter)
    if (found.has(ordinal)) throw new Error(`the marker ${ordinal} stands twice`)
    found.add(ordinal)
    if (header.timestampMicros <= labelMicros) throw new Error(`the label of ${ordinal} does not rise`)
    labelMicros = header.timestampMicros
    if (mutations.movesMarkers === true) moved = message
    else checkMoment(comparison, agent, message)
  }
  for (const ordinal of announced) if (!found.has(ordinal)) throw new Error(`the checkpoint ${ordinal} is lost`)
}

/** A marker's id comes again where an agent was killed before the VRA had heard of the first. */
function checkMoment(comparison: Comparison, agent: SimulatedAgent, { term, counter, volumes }: Marker): void {
  const ordinal = checkpointOrdinal(term, counter)
  const moments = agent.moments.get(ordinal)
  if (moments === undefined) throw new Error(`the marker ${ordinal} was never numbered`)
  const included = new Set(volumes.filter(volume => volume.included).map(({ number }) => number))
  const differences = moments.map(moment => comparison.differenceAt(moment, included))
  if (differences.every(difference => difference !== undefined))
    throw new Error(`checkpoint ${ordinal} is not what the disks were: ${differences[0]}`)
}
