import { sequence, type Position, type VpgId } from '../base/ids.ts'
import {
  hashBlockCountMax,
  hashBlockSizeBytesMax,
  hashBlockSizeBytesMin,
  hashSizeBytes,
  heldSyncsPerDirectiveMax,
  holdTimeoutMillisMax,
  nameSizeCharactersMax,
  streamsPerVpgMax,
  volumeSizeBytesMax,
  volumesPerVpgMax,
} from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { assertNever } from '../base/assert.ts'
import { invalidFrame } from './frame.ts'
import {
  syncKinds,
  type Ack,
  type AgentStatus,
  type ControlMessage,
  type Coordinator,
  type Cut,
  type Directive,
  type ErrorMessage,
  type HashReply,
  type HashRequest,
  type Hello,
  type HoldAnswer,
  type HoldId,
  type Marker,
  type MarkerVolume,
  type Participant,
  type SyncKind,
  type SyncRequest,
  type VolumeStatus,
  type Welcome,
} from './messages.ts'

// What a peer may say in a control message, whoever the peer is. Every function takes what protobufjs made of the bytes,
// by field name, and returns the domain type or fails FRAME_INVALID.

/** One decoded protobuf message: absent numbers are 0, absent texts '', absent messages null. */
export type Fields = Readonly<Record<string, unknown>>

const sentenceSizeCharactersMax = 1000
const addressSizeCharactersMax = 300
const termMax = 2 ** 20

export function controlMessage(type: ControlMessage['type'], fields: Fields): ControlMessage {
  switch (type) {
    case 'hello':
      return hello(fields)
    case 'welcome':
      return welcome(fields)
    case 'marker':
      return marker(fields)
    case 'ack':
      return ack(fields)
    case 'heartbeat':
      return { type, timestampMicros: number(fields, 'timestampMicros') }
    case 'checkpoint-request':
      return { type, requestId: numberFrom(fields, 'requestId', 1) }
    case 'agent-status':
      return agentStatus(fields)
    case 'error':
      return error(fields)
    case 'goodbye':
      return { type }
    case 'sync-request':
      return syncRequest(fields)
    case 'hash-request':
      return hashRequest(fields)
    case 'hash-reply':
      return hashReply(fields)
    case 'directive':
      return directive(fields)
    case 'coordinator-changed':
      return { type, coordinator: coordinator(message(fields, 'coordinator')) }
    case 'peer-hello':
      return {
        type,
        vpg: id(fields, 'vpgId'),
        agent: name(fields, 'agent'),
        stream: numberFrom(fields, 'stream', 1),
        term: unsignedTerm(fields, 'term'),
      }
    case 'hold':
      return { type, ...holdId(fields), timeoutMillis: within(fields, 'timeoutMillis', 1, holdTimeoutMillisMax) }
    case 'hold-answer':
      return holdAnswer(fields)
    case 'cut':
      return cut(fields)
    case 'cut-answer':
      return { type, ...holdId(fields), refusal: text(fields, 'refusal', sentenceSizeCharactersMax) }
    case 'release':
      return { type, ...holdId(fields) }
    default:
      return assertNever(type)
  }
}

function hello(fields: Fields): Hello {
  const volumes = list(fields, 'volumes', volumesPerVpgMax).map(volume => ({
    name: name(volume, 'name'),
    sizeBytes: volumeSize(volume),
    sync: syncKind(volume, 'sync'),
  }))
  refuseRepetition(volumes.map(volume => volume.name))
  return {
    type: 'hello',
    protocolVersionMin: number(fields, 'protocolVersionMin'),
    protocolVersionMax: number(fields, 'protocolVersionMax'),
    vpg: name(fields, 'vpg'),
    agent: name(fields, 'agent'),
    sessionNumber: numberFrom(fields, 'sessionNumber', 1),
    epoch: number(fields, 'epoch'),
    incarnation: number(fields, 'incarnation'),
    volumes,
    resumableFrom: position(fields, 'resumableFrom'),
    lastNumbered: position(fields, 'lastNumbered'),
    software: text(fields, 'software', nameSizeCharactersMax),
    openGeneration: number(fields, 'openGeneration'),
    peerAddress: text(fields, 'peerAddress', addressSizeCharactersMax),
    highestTerm: unsignedTerm(fields, 'highestTerm'),
  }
}

function welcome(fields: Fields): Welcome {
  const volumes = list(fields, 'volumes', volumesPerVpgMax).map(volume => ({
    name: name(volume, 'name'),
    number: numberFrom(volume, 'number', 1),
    sizeBytes: volumeSize(volume),
  }))
  refuseRepetition(volumes.map(volume => volume.number))
  return {
    type: 'welcome',
    protocolVersion: number(fields, 'protocolVersion'),
    vpg: id(fields, 'vpgId'),
    epoch: number(fields, 'epoch'),
    incarnation: number(fields, 'incarnation'),
    stream: numberFrom(fields, 'stream', 1),
    volumes,
    durable: position(fields, 'durable'),
    offloaded: position(fields, 'offloaded'),
    creditBytes: number(fields, 'creditBytes'),
    heartbeatIntervalMillis: numberFrom(fields, 'heartbeatIntervalMillis', 1),
    heartbeatTimeoutMillis: numberFrom(fields, 'heartbeatTimeoutMillis', 1),
    coordinator: coordinator(message(fields, 'coordinator')),
  }
}

function coordinator(fields: Fields): Coordinator {
  return {
    agent: name(fields, 'agent'),
    term: term(fields),
    counter: number(fields, 'counter'),
    checkpointIntervalMillis: numberFrom(fields, 'checkpointIntervalMillis', 1),
    participants: participants(fields),
  }
}

function participants(fields: Fields): readonly Participant[] {
  const all = list(fields, 'participants', streamsPerVpgMax).map(each => ({
    stream: numberFrom(each, 'stream', 1),
    agent: name(each, 'agent'),
    peerAddress: text(each, 'peerAddress', addressSizeCharactersMax),
    volumes: values(each, 'volumes', volumesPerVpgMax).map(value => unsigned(value, 'volumes')),
  }))
  refuseRepetition(all.map(each => each.stream))
  refuseRepetition(all.flatMap(each => each.volumes))
  return all
}

function marker(fields: Fields): Marker {
  const participants = streamNumbers(fields)
  const volumes = markerVolumes(fields)
  return {
    type: 'marker',
    generation: numberFrom(fields, 'generation', 1),
    sequence: numberFrom(fields, 'sequence', 1),
    term: term(fields),
    counter: numberFrom(fields, 'counter', 1),
    timestampMicros: number(fields, 'timestampMicros'),
    participants,
    volumes,
    requestId: number(fields, 'requestId'),
  }
}

function streamNumbers(fields: Fields): readonly number[] {
  const numbers = values(fields, 'participants', streamsPerVpgMax).map(value => unsigned(value, 'participants'))
  refuseRepetition(numbers)
  return numbers
}

function markerVolumes(fields: Fields): readonly MarkerVolume[] {
  const volumes = list(fields, 'volumes', volumesPerVpgMax).map(volume => ({
    number: numberFrom(volume, 'number', 1),
    sizeBytes: volumeSize(volume),
    included: volume['included'] === true,
  }))
  refuseRepetition(volumes.map(volume => volume.number))
  return volumes
}

function ack(fields: Fields): Ack {
  return {
    type: 'ack',
    durable: position(fields, 'durable'),
    offloaded: position(fields, 'offloaded'),
    creditBytes: number(fields, 'creditBytes'),
  }
}

function agentStatus(fields: Fields): AgentStatus {
  const volumes = list(fields, 'volumes', volumesPerVpgMax).map((volume): VolumeStatus => ({
    number: numberFrom(volume, 'number', 1),
    needsSync: volume['needsSync'] === true,
    reason: text(volume, 'reason', sentenceSizeCharactersMax),
    sinceTimestampMicros: number(volume, 'sinceTimestampMicros'),
    sync: syncKind(volume, 'sync'),
    syncTotalBytes: number(volume, 'syncTotalBytes'),
    syncDoneBytes: number(volume, 'syncDoneBytes'),
    syncSentBytes: number(volume, 'syncSentBytes'),
    dirtyBytes: number(volume, 'dirtyBytes'),
  }))
  refuseRepetition(volumes.map(volume => volume.number))
  return {
    type: 'agent-status',
    queuedBytes: number(fields, 'queuedBytes'),
    queuedRecords: number(fields, 'queuedRecords'),
    volumes,
    noCheckpointsBecause: text(fields, 'noCheckpointsBecause', sentenceSizeCharactersMax),
    quiescedBy: text(fields, 'quiescedBy', nameSizeCharactersMax),
  }
}

function syncRequest(fields: Fields): SyncRequest {
  const kind = syncKind(fields, 'kind')
  if (kind !== 'full' && kind !== 'delta') throw invalidFrame(`a synchronisation of kind "${kind}" cannot be asked for`)
  const volumes = numbers(fields, 'volumes')
  if (volumes.length === 0) throw invalidFrame('a synchronisation of no volume')
  return { type: 'sync-request', kind, volumes }
}

function hashRequest(fields: Fields): HashRequest {
  const blockSizeBytes = within(fields, 'blockSizeBytes', hashBlockSizeBytesMin, hashBlockSizeBytesMax)
  if (!Number.isInteger(Math.log2(blockSizeBytes))) throw invalidFrame(`blocks of ${blockSizeBytes} bytes`)
  const offsetBytes = number(fields, 'offsetBytes')
  if (offsetBytes % blockSizeBytes !== 0) throw invalidFrame(`offset ${offsetBytes} is not at the start of a block`)
  return {
    type: 'hash-request',
    requestId: numberFrom(fields, 'requestId', 1),
    volume: numberFrom(fields, 'volume', 1),
    offsetBytes,
    blockSizeBytes,
    blockCount: within(fields, 'blockCount', 1, hashBlockCountMax),
  }
}

function hashReply(fields: Fields): HashReply {
  const hashes = fields['hashes']
  if (!(hashes instanceof Uint8Array) || hashes.length % hashSizeBytes !== 0)
    throw invalidFrame(`hashes are not of ${hashSizeBytes} bytes each`)
  return {
    type: 'hash-reply',
    requestId: numberFrom(fields, 'requestId', 1),
    hashes,
    failure: text(fields, 'failure', sentenceSizeCharactersMax),
    passing: fields['passing'] === true,
  }
}

function directive(fields: Fields): Directive {
  const heldSyncs = list(fields, 'heldSyncs', heldSyncsPerDirectiveMax).map(held => ({
    volumes: numbers(held, 'volumes'),
    reason: text(held, 'reason', sentenceSizeCharactersMax),
  }))
  refuseRepetition(heldSyncs.flatMap(held => held.volumes))
  return {
    type: 'directive',
    syncRateBytesPerSecond: number(fields, 'syncRateBytesPerSecond'),
    paused: fields['paused'] === true,
    heldSyncs,
    comparedVolumes: numbers(fields, 'comparedVolumes'),
    quiescedBy: text(fields, 'quiescedBy', nameSizeCharactersMax),
  }
}

/** Of volumes; each once. */
function numbers(fields: Fields, field: string): readonly number[] {
  const all = values(fields, field, volumesPerVpgMax).map(value => unsigned(value, field))
  refuseRepetition(all)
  return all
}

function holdId(fields: Fields): HoldId {
  return { term: term(fields), counter: numberFrom(fields, 'counter', 1) }
}

function holdAnswer(fields: Fields): HoldAnswer {
  return {
    type: 'hold-answer',
    ...holdId(fields),
    refusal: text(fields, 'refusal', sentenceSizeCharactersMax),
    highestTerm: unsignedTerm(fields, 'highestTerm'),
    volumes: markerVolumes(fields),
    highestCounter: number(fields, 'highestCounter'),
  }
}

function cut(fields: Fields): Cut {
  return {
    type: 'cut',
    ...holdId(fields),
    timestampMicros: number(fields, 'timestampMicros'),
    participants: streamNumbers(fields),
    volumes: markerVolumes(fields),
    requestId: number(fields, 'requestId'),
  }
}

function syncKind(fields: Fields, field: string): SyncKind {
  const kind = syncKinds[number(fields, field)]
  if (kind === undefined) throw invalidFrame(`there is no kind of synchronisation ${String(fields[field])}`)
  return kind
}

function error(fields: Fields): ErrorMessage {
  return {
    type: 'error',
    code: text(fields, 'code', nameSizeCharactersMax),
    sentence: text(fields, 'sentence', sentenceSizeCharactersMax),
  }
}

/** protobufjs rounds what does not fit in a double; past 2^53 the peer is refused, not trusted. */
function unsigned(value: unknown, field: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw invalidFrame(`${field} is not a number up to 2^53`)
}

function number(fields: Fields, field: string): number {
  return unsigned(fields[field], field)
}

function numberFrom(fields: Fields, field: string, min: number): number {
  const value = number(fields, field)
  if (value < min) throw invalidFrame(`${field} is ${value}, the least is ${min}`)
  return value
}

function within(fields: Fields, field: string, min: number, max: number): number {
  const value = numberFrom(fields, field, min)
  if (value > max) throw invalidFrame(`${field} is ${value}, the most is ${max}`)
  return value
}

/** A term that may be 0, "none seen yet". */
function unsignedTerm(fields: Fields, field: string): number {
  return within(fields, field, 0, termMax - 1)
}

function term(fields: Fields): number {
  const value = numberFrom(fields, 'term', 1)
  if (value >= termMax) throw invalidFrame(`term is ${value}, the bound is ${termMax}`)
  return value
}

function text(fields: Fields, field: string, sizeCharactersMax: number): string {
  const value = fields[field]
  if (typeof value !== 'string' || value.length > sizeCharactersMax)
    throw invalidFrame(`${field} is longer than ${sizeCharactersMax} characters`)
  return value
}

function name(fields: Fields, field: string): string {
  const value = text(fields, field, nameSizeCharactersMax)
  if (value === '') throw invalidFrame(`${field} is empty`)
  return value
}

function volumeSize(fields: Fields): number {
  const value = numberFrom(fields, 'sizeBytes', sectorSizeBytes)
  if (value % sectorSizeBytes !== 0 || value > volumeSizeBytesMax)
    throw invalidFrame(`a volume of ${value} bytes: not whole sectors, or over the bound of ${volumeSizeBytesMax}`)
  return value
}

function position(fields: Fields, field: string): Position {
  const value = fields[field]
  if (value === null || value === undefined) return { generation: 0, sequence: sequence(0) }
  const at = value as Fields
  const generation = number(at, 'generation')
  const sequenceNumber = number(at, 'sequence')
  if (generation === 0 && sequenceNumber !== 0) throw invalidFrame(`${field} has a sequence without a generation`)
  return { generation, sequence: sequence(sequenceNumber) }
}

function id(fields: Fields, field: string): VpgId {
  const value = fields[field]
  if (!(value instanceof Uint8Array) || value.length !== 16) throw invalidFrame(`${field} is not 16 bytes`)
  return Buffer.from(value).toString('hex') as VpgId
}

function message(fields: Fields, field: string): Fields {
  const value = fields[field]
  if (typeof value !== 'object' || value === null) throw invalidFrame(`${field} is missing`)
  return value as Fields
}

function values(fields: Fields, field: string, countMax: number): readonly unknown[] {
  const value = fields[field]
  if (!Array.isArray(value) || value.length > countMax) throw invalidFrame(`${field} has more than ${countMax} entries`)
  return value
}

function list(fields: Fields, field: string, countMax: number): readonly Fields[] {
  return values(fields, field, countMax) as readonly Fields[]
}

function refuseRepetition(keys: readonly (string | number)[]): void {
  if (new Set(keys).size !== keys.length) throw invalidFrame(`a list names something twice: ${keys.join(', ')}`)
}
