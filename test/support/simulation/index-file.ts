import type { Ordinal, VpgId } from '../../../src/base/ids.ts'
import type { Catalog } from '../../../src/catalog/catalog.ts'
import { openCatalogFile } from '../../../src/catalog/catalog-file.ts'
import { CatalogTables } from '../../../src/catalog/catalog-tables.ts'
import type { CatalogNote } from '../../../src/catalog/service.ts'
import type { Checkpoint } from '../../../src/timeline/checkpoint.ts'
import type { Life } from './world.ts'

// The journal index of an appliance: the real tables, and around them what the thread of the index and its client do. The file is the list of
// the transactions that were made, in their order: whoever opens it makes them again, and a power cut takes the last of them away.

type Operation = (tables: CatalogTables) => Generator<void, void>

/** What the daemon calls; rows of the log's tail are of no concern here. */
export type CatalogCalls = Pick<
  Catalog,
  | 'addCheckpoints'
  | 'addSegment'
  | 'dropCheckpoints'
  | 'dropCheckpointsAbove'
  | 'dropSegments'
  | 'flush'
  | 'keepNotes'
  | 'loadVpg'
  | 'thinCheckpoints'
>

const flushIntervalMillis = 200
const lostTransactionCountMax = 40

/** One for all: of SQLite's databases nothing is ever given back. Only one index is open at a time, and begun anew by who opens it. */
let shared: ReturnType<typeof openCatalogFile>['database'] | undefined
const tableNames = ['note', 'leftover', 'vpg', 'tail', 'volumeList', 'checkpoint', 'segment', 'segmentRange']
const emptied = `${tableNames.map(name => `DELETE FROM ${name};`).join(' ')} UPDATE counter SET next = 1;`

function emptyTables(): CatalogTables {
  shared ??= openCatalogFile(':memory:').database
  shared.exec(emptied)
  return new CatalogTables(shared)
}

export class SimulatedIndexFile {
  /** An entry a transaction; those of one operation have its function, in their order, maybe with others in between. */
  #transactions: Operation[] = []

  /** Only what a power cut may take is taken: the last transactions. */
  losePower(life: Life): void {
    const { random } = life.host.world
    if (random.chance(0.5)) return
    const count = random.integer(0, Math.min(lostTransactionCountMax, this.#transactions.length))
    this.#transactions.length -= count
  }

  /** Deleted, or set aside as damaged. */
  lose(): void {
    this.#transactions = []
  }

  /** As the thread finds it. */
  open(life: Life): SimulatedCatalog {
    const tables = emptyTables()
    const running = new Map<Operation, Generator<void, void>>()
    for (const operation of this.#transactions) stepOf(running, operation, tables)
    for (const _ of tables.clearLeftovers()); // and what a load had begun
    return new SimulatedCatalog(life, tables, operation => this.#transactions.push(operation))
  }
}

/** True where it was the last. */
function stepOf(running: Map<Operation, Generator<void, void>>, operation: Operation, tables: CatalogTables): boolean {
  const steps = running.get(operation) ?? operation(tables)
  running.set(operation, steps)
  return steps.next().done === true
}

export class SimulatedCatalog implements CatalogCalls {
  readonly notes: readonly CatalogNote[]
  readonly #life: Life
  readonly #tables: CatalogTables
  readonly #made: (operation: Operation) => void
  #waiting: { readonly vpg: VpgId; readonly checkpoint: Checkpoint }[] = []
  /** Calls arrive in their order. */
  #lastArrival: Promise<void> = Promise.resolve()
  #lastLong: Promise<void> = Promise.resolve()
  #isLeft = false

  constructor(life: Life, tables: CatalogTables, made: (operation: Operation) => void) {
    this.#life = life
    this.#tables = tables
    this.#made = made
    this.notes = tables.notes()
    this.#flushNowAndThen()
  }

  addCheckpoints(vpg: VpgId, checkpoints: readonly Checkpoint[]): void {
    for (const checkpoint of checkpoints) this.#waiting.push({ vpg, checkpoint })
  }

  async flush(): Promise<void> {
    const checkpoints = this.#waiting
    this.#waiting = []
    await this.#arrival()
    if (checkpoints.length === 0) return
    await this.#run(function* (tables) {
      tables.add([], checkpoints)
    })
  }

  loadVpg: Catalog['loadVpg'] = argument => this.#long(tables => tables.load(argument))
  dropCheckpointsAbove: Catalog['dropCheckpointsAbove'] = ({ vpgs }) =>
    this.#long(tables => tables.dropCheckpointsAbove(vpgs))
  addSegment: Catalog['addSegment'] = ({ vpg, segment, offloaded }) =>
    this.#long(tables => tables.addSegment(vpg, segment, offloaded))
  dropSegments: Catalog['dropSegments'] = ({ vpg, throughCommitNumber }) =>
    this.#long(tables => tables.dropSegments(vpg, throughCommitNumber))
  dropCheckpoints: Catalog['dropCheckpoints'] = ({ vpg, edge, kept }) =>
    this.#long(tables => tables.dropCheckpoints(vpg, edge, kept))
  thinCheckpoints: Catalog['thinCheckpoints'] = ({ vpg, dropped }) =>
    this.#long(tables => tables.thinCheckpoints(vpg, dropped))

  async keepNotes(notes: readonly CatalogNote[]): Promise<void> {
    await this.flush()
    await this.#long(tables => tables.keepNotes(notes))
  }

  /** Its appliance goes on as a former one, and nobody looks at its index any more: nothing that it does there has an effect. */
  leave(): void {
    this.#isLeft = true
  }

  /** What was asked for by now is done. */
  async settled(): Promise<void> {
    await this.#lastLong
  }

  /** Of every checkpoint that is in the index by now, ascending. */
  ordinals(vpg: VpgId): readonly Ordinal[] {
    const ordinals: Ordinal[] = []
    for (;;) {
      const page = this.#tables.points(vpg, ordinals.at(-1) ?? -1)
      if (page.length === 0) return ordinals
      for (const { ordinal } of page) ordinals.push(ordinal)
    }
  }

  async #long(operation: Operation): Promise<void> {
    void this.flush()
    const arrival = this.#arrival()
    const before = this.#lastLong
    this.#lastLong = Promise.all([before, arrival]).then(() => this.#run(operation))
    await this.#lastLong
  }

  /** A dead process takes no further step, and never hears. */
  async #run(operation: Operation): Promise<void> {
    const running = new Map<Operation, Generator<void, void>>()
    for (;;) {
      if (this.#isLeft) return
      if (!this.#life.isAlive) return await new Promise(() => undefined)
      this.#made(operation)
      if (stepOf(running, operation, this.#tables)) return
      await this.#sleep()
    }
  }

  #arrival(): Promise<void> {
    this.#lastArrival = this.#lastArrival.then(() => this.#sleep())
    return this.#lastArrival
  }

  #sleep(): Promise<void> {
    const { world } = this.#life.host
    return new Promise(resolve => this.#life.after(world.delay(0, 5), resolve))
  }

  #flushNowAndThen(): void {
    this.#life.after(flushIntervalMillis, () => {
      if (this.#waiting.length > 0) void this.flush()
      this.#flushNowAndThen()
    })
  }
}
