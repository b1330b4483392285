import { sequence, vpgId, type Position } from '../../src/base/ids.ts'
import { BatchBuilder, type ControlMessage } from '../../src/wire/wire.ts'

/** A small generator with a seed, so that a failing run can be repeated. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export function below(random: () => number, bound: number): number {
  return Math.floor(random() * bound)
}

/** Bytes that compress to about half: every other run of 8 is repeated. */
export function guestBytes(random: () => number, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes)
  for (let at = 0; at < sizeBytes; at += 16) {
    const value = below(random, 2 ** 32)
    for (let word = 0; word < 16; word += 4) bytes.writeUInt32LE((value + (word > 4 ? word : 0)) >>> 0, at + word)
  }
  return bytes
}

export function position(generation: number, at: number): Position {
  return { generation, sequence: sequence(at) }
}

/** One of each control message, with the largest numbers that the protocol carries. */
export const sampleMessages: readonly ControlMessage[] = [
  {
    type: 'hello',
    protocolVersionMin: 1,
    protocolVersionMax: 3,
    vpg: 'orders',
    agent: 'host-a',
    sessionNumber: Number.MAX_SAFE_INTEGER,
    epoch: 2,
    incarnation: 1,
    volumes: [{ name: 'root', sizeBytes: 64 * 1024 ** 4, sync: 'bitmap' }],
    resumableFrom: position(1, 2 ** 40),
    lastNumbered: position(1, 2 ** 40 + 17),
    software: 'a test',
    openGeneration: 2 ** 50,
    peerAddress: '[::1]:7423',
    highestTerm: 2 ** 20 - 1,
  },
  {
    type: 'welcome',
    protocolVersion: 1,
    vpg: vpgId('00112233445566778899aabbccddeeff'),
    epoch: 3,
    incarnation: 1,
    stream: 1,
    volumes: [{ name: 'root', number: 1, sizeBytes: 512 }],
    durable: position(0, 0),
    offloaded: position(0, 0),
    creditBytes: 2 ** 41,
    heartbeatIntervalMillis: 2000,
    heartbeatTimeoutMillis: 15_000,
    coordinator: {
      agent: 'host-a',
      term: 2 ** 20 - 1,
      counter: 2 ** 32 - 1,
      checkpointIntervalMillis: 5000,
      participants: [],
    },
  },
  {
    type: 'marker',
    generation: 1,
    sequence: 2 ** 52,
    term: 1,
    counter: 2 ** 32 - 1,
    timestampMicros: 1_790_000_000_000_000,
    participants: [1],
    volumes: [{ number: 1, sizeBytes: 1024, included: true }],
    requestId: 0,
  },
  { type: 'ack', durable: position(2, 3), offloaded: position(1, 9), creditBytes: 5 },
  { type: 'heartbeat', timestampMicros: 1 },
  { type: 'checkpoint-request', requestId: 77 },
  {
    type: 'agent-status',
    queuedBytes: 10,
    queuedRecords: 2,
    volumes: [
      {
        number: 1,
        needsSync: true,
        reason: 'the queue was full',
        sinceTimestampMicros: 5,
        sync: 'delta',
        syncTotalBytes: 9,
        syncDoneBytes: 8,
        syncSentBytes: 7,
        dirtyBytes: 6,
      },
    ],
    noCheckpointsBecause: 'it is paused',
    quiescedBy: '',
  },
  { type: 'error', code: 'SEQUENCE_GAP', sentence: 'the batch starts at 7' },
  { type: 'goodbye' },
  { type: 'sync-request', kind: 'full', volumes: [1, 7] },
  { type: 'hash-request', requestId: 1, volume: 2, offsetBytes: 2 ** 45, blockSizeBytes: 65536, blockCount: 2048 },
  { type: 'hash-reply', requestId: 2, hashes: Buffer.alloc(32, 5), failure: '', passing: false },
  { type: 'hash-reply', requestId: 3, hashes: Buffer.alloc(0), failure: 'the log is being read', passing: true },
  {
    type: 'directive',
    syncRateBytesPerSecond: 50_000_000,
    paused: true,
    heldSyncs: [],
    comparedVolumes: [],
    quiescedBy: '',
  },
  {
    type: 'directive',
    syncRateBytesPerSecond: 0,
    paused: false,
    heldSyncs: [
      { volumes: [1, 4], reason: 'an image of it is being read' },
      { volumes: [2], reason: 'the journal has no room' },
    ],
    comparedVolumes: [1, 4],
    quiescedBy: 'r-0123456789ab',
  },
  {
    type: 'coordinator-changed',
    coordinator: {
      agent: 'host-b',
      term: 2,
      counter: 9,
      checkpointIntervalMillis: 1000,
      participants: [
        { stream: 1, agent: 'host-a', peerAddress: '', volumes: [1] },
        { stream: 2, agent: 'host-b', peerAddress: '10.0.0.2:7423', volumes: [2, 3] },
      ],
    },
  },
  { type: 'peer-hello', vpg: vpgId('00112233445566778899aabbccddeeff'), agent: 'host-a', stream: 1, term: 0 },
  { type: 'hold', term: 2, counter: 10, timeoutMillis: 500 },
  {
    type: 'hold-answer',
    term: 2,
    counter: 10,
    refusal: '',
    highestTerm: 2,
    highestCounter: 9,
    volumes: [{ number: 1, sizeBytes: 512, included: false }],
  },
  {
    type: 'cut',
    term: 2,
    counter: 10,
    timestampMicros: 3,
    participants: [1, 2],
    volumes: [{ number: 1, sizeBytes: 512, included: true }],
    requestId: 8,
  },
  { type: 'cut-answer', term: 2, counter: 10, refusal: 'the hold has expired' },
  { type: 'release', term: 2, counter: 10 },
]

export interface SampleWrite {
  readonly volume: number
  readonly offsetBytes: number
  /** Undefined: zeros. */
  readonly data: Buffer | undefined
  readonly lengthBytes: number
}

/** Random writes of a volume of 1 MiB that fit in one batch. */
export function randomWrites(random: () => number, countMax: number): SampleWrite[] {
  const writes: SampleWrite[] = []
  let rawSizeBytes = 0
  for (let left = 1 + below(random, countMax); left > 0; left--) {
    const lengthBytes = 512 * (1 + below(random, random() < 0.1 ? 300 : 16))
    const offsetBytes = 512 * below(random, 2048 - lengthBytes / 512 + 1)
    const zero = random() < 0.2 || rawSizeBytes + lengthBytes > 900 * 1024
    if (!zero) rawSizeBytes += lengthBytes
    writes.push({ volume: 1, offsetBytes, lengthBytes, data: zero ? undefined : guestBytes(random, lengthBytes) })
  }
  return writes
}

export function buildBatch(
  writes: readonly SampleWrite[],
  at: { readonly generation: number; readonly firstSequence: number },
): Buffer {
  const builder = new BatchBuilder()
  for (const write of writes) {
    if (write.data === undefined) builder.addZero(write)
    else builder.add({ volume: write.volume, offsetBytes: write.offsetBytes, data: write.data })
  }
  return builder.finish({ ...at, timestampMicros: 1_790_000_000_000_000 })
}
