import type { Failure } from '../base/failure.ts'
import type { Ordinal, VpgId } from '../base/ids.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'

export interface RecoveryEvents {
  /** Durable: it has begun, or is in another state. */
  recoveryChanged(vpg: VpgId, record: RecoveryRecord): void
  /** It does not get on, and is tried again. */
  recoveryInTrouble(vpg: VpgId, record: RecoveryRecord, sentence: string): void
}

export interface StandbyEvents {
  /** The copies of all volumes that it includes hold this checkpoint. */
  standbyAdvanced(
    vpg: VpgId,
    advance: { readonly ordinal: Ordinal; readonly putSizeBytes: number; readonly millis: number },
  ): void
  /** It is tried again. */
  standbyFailed(vpg: VpgId, failure: Failure): void
  /** None is left. */
  standbyEnded(vpg: VpgId): void
}
