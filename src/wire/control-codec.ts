import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type protobuf from 'protobufjs'
import type { VpgId } from '../base/ids.ts'
import { frameHeaderSizeBytes } from '../base/limits.ts'
import { controlBodySizeBytesMax, invalidFrame, sealFrame, type FrameType } from './frame.ts'
import { assert } from '../base/assert.ts'
import { syncKinds, type ControlMessage } from './messages.ts'
import * as read from './control-rules.ts'

type ControlType = ControlMessage['type']

const messageNames: Readonly<Record<ControlType, string>> = {
  hello: 'Hello',
  welcome: 'Welcome',
  marker: 'Marker',
  ack: 'Ack',
  heartbeat: 'Heartbeat',
  'checkpoint-request': 'CheckpointRequest',
  'agent-status': 'AgentStatus',
  error: 'Error',
  goodbye: 'Goodbye',
  'sync-request': 'SyncRequest',
  'hash-request': 'HashRequest',
  'hash-reply': 'HashReply',
  directive: 'Directive',
  'peer-hello': 'PeerHello',
  hold: 'Hold',
  'hold-answer': 'HoldAnswer',
  cut: 'Cut',
  'cut-answer': 'CutAnswer',
  release: 'Release',
  'coordinator-changed': 'CoordinatorChanged',
}

/** Schema and library are read once, at first use: most threads decode batches only. Seen from dist/src/wire it lies at the package's root. */
const schemaFile = new URL('../../../proto/vra.proto', import.meta.url)
let schema: protobuf.Root | undefined

/** A message type of vra.proto by its name there, e.g. for a test that encodes what the program would not. */
export function lookupMessage(name: string): protobuf.Type {
  schema ??= loadProtobuf().parse(readFileSync(schemaFile, 'utf8')).root
  return schema.lookupType(`vra.v1.${name}`)
}

/** The library in one file, which it has beside the 46 of its entry. */
function loadProtobuf(): typeof protobuf {
  return createRequire(import.meta.url)('protobufjs/dist/protobuf.js') as typeof protobuf
}

/** The whole frame of a control message. */
export function encodeFrame(message: ControlMessage): Buffer {
  const type = lookupMessage(messageNames[message.type])
  const body = type.encode(type.create(fieldsOf(message))).finish()
  assert(body.length <= controlBodySizeBytesMax, `a ${message.type} of ${body.length} bytes`)
  const frame = Buffer.allocUnsafeSlow(frameHeaderSizeBytes + body.length)
  frame.set(body, frameHeaderSizeBytes)
  sealFrame(frame, message.type)
  return frame
}

/** The message in a body, checked by every rule that needs no session. Fails FRAME_INVALID. */
export function decodeControlBody(frameType: Exclude<FrameType, 'write-batch'>, body: Uint8Array): ControlMessage {
  return read.controlMessage(frameType, fieldsIn(frameType, body))
}

function fieldsIn(frameType: ControlType, body: Uint8Array): read.Fields {
  const type = lookupMessage(messageNames[frameType])
  try {
    // `defaults` gives an absent number 0 and an absent text ''; absent messages stay null.
    return type.toObject(type.decode(body), { longs: Number, defaults: true, arrays: true }) as read.Fields
  } catch (error) {
    throw invalidFrame(`the body of the frame is not a ${frameType}`, { cause: error })
  }
}

/** Our names are those of the schema; only ids and kinds of synchronisation differ. */
function fieldsOf(message: ControlMessage): Record<string, unknown> {
  switch (message.type) {
    case 'welcome':
    case 'peer-hello':
      return { ...message, vpgId: bytesOfId(message.vpg) }
    case 'hello':
    case 'agent-status':
      return { ...message, volumes: message.volumes.map(each => ({ ...each, sync: syncKinds.indexOf(each.sync) })) }
    case 'sync-request':
      return { ...message, kind: syncKinds.indexOf(message.kind) }
    default:
      return { ...message }
  }
}

function bytesOfId(id: VpgId): Buffer {
  return Buffer.from(id, 'hex')
}
