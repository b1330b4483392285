import { Failure } from '../base/failure.ts'
import { formatCheckpointId, type Ordinal } from '../base/ids.ts'
import { recoverySizeBytesMax } from '../base/limits.ts'
import type { Checkpoint, Pin } from './checkpoint.ts'
import { isPinOfRecovery, type Json, type Recoveries } from './recovery.ts'

// What is kept warm for a VPG where it would be recovered to: of each volume a copy as of a recent checkpoint, which is brought up to a newer one now and
// then. A control record of the VPG's manifest, durable before what it says is done, and gone only when nothing of it is left there.
//
// To say what differs from a copy, the checkpoint that it holds must be known as long as the copy counts: the record names them, and each is pinned.

export interface StandbyRecord {
  readonly formatVersion: 1
  /** "s-" and 12 hexadecimal digits; another one each time that it is begun anew. */
  readonly id: string
  /** Ascending: those that copies hold, and the one that is being made of them. Each is pinned, in the very commit that names it first. */
  readonly checkpoints: readonly Checkpoint[]
  /** Of these the one that the copies are brought up to now. */
  readonly next: Ordinal | undefined
  /** 'ending': nothing is made any more, and what there is goes. */
  readonly state: 'kept' | 'ending'
  /** The target's own: what it has created, and what it has begun to. */
  readonly memory: Json
}

/** What a VPG's manifest says of it. */
export interface Standby {
  readonly standby?: StandbyRecord | undefined
  readonly pins: readonly Pin[]
}

/** With this record in place of what was there, and with the pins that it needs; undefined: without. Fails REQUEST_INVALID where it is too large. */
export function withStandby({ pins }: Standby, standby: StandbyRecord | undefined): Standby {
  const sizeBytes = standby === undefined ? 0 : Buffer.byteLength(JSON.stringify(standby))
  if (sizeBytes > recoverySizeBytesMax) {
    const sentence = `what is to be remembered of standby copies takes ${sizeBytes} bytes, and may take ${recoverySizeBytesMax}: the group has too many volumes for them`
    throw new Failure('REQUEST_INVALID', sentence, { sizeBytes })
  }
  return { standby, pins: [...pins.filter(({ kind }) => kind !== 'standby'), ...pinsOfStandby(standby)] }
}

/** The pins that the record needs. */
export function pinsOfStandby(standby: StandbyRecord | undefined): Pin[] {
  if (standby === undefined) return []
  const { id, checkpoints } = standby
  return checkpoints.map(({ ordinal }) => ({
    id: `${id}@${formatCheckpointId(ordinal)}`,
    ordinal,
    owner: 'standby copies',
    kind: 'standby',
  }))
}

/** True of a pin that a record needs, whichever process is there: it goes with its record alone. */
export function isPinOfRecord(state: Pick<Recoveries, 'recoveries'> & Pick<Standby, 'standby'>, pin: Pin): boolean {
  const isOfStandby = pin.kind === 'standby' && pinsOfStandby(state.standby).some(({ id }) => id === pin.id)
  return isOfStandby || isPinOfRecovery(state, pin)
}

/** Fails VERSION_UNSUPPORTED for a record that a newer program wrote: nobody may guess what it has created. */
export function requireKnownStandby({ id, formatVersion }: StandbyRecord): void {
  if (formatVersion === 1) return
  const sentence = `the record of standby copies ${id} is of format ${String(formatVersion)}, this program knows 1: use the program that wrote it, or a newer one`
  throw new Failure('VERSION_UNSUPPORTED', sentence)
}
