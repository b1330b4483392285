import type { VpgId } from '../base/ids.ts'
import type { RecoveryRecord } from '../timeline/recovery.ts'

export interface RecoveryEvents {
  /** Durable: it has begun, or is in another state. */
  recoveryChanged(vpg: VpgId, record: RecoveryRecord): void
  /** It does not get on, and is tried again. */
  recoveryInTrouble(vpg: VpgId, record: RecoveryRecord, sentence: string): void
}
