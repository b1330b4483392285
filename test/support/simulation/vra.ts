import { comparePositions, sequence, vpgId, type Ordinal, type Position } from '../../../src/base/ids.ts'
import { MiB, KiB } from '../../../src/base/units.ts'
import { reconcile } from '../../../src/daemon/reconcile.ts'
import { Ingest } from '../../../src/ingest/ingest.ts'
import { Terms } from '../../../src/daemon/terms.ts'
import { silentIngestEvents } from '../../../src/ingest/events.ts'
import type { IngestVpg } from '../../../src/ingest/registry.ts'
import { LogReader, type LogMark } from '../../../src/journal/log-reader.ts'
import type { RecordHeader } from '../../../src/journal/record.ts'
import type { Checkpoint } from '../../../src/timeline/checkpoint.ts'
import type { VpgDefinition } from '../../../src/timeline/definition.ts'
import { decodeFrame } from '../../../src/wire/wire.ts'
import { openedVpg } from '../opened-vpg.ts'
import { SimulatedDisk } from './disk.ts'
import { SimulatedHashes } from './hashes.ts'
import { SimulatedJournal } from './journal.ts'
import type { Network } from './network.ts'
import { Host, type Life, type World } from './world.ts'

/** A record as the VRA keeps it. */
export interface KeptRecord {
  readonly header: RecordHeader
  readonly frame: Uint8Array
}

export interface VraSettings {
  readonly logSizeBytesMax: number
  readonly poolSizeBytes: number
  readonly syncDelayMillisMax: number
  readonly checkpointIntervalMillis: number
  readonly offloads: boolean
}

/** Ways to break the VRA, for showing that it is noticed. */
export interface VraMutations {
  readonly acknowledgesBeforeSync?: boolean
  readonly diskIgnoresSync?: boolean
}

interface Running {
  readonly life: Life
  readonly journal: SimulatedJournal
  readonly ingest: Ingest
}

const directory = '/var/lib/vra'
const fileSizeBytes = 4 * MiB + 256 * KiB
const vpg = vpgId('5a'.repeat(16))

/** The recovery site: the real ingest over the real commit log, on a host that can fail; and a store, which does not, for what is aged. */
export class SimulatedVra {
  readonly host: Host
  readonly disk: SimulatedDisk
  /** Checkpoints that were told of as complete. */
  readonly announced: Ordinal[] = []
  lastComplete: Checkpoint | undefined
  readonly #world: World
  readonly #network: Network
  readonly #settings: VraSettings
  readonly #mutations: VraMutations
  readonly #definition: VpgDefinition
  /** What the object store holds: the records in order, and how far. */
  readonly #stored: KeptRecord[] = []
  #offloaded: Position = { generation: 0, sequence: sequence(0) }
  /** Where the log goes on that is not in the store. */
  #aged: { readonly from?: LogMark } = {}
  /** Log files of which all that was read is in the store. */
  readonly #emptied = new Set<number>()
  /** The furthest that a Welcome or an Ack has named durable. */
  #told: Position = { generation: 0, sequence: sequence(0) }
  #life: Life | undefined
  #journal: SimulatedJournal | undefined
  #running: Running | undefined

  constructor(
    world: World,
    network: Network,
    definition: Pick<VpgDefinition, 'volumes' | 'streams'>,
    settings: VraSettings,
    mutations: VraMutations,
  ) {
    this.#world = world
    this.#network = network
    this.#settings = settings
    this.#mutations = mutations
    this.host = new Host(world, 'vra')
    this.disk = new SimulatedDisk(world)
    this.disk.ignoresSync = mutations.diskIgnoresSync ?? false
    const { checkpointIntervalMillis } = settings
    this.#definition = { ...openedVpg().definition, id: vpg, ...definition, checkpointIntervalMillis }
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  get life(): Life | undefined {
    return this.#life
  }

  /** The VRA sends this frame. */
  noteSent(frame: Uint8Array): void {
    const message = decodeFrame(frame)
    if (message.type !== 'ack' && message.type !== 'welcome') return
    // That a generation was opened may be forgotten as long as there is nothing in it.
    if (message.durable.sequence > 0 && comparePositions(message.durable, this.#told) > 0) this.#told = message.durable
  }

  /** Starts the process, unless its disk refuses. What it has recovered must hold everything that it has ever called durable. */
  start(): void {
    if (this.#life !== undefined) return
    const life = (this.#life = this.host.boot())
    this.#network.booted(this.host)
    let journal: SimulatedJournal
    try {
      journal = new SimulatedJournal({
        life,
        disk: this.disk.of(life),
        directory,
        fileSizeBytes,
        logSizeBytesMax: this.#settings.logSizeBytesMax,
        poolSizeBytes: this.#settings.poolSizeBytes,
        tellsBeforeSync: this.#mutations.acknowledgesBeforeSync ?? false,
      })
    } catch (error) {
      this.#end(life)
      this.#world.trace(`vra cannot start: ${String(error)}`)
      return
    }
    journal.delayMillisMax = this.#settings.syncDelayMillisMax
    const { recovered } = journal
    if (recovered.damage.length > 0) throw new Error(`damage is told of: ${JSON.stringify(recovered.damage)}`)
    const { generation, sequence: offloadedSequence } = this.#offloaded
    const offloaded = generation === 0 ? [] : [{ stream: 1, generation, sequence: offloadedSequence }]
    const checkpoints = this.#storedCheckpoints()
    const opened = openedVpg({ definition: this.#definition, offloaded, checkpoints })
    const [known] = reconcile([opened], recovered)
    const ingestVpg = known!.ingest
    const durable = ingestVpg.durable[0]!
    const terms = this.#openTerms(life, ingestVpg)
    if (terms === undefined) return
    this.#world.trace(`vra ${life.name} starts with ${durable.generation}/${durable.sequence}`)
    if (comparePositions(durable, this.#told) < 0) {
      const { generation, sequence } = this.#told
      throw new Error(
        `recovered ${durable.generation}/${durable.sequence}, but ${generation}/${sequence} was called durable`,
      )
    }
    const opening = Ingest.open({
      listen: { host: '10.0.0.2', port: 7420 },
      journal,
      vpgs: [ingestVpg],
      clock: life.clock,
      issueTerm: (id, above) => terms.issue(id, above),
      hashes: {
        open: (_vpg, positions) => new SimulatedHashes(life, this.#definition, () => this.#kept(life, positions()[0])),
      },
      server: this.#network.serverOf(life),
      events: {
        ...silentIngestEvents,
        sessionOpened: () => this.#world.trace('vra: session opened'),
        sessionClosed: (_session, end, sentence) => {
          if (life.isAlive) this.#world.trace(`vra: session closed, ${end}: ${sentence}`)
        },
        checkpointComplete: (_vpg, checkpoint) => {
          if (!life.isAlive) return
          this.#world.trace(`vra: checkpoint ${checkpoint.ordinal}`)
          this.announced.push(checkpoint.ordinal)
          this.lastComplete = checkpoint
        },
      },
    })
    this.#journal = journal
    this.#world.background(
      opening.then(ingest => {
        if (!life.isAlive) return
        this.#running = { life, journal, ingest }
        if (this.#settings.offloads) this.#ageLater(this.#running)
      }),
    )
  }

  /** As the daemon does at a start; undefined where the disk refuses. */
  #openTerms(life: Life, { definition, lastMarker }: IngestVpg): Terms | undefined {
    const terms = Terms.open(this.disk.of(life), directory)
    try {
      terms.prepare([{ id: definition.id, above: Math.floor(lastMarker / 2 ** 32) }])
      return terms
    } catch (error) {
      this.#world.trace(`vra cannot start: ${String(error)}`)
      this.#end(life)
      return undefined
    }
  }

  /** Why there are no checkpoints, in its own words. */
  whyNoCheckpoints(): string | undefined {
    return this.#running?.ingest.status(vpg).noCheckpointsBecause
  }

  kill(): void {
    this.#end(this.#life)
  }

  losePower(): void {
    this.host.isUp = false
    this.#end(this.#life)
    this.disk.losePower()
  }

  /** As by SIGTERM. */
  stop(): void {
    const running = this.#running
    if (running === undefined) return
    const stopped = running.ingest.close().then(() => {
      if (!running.life.isAlive) return
      running.journal.close()
      this.#world.trace('vra: stopped')
      this.#end(running.life)
    })
    this.#world.background(stopped)
  }

  #end(life: Life | undefined): void {
    if (life === undefined) return
    this.#life = this.#running = this.#journal = undefined
    life.kill()
    this.#network.killed(life)
  }

  /** Everything that the VRA has of the stream, in order: what is in the store, then what only the log has. */
  records(): readonly KeptRecord[] {
    if (this.#life === undefined) throw new Error('the VRA runs when it is looked at')
    return this.#kept(this.#life)
  }

  #kept(life: Life, through?: Position): readonly KeptRecord[] {
    const kept = [...this.#stored]
    const reader = new LogReader({ disk: this.disk.of(life), directory, ...this.#aged })
    this.#read(reader, this.#journal!.durable(), record => kept.push(record))
    if (through === undefined) return kept
    return kept.filter(({ header: { generation, lastSequence } }) => {
      const last = { generation, sequence: sequence(lastSequence) }
      return comparePositions(last, through) <= 0
    })
  }

  /** What the log has beyond the store. */
  #read(reader: LogReader, limit: LogMark, take: (record: KeptRecord) => void): LogMark {
    for (;;) {
      const { records, damage } = reader.next(limit, 4 * MiB)
      if (damage.length > 0) throw new Error(`the log is damaged: ${damage[0]!.sentence}`)
      if (records.length === 0) break
      for (const { header, place } of records) {
        const last = { generation: header.generation, sequence: sequence(header.lastSequence) }
        if (comparePositions(last, this.#offloaded) > 0) take({ header, frame: reader.readRecord(place).slice() })
      }
    }
    reader.close()
    return reader.position()
  }

  /** What the aging thread does, as far as others see it: records get into the store, agents hear of it, files are freed. */
  #ageLater(running: Running): void {
    const { life, journal, ingest } = running
    life.after(this.#world.random.integer(500, 8_000), () => {
      const durable = journal.durable()
      const reader = new LogReader({ disk: this.disk.of(life), directory, ...this.#aged })
      const before = this.#stored.length
      this.#aged = { from: this.#read(reader, durable, record => this.#stored.push(record)) }
      const last = this.#stored.at(-1)?.header
      if (last !== undefined && this.#stored.length > before) {
        this.#offloaded = { generation: last.generation, sequence: sequence(last.lastSequence) }
        ingest.offloaded(vpg, [{ stream: 1, ...this.#offloaded }])
        this.#world.trace(`vra: offloaded ${last.generation}/${last.lastSequence}`)
      }
      for (const fileIdentity of new Set(this.#stored.slice(before).map(({ header }) => header.fileIdentity)))
        this.#emptied.add(fileIdentity)
      for (const fileIdentity of this.#emptied) {
        if (fileIdentity >= durable.fileIdentity) continue
        journal.freeFile(fileIdentity)
        this.#emptied.delete(fileIdentity)
      }
      this.#ageLater(running)
    })
  }

  /** Of the store, as its manifest would tell: labels and terms go on from the newest. */
  #storedCheckpoints(): readonly Checkpoint[] {
    const newest = this.lastComplete
    return newest === undefined || comparePositions(newest.vector[0]!, this.#offloaded) > 0 ? [] : [newest]
  }
}
