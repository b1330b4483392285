import type { ImagePlan } from '../../src/aging/service.ts'
import { Failure } from '../../src/base/failure.ts'
import { checkpointOrdinal, sequence, vpgId } from '../../src/base/ids.ts'
import { Recoveries, type Writers, type RecoveryOrder } from '../../src/recovery/recovery.ts'
import type { RecoveredThing, RecoveryTarget, TargetContext, TargetPlan } from '../../src/recovery/target.ts'
import type { Checkpoint, Pin } from '../../src/timeline/checkpoint.ts'
import type { VpgDefinition } from '../../src/timeline/definition.ts'
import { hasEnded, pinOf, withRecovery, type RecoveryRecord } from '../../src/timeline/recovery.ts'
import { openedVpg } from './opened-vpg.ts'
import { ManualClock } from './wire-manual-clock.ts'

// Recoveries in a world that outlives their processes: what the store holds, and what a target has created. A process dies at any step that can be seen from
// outside, before it has its effect or after; then nothing of it goes on, and another one begins with what the store holds.

export const definition: VpgDefinition = {
  ...openedVpg().definition,
  id: vpgId('ab'.repeat(16)),
  volumes: [
    { number: 1, name: 'root', sizeBytes: 4096, stream: 1 },
    { number: 2, name: 'data', sizeBytes: 8192, stream: 1 },
    { number: 3, name: 'logs', sizeBytes: 8192, stream: 1, vm: 'db1' },
  ],
}

export const checkpoint: Checkpoint = {
  ordinal: checkpointOrdinal(3, 1204),
  timestampMicros: 1_790_000_000_000_000,
  historyMillis: 5000,
  vector: [{ stream: 1, generation: 1, sequence: sequence(7) }],
  volumes: definition.volumes.map(({ number, sizeBytes }) => ({ number, sizeBytes, included: true })),
}

/** What is there of a recovery on its target. */
interface Created {
  readonly id: string
  readonly token: string
  isKept: boolean
}

/** What the world makes of a step: it works, or the process dies at it. */
export type StepFate = 'works' | 'dies-before' | 'dies-after'

export class RecoveryWorld {
  readonly clock = new ManualClock()
  /** In the store. */
  records: readonly RecoveryRecord[] = []
  pins: readonly Pin[] = []
  /** On the target. */
  created: Created[] = []
  isDrained = false
  incarnation = definition.incarnation
  /** Everything that was seen, in order. */
  readonly steps: string[] = []
  /** What is broken: an invariant that did not hold. */
  readonly broken: string[] = []
  /** Of the process that is there. */
  life = 0
  stepCount = 0
  /** Sentences of trouble, by life. */
  readonly troubles: string[] = []
  /** Recoveries of which the target was to look for what they left. */
  readonly swept: string[] = []
  #target: WorldTarget | undefined
  #hasDied: () => void = () => undefined
  died: Promise<void> = Promise.resolve()

  /** Which fate the step of this number meets. */
  fateOf: (step: number, name: string) => StepFate = () => 'works'
  /** What a call of the target fails with, by its name; counts down. */
  readonly failing = new Map<string, { count: number; failure: Failure }>()
  /** Calls of the target that wait until they are told, by name. */
  readonly held = new Set<string>()

  /** Another process, with what the store holds. The one before it is dead. */
  start(): Recoveries {
    this.life++
    this.died = new Promise(resolve => (this.#hasDied = resolve))
    const life = this.life
    const engine = new Recoveries({
      aging: this.#aging(life),
      clock: this.clock,
      targets: [(this.#target = new WorldTarget(this, life))],
      writers: this.#writers(life),
      events: {
        recoveryChanged: (_, { id, state }) => this.note(`${id} is ${state}`),
        recoveryInTrouble: (_, __, sentence) => void this.troubles.push(sentence),
      },
    })
    engine.serve(definition.id, this.records, () => definition)
    return engine
  }

  note(step: string): void {
    this.steps.push(`${this.life}: ${step}`)
  }

  expect(isRight: boolean, sentence: string): void {
    if (!isRight) this.broken.push(`${sentence}\n    ${this.steps.join('\n    ')}`)
  }

  record(id: string): RecoveryRecord | undefined {
    return this.records.find(record => record.id === id)
  }

  /** A step that is seen from outside. A dead process never returns from one. */
  async step<T>(life: number, name: string, effect: () => T): Promise<T> {
    const fate = life === this.life ? this.fateOf(this.stepCount++, name) : 'dies-before'
    if (fate === 'dies-before') return await this.#die(life, `dies before ${name}`)
    await new Promise(resolve => setImmediate(resolve))
    if (life !== this.life) return await this.#die(life, `dies before ${name}`)
    this.note(name)
    const result = effect()
    if (fate === 'dies-after') return await this.#die(life, `dies after ${name}`)
    return result
  }

  async #die(life: number, how: string): Promise<never> {
    if (life === this.life) {
      this.note(how)
      this.life++ // whatever else of it is under way finds itself dead
      this.#hasDied()
    }
    return await new Promise<never>(() => undefined)
  }

  failIfTold(name: string): void {
    const failing = this.failing.get(name)
    if (failing === undefined || failing.count === 0) return
    failing.count--
    throw failing.failure
  }

  /** By the process that lives. */
  isServed(id: string): boolean {
    return this.#target?.live.has(id) === true
  }

  /** Until the condition holds; the clock goes on while nothing else does. */
  async until(condition: () => boolean, advanceMillis = 500): Promise<boolean> {
    for (let turn = 0; turn < 4000; turn++) {
      if (condition()) return true
      await new Promise(resolve => setImmediate(resolve))
      if (turn % 20 === 19) await this.clock.advance(advanceMillis)
    }
    return false
  }

  #aging(life: number): ConstructorParameters<typeof Recoveries>[0]['aging'] {
    return {
      putRecovery: async ({ record }) =>
        await this.step(life, `put ${record.state} ${JSON.stringify(record.memory)}`, () => {
          this.failIfTold('put')
          const before = this.record(record.id)
          const isOfService = before?.state === 'committed' && record.isServiceEnded === true
          this.expect(
            before === undefined || !hasEnded(before) || isOfService,
            `${record.id} has ended, and is put again`,
          )
          const kept = withRecovery({ recoveries: this.records, pins: this.pins }, asStored(record))
          this.records = kept.recoveries
          this.pins = kept.pins
          this.expect(
            JSON.stringify(this.pins) === JSON.stringify(this.records.flatMap(pinOf)),
            'pins are those of the records',
          )
        }),
      dataSizes: async () =>
        await this.step(life, 'dataSizes', () =>
          definition.volumes.map(({ number: volume, sizeBytes }) => ({
            volume,
            sizeBytes,
            dataSizeBytes: sizeBytes / 2,
          })),
        ),
      openImage: async ({ checkpoint: at }) =>
        await this.step(life, 'openImage', () => {
          this.expect(
            this.pins.some(pin => pin.ordinal === at.ordinal),
            'an image is opened of a checkpoint that is pinned',
          )
          return { pinId: 'p', checkpoint: at } as ImagePlan
        }),
      closeImage: async () => await this.step(life, 'closeImage', () => undefined),
    }
  }

  #writers(life: number): Writers {
    return {
      drain: async () =>
        await this.step(life, 'drain', () => {
          this.failIfTold('drain')
          this.isDrained = true
          return { ...checkpoint, ordinal: checkpointOrdinal(3, 9999) }
        }),
      undrain: async () => await this.step(life, 'undrain', () => void (this.isDrained = false)),
      handOver: async (_, incarnation) =>
        await this.step(life, 'handOver', () => {
          this.failIfTold('handOver')
          this.expect(
            this.created.every(each => each.isKept),
            'machines are handed over that are not kept yet',
          )
          this.incarnation = incarnation
        }),
    }
  }
}

/** As it comes back from the store. */
function asStored(record: RecoveryRecord): RecoveryRecord {
  return JSON.parse(JSON.stringify(record)) as RecoveryRecord
}

/** Creates a thing a volume; its name is decided, and durable, before it is created. */
class WorldTarget implements RecoveryTarget {
  readonly kind = 'raw'
  readonly sweep = ({ id }: RecoveryRecord): void => void this.#world.swept.push(id)
  readonly #world: RecoveryWorld
  readonly #life: number
  /** What this process serves. */
  readonly live = new Set<string>()

  constructor(world: RecoveryWorld, life: number) {
    this.#world = world
    this.#life = life
  }

  async plan(): Promise<TargetPlan> {
    return await this.#step('plan', () => ({ settings: {}, copySizeBytes: 1, expectedMillis: 1, remarks: [] }))
  }

  async prepare(context: TargetContext): Promise<void> {
    const { id } = context.record
    const plan = await context.openPlan()
    for (const volume of context.record.vms.flatMap(vm => vm.volumes)) {
      const token = `${id}/${volume}`
      if (!tokensOf(context.record).includes(token)) await context.remember([...tokensOf(context.record), token])
      await this.#step(`create ${volume}`, () => {
        const durable = this.#expectState(id, 'preparing')
        this.#world.expect(tokensOf(durable).includes(token), 'what is created is remembered first')
        if (!this.#world.created.some(each => each.token === token))
          this.#world.created.push({ id, token, isKept: false })
      })
      context.progress(volume, 1, 2)
      while (this.#world.held.has('prepare')) {
        context.signal.throwIfAborted()
        await new Promise(resolve => setImmediate(resolve))
      }
      context.signal.throwIfAborted()
    }
    this.live.add(id)
    await context.release(plan)
  }

  async resume({ record }: TargetContext): Promise<void> {
    await this.#step('resume', () => {
      const { state, isServiceEnded, handOver } = this.#world.record(record.id) ?? {}
      const isHandedOver = state === 'committing' && handOver === 'begun'
      this.#world.expect(state === 'ready' || state === 'committed' || isHandedOver, `resumed when ${state}`)
      this.#world.expect(isServiceEnded !== true, 'it is served again')
      this.live.add(record.id)
    })
  }

  async commit({ record: { id } }: TargetContext): Promise<void> {
    await this.#step('commit', () => {
      this.#expectState(id, 'committing')
      for (const each of this.#world.created) if (each.id === id) each.isKept = true
    })
  }

  async endService({ record: { id } }: TargetContext): Promise<void> {
    await this.#step('end service', () => {
      const durable = this.#expectState(id, 'committed')
      this.#world.expect(durable.isServiceEnded === true, 'its end is in the record first')
      this.live.delete(id)
    })
  }

  async remove({ record: { id } }: TargetContext): Promise<void> {
    for (const { token } of this.#world.created.filter(each => each.id === id))
      await this.#step(`remove ${token}`, () => {
        this.#expectState(id, 'removing')
        this.#world.created = this.#world.created.filter(each => each.token !== token)
      })
    await this.#step('removed', () => void this.live.delete(id))
  }

  things(record: RecoveryRecord): readonly RecoveredThing[] {
    return tokensOf(record).map(place => ({ vm: 'a', volume: 1, kind: 'file', place }))
  }

  async close(): Promise<void> {
    this.live.clear()
  }

  #expectState(id: string, state: RecoveryRecord['state']): RecoveryRecord {
    const durable = this.#world.record(id)
    this.#world.expect(
      durable?.state === state,
      `the store says ${durable?.state}, and what is done belongs to ${state}`,
    )
    return durable as RecoveryRecord
  }

  async #step<T>(name: string, effect: () => T): Promise<T> {
    return await this.#world.step(this.#life, name, () => {
      this.#world.failIfTold(name)
      return effect()
    })
  }
}

function tokensOf({ memory }: RecoveryRecord): string[] {
  return (memory ?? []) as string[]
}

export function orderOf(kind: RecoveryOrder['kind'], changes: Partial<RecoveryOrder> = {}): RecoveryOrder {
  return {
    kind,
    definition,
    checkpoint,
    vms: [
      { name: 'a', volumes: [1, 2] },
      { name: 'db1', volumes: [3] },
    ],
    target: { kind: 'raw', settings: {} },
    commitPolicy: { kind: 'none', afterMillis: 3_600_000 },
    ...changes,
  }
}
