import { checkpointOrdinal, type Ordinal } from '../../../src/base/ids.ts'
import { decodeFrame, decompressPayload, type BatchView, type Marker } from '../../../src/wire/wire.ts'
import type { MarkedMoment, SimulatedAgent } from './agent.ts'
import { stampOf } from './guests.ts'
import { sameBytes, sectorBytes, zeroSector, type Sectors } from './volume.ts'
import type { KeptRecord } from './vra.ts'

/** Ways to look at what is right as if it were not. */
export interface CheckMutations {
  /** Images are made as if every marker stood one record later. */
  readonly movesMarkers?: boolean
  /** Every agent but the first has its marker of a checkpoint where it has that of the next one. */
  readonly tearsCuts?: boolean
}

/** What images that were handed over may have put below all records of a sector of a volume; zeros may be there in any case. */
export type MayLieBelow = (volume: number, sector: number) => readonly Uint8Array[]

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
  readonly #mayLieBelow: MayLieBelow

  constructor(agent: SimulatedAgent, mayLieBelow: MayLieBelow) {
    this.#agent = agent
    this.#mayLieBelow = mayLieBelow
    for (const { number } of agent.everyVolume) {
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
    for (const { number, name } of this.#agent.everyVolume) {
      if (!included.has(number)) continue
      const uncertain = moment.uncertain.get(number)
      for (const sector of this.#different.get(number)!) {
        const possible = this.#possible(number, sector)
        const mayBe = (bytes: Uint8Array): boolean => possible.some(each => sameBytes(each, bytes))
        if (uncertain?.get(sector)?.some(mayBe) === true) continue
        const held = possible[0]!
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
    const disk = this.#disks.get(volume)!.get(sector) ?? zeroSector
    const different = this.#different.get(volume)!
    if (this.#possible(volume, sector).some(bytes => sameBytes(bytes, disk))) different.delete(sector)
    else different.add(sector)
  }

  #possible(volume: number, sector: number): readonly Uint8Array[] {
    const held = this.#images.get(volume)!.get(sector)
    return held === undefined ? [zeroSector, ...this.#mayLieBelow(volume, sector)] : [held]
  }
}

/**
 * Fails where the records have a gap, or where an image at a marker is not what the disks held when it was numbered, or a checkpoint that
 * was told of is missing.
 */
export function checkRecords(
  records: readonly KeptRecord[],
  agent: SimulatedAgent,
  announced: Iterable<Ordinal>,
  mayLieBelow: MayLieBelow,
  mutations: CheckMutations,
): void {
  const comparison = new Comparison(agent, mayLieBelow)
  const found = new Set<Ordinal>()
  let position = { generation: 0, sequence: 0 }
  let moved: Marker | undefined
  for (const { header, frame } of records) {
    if (header.stream !== agent.stream) continue
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

/** Where a checkpoint, read from the mirror, is not what the disks held when its markers were numbered; undefined where it is. */
export function imageDifference(
  volumes: ReadonlyMap<number, Sectors>,
  ordinal: Ordinal,
  agents: readonly SimulatedAgent[],
): string | undefined {
  for (const agent of agents) {
    const own = agent.everyVolume.filter(({ number }) => volumes.has(number))
    const moments = agent.moments.get(ordinal) ?? []
    if (own.length === 0) continue
    const differences = moments.map(moment => {
      const disks = disksAt(agent, moment)
      for (const { number, name } of own) {
        const image = volumes.get(number)!
        const difference = sectorsDifference(image, disks.get(number) ?? new Map(), moment.uncertain.get(number))
        if (difference !== undefined) return `${name}, ${difference}`
      }
      return undefined
    })
    if (differences.every(difference => difference !== undefined))
      return differences[0] ?? `the marker ${ordinal} was never numbered by ${agent.host.name}`
  }
  return undefined
}

function disksAt(agent: SimulatedAgent, { changeCount }: MarkedMoment): ReadonlyMap<number, Sectors> {
  const disks = new Map<number, Sectors>(agent.everyVolume.map(({ number }) => [number, new Map()]))
  for (let index = 0; index < changeCount; index++) {
    const { volume, sector, bytes } = agent.changes[index]!
    disks.get(volume)!.set(sector, bytes)
  }
  return disks
}

function sectorsDifference(
  image: Sectors,
  disk: Sectors,
  uncertain: ReadonlyMap<number, readonly Uint8Array[]> | undefined,
): string | undefined {
  const differenceOf = (sector: number): string | undefined => {
    const [held, was] = [image.get(sector) ?? zeroSector, disk.get(sector) ?? zeroSector]
    if (sameBytes(held, was) || uncertain?.get(sector)?.some(bytes => sameBytes(bytes, held)) === true) return undefined
    return `sector ${sector}: the image has ${stampOf(held)}, the disk had ${stampOf(was)}`
  }
  for (const sector of image.keys()) {
    const difference = differenceOf(sector)
    if (difference !== undefined) return difference
  }
  for (const sector of disk.keys()) {
    const difference = image.has(sector) ? undefined : differenceOf(sector)
    if (difference !== undefined) return difference
  }
  return undefined
}

/**
 * Fails where a checkpoint has what a guest wrote on one host because of what it was answered on another, and not what it was answered.
 * Who asks after an answer may do so because of it, so every two writes tell; only those that surely stand before or behind a marker count.
 */
export function checkCuts(
  agents: readonly SimulatedAgent[],
  announced: Iterable<Ordinal>,
  mutations: CheckMutations,
): void {
  const ordinals = [...announced]
  for (const [index, ordinal] of ordinals.entries()) {
    const cuts = agents.map((agent, at) => {
      const torn = mutations.tearsCuts === true && at > 0 ? (ordinals[index + 1] ?? ordinal) : ordinal
      const moments = agent.moments.get(torn) ?? []
      // After a kill an id comes again: which of the two it is does not tell here.
      return moments.length === 1 ? cutOf(agent, moments[0]!) : undefined
    })
    for (const [at, lacking] of cuts.entries())
      for (const [other, having] of cuts.entries()) {
        if (lacking === undefined || having === undefined || lacking.firstAnsweredAfter >= having.lastAskedBefore)
          continue
        throw new Error(
          `checkpoint ${ordinal} is torn: ${agents[other]!.host.name} has a write that was asked for after ` +
            `${agents[at]!.host.name} had answered one that is not in it`,
        )
      }
  }
}

function cutOf(agent: SimulatedAgent, { step }: MarkedMoment): { firstAnsweredAfter: number; lastAskedBefore: number } {
  let [firstAnsweredAfter, lastAskedBefore] = [Infinity, -Infinity]
  for (const { answers } of agent.guests)
    for (const { askedAt, answeredAt } of answers) {
      if (askedAt > step) firstAnsweredAfter = Math.min(firstAnsweredAfter, answeredAt)
      if (answeredAt < step) lastAskedBefore = Math.max(lastAskedBefore, askedAt)
    }
  return { firstAnsweredAfter, lastAskedBefore }
}
