import type { VpgId } from '../base/ids.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VpgState } from '../timeline/state.ts'

// The front door is being filled in.

/** A VPG as the store has it. */
export interface LoadedVpg {
  readonly state: VpgState
  /** Every retained checkpoint that is in the store, oldest first. */
  readonly checkpoints: readonly Checkpoint[]
}

export interface VerifyReport {
  /** An object that was read and is whole. */
  whole(key: string): void
  /** Something is wrong: where, what, and what it affects. */
  damage(finding: { readonly key: string; readonly offsetBytes: number | undefined; readonly sentence: string }): void
}

export async function loadVpg(
  _store: ObjectStore,
  _id: VpgId,
  _applianceId: string,
  _signal: AbortSignal,
): Promise<LoadedVpg> {
  throw new Error('loadVpg is not there yet')
}

export async function listVpgs(_store: ObjectStore, _signal: AbortSignal): Promise<VpgId[]> {
  throw new Error('listVpgs is not there yet')
}

export async function verifyVpg(
  _store: ObjectStore,
  _id: VpgId,
  _report: VerifyReport,
  _signal: AbortSignal,
): Promise<void> {
  throw new Error('verifyVpg is not there yet')
}

/** Everything that the newest manifest says, as one text for people (JSON). */
export async function dumpVpg(_store: ObjectStore, _id: VpgId, _signal: AbortSignal): Promise<string> {
  throw new Error('dumpVpg is not there yet')
}
