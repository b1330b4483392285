import { Failure } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { scrubDamagedMax, scrubLineMax, scrubNoteMillis } from '../base/limits.ts'
import { damageIn, type ObjectCheck } from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { needingOf, type Needing } from '../timeline/needing.ts'
import { objectChecks } from './object-checks.ts'
import { readScrubFile, writeScrubFile, type ScrubRecord } from './scrub-file.ts'
import type { ScrubConfig, ScrubFacts } from './service.ts'
import { mayPass } from './store-patience.ts'
import type { AgingTools } from './tools.ts'
import type { VpgAging } from './vpg-aging.ts'

// Verification in the background: object after object of every VPG is read and checked to its last byte, at a rate of so many bytes a second, and again when
// that was long ago. Bytes that nobody reads decay unseen; found early, they can be restored, or sent again, while somebody still has them.
//
// A pass goes through a VPG's objects in the order of their keys and remembers the last: what is made behind it, it leaves to the next pass; what it has
// not come to when the process ends, it goes on with. Damage is told as a reader's is.

/** While the store does not answer. */
const awayMillis = 15_000
/** One that cannot be verified now has its turn again after this, behind the others. */
const putOffMillis = 300_000

type Scrubbed = Pick<VpgAging, 'vpg' | 'isDeleted' | 'writer'>

interface Needed {
  readonly key: string
  readonly needing: Needing
}

export class Scrub {
  readonly #tools: Pick<AgingTools, 'store' | 'clock' | 'disk' | 'turns' | 'notify' | 'signal'>
  readonly #config: ScrubConfig
  readonly #vpgs: ReadonlyMap<VpgId, Scrubbed>
  readonly #records: Map<VpgId, ScrubRecord>
  readonly #store: ObjectStore
  /** Of the VPG that is being verified. */
  #line: { readonly vpg: VpgId; readonly checks: ObjectCheck[] } | undefined
  readonly #needed = new Map<VpgId, readonly Needed[]>()
  readonly #putOffUntilMillis = new Map<VpgId, number>()
  #notedMillis: number

  constructor(tools: AgingTools, config: ScrubConfig, vpgs: ReadonlyMap<VpgId, Scrubbed>) {
    this.#tools = tools
    this.#config = config
    this.#vpgs = vpgs
    this.#records = readScrubFile(tools.disk, config.file)
    this.#store = slowed(tools, config.bytesPerSecond)
    this.#notedMillis = tools.clock.monotonicMillis()
  }

  factsOf(vpg: VpgId): ScrubFacts | undefined {
    const record = this.#records.get(vpg)
    if (record === undefined) return undefined
    const { last, pass } = record
    const damaged = this.#damaged(vpg, record)
    return {
      damaged: damaged.map(({ key, needing: { checkpoints, laterOnes } }) => {
        const [firstOrdinal, lastOrdinal] = [checkpoints[0], checkpoints.at(-1)]
        return { key, checkpointCount: checkpoints.length, firstOrdinal, lastOrdinal, laterOnes }
      }),
      damagedCheckpointCount: new Set(damaged.flatMap(({ needing }) => needing.checkpoints)).size,
      verifiedAtMicros: last?.atMicros,
      damagedCount: Math.max(last?.damagedCount ?? 0, pass?.damagedCount ?? 0),
      passSinceMicros: pass?.sinceMicros,
      passCheckedCount: pass?.checkedCount ?? 0,
      passCheckedSizeBytes: pass?.checkedSizeBytes ?? 0,
      checkedSizeBytes: record.checkedSizeBytes,
    }
  }

  /** What is damaged, as far as it is still needed, and by which checkpoints; of a VPG that sleeps, as it was when it was asked last. */
  #damaged(id: VpgId, { damagedKeys }: ScrubRecord): readonly Needed[] {
    const vpg = this.#vpgs.get(id)
    if (damagedKeys.length === 0 || vpg === undefined) return []
    const { writer } = vpg
    if (!writer.isAwake) return this.#needed.get(id) ?? []
    const ordinals = writer.points(writer.contents).map(({ ordinal }) => ordinal)
    const referredTo = new Set(objectChecks(writer).map(({ object }) => object.key))
    const present = damagedKeys.filter(key => referredTo.has(key))
    const needed = present.map(key => ({ key, needing: needingOf(writer.contents.state, ordinals, key) }))
    this.#needed.set(id, needed)
    return needed
  }

  /** Verifies one object, or ends a pass; false when nothing is due. Waits while the store is away. */
  async step(): Promise<boolean> {
    const vpg = this.#due()
    if (vpg === undefined) return false
    try {
      return await this.#step(vpg)
    } catch (error) {
      // It could not be woken, or was taken over: that is told where it happened.
      if (!(error instanceof Failure) || this.#tools.signal.aborted) throw error
      this.#putOffUntilMillis.set(vpg.vpg, this.#tools.clock.monotonicMillis() + putOffMillis)
      return true
    }
  }

  async #step(vpg: Scrubbed): Promise<boolean> {
    const record = this.#recordOf(vpg.vpg)
    const pass = (record.pass ??= {
      ...{ sinceMicros: this.#tools.clock.timestampMicros(), afterKey: '' },
      ...{ checkedCount: 0, checkedSizeBytes: 0, damagedCount: 0 },
    })
    const check = await this.#next(vpg, pass.afterKey)
    if (check === undefined) {
      record.last = { atMicros: this.#tools.clock.timestampMicros(), damagedCount: pass.damagedCount }
      record.pass = undefined
      this.#note()
      return true
    }
    const damagedCount = await this.#verify(vpg, check)
    if (damagedCount === undefined) {
      this.#line?.checks.unshift(check) // it is not verified, so nothing behind it is
      return true
    }
    pass.afterKey = check.object.key
    pass.checkedCount++
    pass.damagedCount += damagedCount
    const others = record.damagedKeys.filter(key => key !== check.object.key)
    if (damagedCount === 0) this.#tellWhole(vpg, check.object.key, record)
    record.damagedKeys = damagedCount === 0 ? others : [...others, check.object.key].slice(-scrubDamagedMax)
    for (const counted of [pass, record]) counted.checkedSizeBytes += check.object.sizeBytes
    if (this.#tools.clock.monotonicMillis() - this.#notedMillis >= scrubNoteMillis) this.#note()
    return true
  }

  /** What waits for it to be mended goes on. */
  #tellWhole({ vpg, writer }: Scrubbed, key: string, { damagedKeys }: ScrubRecord): void {
    writer.foundWhole(key)
    if (damagedKeys.includes(key)) this.#tools.notify('damageMended', { vpg, what: key })
  }

  /** 1 where the object is damaged, 0 where it is whole or needed no more; undefined where the store could not say. */
  async #verify(vpg: Scrubbed, check: ObjectCheck): Promise<0 | 1 | undefined> {
    const { clock, notify, signal } = this.#tools
    try {
      const findings = await damageIn(check, this.#store, signal)
      if (findings.length === 0 || !(await this.#isReferredTo(vpg, check.object.key))) return 0
      for (const { key, sentence, affects } of findings)
        notify('damageFound', { vpg: vpg.vpg, sentence: `${key}: ${sentence}; affects ${affects}` })
      return 1
    } catch (error) {
      if (!(error instanceof Failure) || !mayPass(error) || signal.aborted) throw error
      await clock.sleep(awayMillis, signal)
      return undefined
    }
  }

  /** The one whose pass is under way, or else whose last is the longest ago and long enough. */
  #due(): Scrubbed | undefined {
    const before = this.#tools.clock.timestampMicros() - this.#config.intervalMillis * 1000
    const order = (vpg: Scrubbed): number => {
      const record = this.#records.get(vpg.vpg)
      return record?.pass === undefined ? (record?.last?.atMicros ?? -Number.MAX_VALUE) : -Infinity
    }
    // Where a manifest is damaged, that has been told.
    const nowMillis = this.#tools.clock.monotonicMillis()
    const isReadable = ({ vpg, isDeleted, writer }: Scrubbed): boolean =>
      !isDeleted &&
      writer.halted === undefined &&
      (writer.isAwake || writer.mergingHalted === undefined) &&
      (this.#putOffUntilMillis.get(vpg) ?? 0) <= nowMillis
    const open = [...this.#vpgs.values()].filter(isReadable)
    const due = open.filter(vpg => order(vpg) <= before)
    return due.reduce<Scrubbed | undefined>(
      (first, vpg) => (first === undefined || order(vpg) < order(first) ? vpg : first),
      undefined,
    )
  }

  async #next(vpg: Scrubbed, afterKey: string): Promise<ObjectCheck | undefined> {
    if (this.#line?.vpg !== vpg.vpg || this.#line.checks.length === 0) {
      const checks = (await allChecks(vpg)).filter(({ object }) => object.key > afterKey)
      checks.sort((a, b) => (a.object.key < b.object.key ? -1 : 1))
      this.#line = { vpg: vpg.vpg, checks: checks.slice(0, scrubLineMax) }
    }
    return this.#line.checks.shift()
  }

  async #isReferredTo(vpg: Scrubbed, key: string): Promise<boolean> {
    return (await allChecks(vpg)).some(({ object }) => object.key === key)
  }

  #recordOf(vpg: VpgId): ScrubRecord {
    const known = this.#records.get(vpg)
    if (known !== undefined) return known
    const begun: ScrubRecord = { last: undefined, pass: undefined, damagedKeys: [], checkedSizeBytes: 0 }
    this.#records.set(vpg, begun)
    return begun
  }

  #note(): void {
    this.#notedMillis = this.#tools.clock.monotonicMillis()
    for (const vpg of this.#records.keys()) {
      if (this.#vpgs.has(vpg)) continue
      this.#records.delete(vpg)
      this.#needed.delete(vpg)
      this.#putOffUntilMillis.delete(vpg)
    }
    writeScrubFile(this.#tools.disk, this.#config.file, this.#records)
  }
}

async function allChecks(vpg: Scrubbed): Promise<ObjectCheck[]> {
  return await vpg.writer.awakeBriefly(async () => objectChecks(vpg.writer))
}

/** Reads no more than so many bytes a second on the average, and stands back when aging has to. */
function slowed(
  { store, clock, turns, signal }: Pick<AgingTools, 'store' | 'clock' | 'turns' | 'signal'>,
  bytesPerSecond: number,
): ObjectStore {
  let freeMillis = 0
  return {
    ...{ create: store.create.bind(store), list: store.list.bind(store), remove: store.remove.bind(store) },
    readRange: async (key, range, each, spare) => {
      await turns.yieldNow()
      const nowMillis = clock.monotonicMillis()
      if (freeMillis > nowMillis) await clock.sleep(freeMillis - nowMillis, signal)
      freeMillis = Math.max(freeMillis, nowMillis) + ((range.endBytes - range.startBytes) * 1000) / bytesPerSecond
      return await store.readRange(key, range, each, spare)
    },
    close: async () => undefined,
  }
}
