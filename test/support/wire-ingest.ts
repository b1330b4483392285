import { connect, type Socket } from 'node:net'
import { ordinal, vpgId, type Position } from '../../src/base/ids.ts'
import { Failure } from '../../src/base/failure.ts'
import type { IngestEvents, OpenedGeneration, SessionEnd } from '../../src/ingest/events.ts'
import { Ingest, type IngestOptions } from '../../src/ingest/ingest.ts'
import type { IngestVpg } from '../../src/ingest/registry.ts'
import type { Checkpoint } from '../../src/timeline/checkpoint.ts'
import { decodeFrame, encodeFrame, FrameReader } from '../../src/wire/wire.ts'
import type { ControlMessage, Hello, Marker, Welcome } from '../../src/wire/messages.ts'
import { FakeJournal } from './wire-fake-journal.ts'
import { ManualClock } from './wire-manual-clock.ts'
import { buildBatch, guestBytes, position, seededRandom, type SampleWrite } from './wire-samples.ts'

export const volumeSizeBytes = 1024 * 1024

export function sampleVpg(changes: Partial<IngestVpg> & { readonly name?: string } = {}): IngestVpg {
  const { name = 'orders', ...rest } = changes
  const definition = {
    id: vpgId(Buffer.from(name.padEnd(16, '.').slice(0, 16)).toString('hex')),
    name,
    incarnation: 1,
    volumes: [{ number: 1, name: 'root', sizeBytes: volumeSizeBytes, stream: 1 }],
    streams: [{ number: 1, agent: `${name}-host` }],
    historyMillis: 3_600_000,
    checkpointIntervalMillis: 5_000,
    syncRateBytesPerSecond: 0,
    paused: false,
    removedVolumes: [],
    journalWarnSizeBytes: 0,
    journalLimitSizeBytes: 0,
    createdAtMicros: 1,
  }
  return {
    definition,
    epoch: 3,
    durable: [],
    offloaded: [],
    lastCheckpoint: undefined,
    lastMarker: ordinal(0),
    pendingMarkers: [],
    ...rest,
  }
}

/** What ingest told, as lists. */
export class RecordedEvents implements IngestEvents {
  readonly refused: string[] = []
  readonly ended: SessionEnd[] = []
  readonly sentences: string[] = []
  readonly checkpoints: Checkpoint[] = []
  readonly generations: OpenedGeneration[] = []
  readonly coordinators: string[] = []
  openedCount = 0
  durableWriteCount = 0
  duplicateCount = 0
  pauseCount = 0
  resumeCount = 0
  statusCount = 0

  sessionOpened(): void {
    this.openedCount++
  }
  sessionClosed(_session: unknown, end: SessionEnd, sentence: string): void {
    this.ended.push(end)
    this.sentences.push(sentence)
  }
  frameRefused(_vpg: unknown, code: string): void {
    this.refused.push(code)
  }
  generationOpened(_vpg: unknown, opened: OpenedGeneration): void {
    this.generations.push(opened)
  }
  coordinatorChanged(_vpg: unknown, coordinator: { readonly agent: string; readonly term: number }): void {
    this.coordinators.push(`${coordinator.agent} ${coordinator.term}`)
  }
  batchDurable(_vpg: unknown, batch: { readonly writeCount: number }): void {
    this.durableWriteCount += batch.writeCount
  }
  duplicateDropped(): void {
    this.duplicateCount++
  }
  checkpointComplete(_vpg: unknown, checkpoint: Checkpoint): void {
    this.checkpoints.push(checkpoint)
  }
  agentStatusChanged(): void {
    this.statusCount++
  }
  readingPaused(): void {
    this.pauseCount++
  }
  readingResumed(): void {
    this.resumeCount++
  }
}

export interface Bench {
  readonly ingest: Ingest
  readonly journal: FakeJournal
  readonly events: RecordedEvents
  readonly clock: ManualClock
}

/** An ingest on loopback over a fake journal, closed when the test ends. */
export async function openBench(
  t: { teardown(work: () => Promise<void>): void },
  options: { readonly automatic: boolean; readonly vpgs?: readonly IngestVpg[] } & Partial<
    Pick<IngestOptions, 'tls' | 'sessionsMax' | 'hashes' | 'issueTerm'>
  >,
): Promise<Bench> {
  const journal = new FakeJournal(options)
  const events = new RecordedEvents()
  const clock = new ManualClock()
  const ingest = await Ingest.open({
    listen: { host: '127.0.0.1', port: 0 },
    journal,
    events,
    clock,
    vpgs: options.vpgs ?? [sampleVpg()],
    issueTerm: options.issueTerm ?? risingTerms(),
    hashes: options.hashes ?? noHashes,
    ...(options.tls === undefined ? {} : { tls: options.tls }),
    ...(options.sessionsMax === undefined ? {} : { sessionsMax: options.sessionsMax }),
  })
  t.teardown(async () => {
    const closed = ingest.close()
    const ended = new AbortController()
    void closed.finally(() => ended.abort())
    while (!ended.signal.aborted) {
      await clock.advance(500)
      await new Promise(resolve => setImmediate(resolve))
    }
    await closed
  })
  return { ingest, journal, events, clock }
}

/** Terms that rise, as the daemon's do. */
function risingTerms(): IngestOptions['issueTerm'] {
  const issued = new Map<string, number>()
  return (vpg, above) => {
    const term = Math.max(above, issued.get(vpg) ?? 0) + 1
    issued.set(vpg, term)
    return term
  }
}

const noHashes: IngestOptions['hashes'] = {
  open: () => ({
    hashesOf: () => Promise.reject(new Failure('BUSY', 'there are no hashes in this test')),
    close: () => undefined,
  }),
}

/** Waits until the condition holds; a condition that never does fails after a minute. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`in vain: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

let lastSessionNumber = 0

/** An agent that does what the test says, right or wrong. */
export class TestPeer {
  readonly socket: Socket
  readonly received: ControlMessage[] = []
  closed = false
  welcome: Welcome | undefined
  readonly #reader = new FrameReader()

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', chunk => {
      for (const frame of this.#reader.push(chunk)) {
        const message = decodeFrame(frame)
        if (message.type === 'write-batch') throw new Error('the VRA sends no batches')
        if (message.type === 'welcome') this.welcome = message
        this.received.push(message)
      }
    })
    socket.on('error', () => undefined)
    socket.on('close', () => (this.closed = true))
  }

  static connect(port: number): TestPeer {
    return new TestPeer(connect({ port, host: '127.0.0.1' }))
  }

  /** A session that is open: Hello sent, Welcome received. */
  static async open(bench: Bench, changes: Partial<Hello> = {}): Promise<TestPeer> {
    const peer = TestPeer.connect(bench.ingest.port)
    await peer.greet(changes)
    return peer
  }

  async greet(changes: Partial<Hello> = {}): Promise<Welcome> {
    this.send(hello(changes))
    await until('a Welcome', () => this.welcome !== undefined || this.closed)
    if (this.welcome === undefined) throw new Failure('PEER_LOST', `refused: ${this.error}`)
    return this.welcome
  }

  send(message: ControlMessage): void {
    this.socket.write(encodeFrame(message))
  }

  sendBytes(bytes: Uint8Array): void {
    this.socket.write(bytes)
  }

  /** The code of the Error that the VRA sent. */
  get error(): string | undefined {
    return this.received.find(message => message.type === 'error')?.code
  }

  /** The newest durable sequence that was acknowledged. */
  get acked(): number {
    const acks = this.received.filter(message => message.type === 'ack')
    return acks.at(-1)?.durable.sequence ?? 0
  }

  /** Waits for the end and returns the code it was told. */
  async refusal(): Promise<string | undefined> {
    await until('the end of the connection', () => this.closed)
    return this.error
  }
}

export function hello(changes: Partial<Hello> = {}): Hello {
  lastSessionNumber++
  const vpg = changes.vpg ?? 'orders'
  return {
    type: 'hello',
    protocolVersionMin: 1,
    protocolVersionMax: 1,
    vpg,
    agent: `${vpg}-host`,
    sessionNumber: lastSessionNumber,
    epoch: 0,
    // Who opens a generation is one that the VPG knows: a stranger may not while another of its name is connected.
    incarnation: changes.openGeneration === undefined ? 0 : 1,
    volumes: [{ name: 'root', sizeBytes: volumeSizeBytes, sync: 'none' }],
    resumableFrom: position(0, 0),
    lastNumbered: position(0, 0),
    software: 'test',
    openGeneration: 0,
    peerAddress: '',
    highestTerm: 0,
    ...changes,
  }
}

export function resumeAt(at: Position): Partial<Hello> {
  return { resumableFrom: at, lastNumbered: at }
}

export function marker(sequence: number, changes: Partial<Marker> = {}): Marker {
  return {
    type: 'marker',
    generation: 1,
    sequence,
    term: 1,
    counter: sequence,
    timestampMicros: 1_790_000_000_000_000,
    participants: [1],
    volumes: [{ number: 1, sizeBytes: volumeSizeBytes, included: true }],
    requestId: 0,
    ...changes,
  }
}

/** A batch of so many 512-byte writes from the sequence on. */
export function batchAt(firstSequence: number, writeCount = 1, generation = 1): Buffer {
  const writes: SampleWrite[] = []
  for (let index = 0; index < writeCount; index++)
    writes.push({
      volume: 1,
      offsetBytes: 512 * index,
      lengthBytes: 512,
      data: Buffer.alloc(512, firstSequence + index),
    })
  return buildBatch(writes, { generation, firstSequence })
}

/** Eight writes of 32 KiB from the sequence on; some 200 KiB as a frame. */
export function largeBatchAt(firstSequence: number): Buffer {
  const random = seededRandom(firstSequence)
  const writes = Array.from({ length: 8 }, (_, index) => {
    const data = guestBytes(random, 32 * 1024)
    return { volume: 1, offsetBytes: index * data.length, lengthBytes: data.length, data }
  })
  return buildBatch(writes, { generation: 1, firstSequence })
}
