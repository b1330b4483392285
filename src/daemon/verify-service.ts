import type { VpgId } from '../base/ids.ts'
import type { DumpPage, Finding } from '../control/service.ts'
import type { HiddenVersions, StoreConfig } from '../store/store.ts'

// A thread that is started for one verification, one page of a dump, or one listing of versions, and ended after it: it may read terabytes.

export interface VerifyService {
  verifyJournal(argument: {
    readonly dataDirectory: string
    /** Every VPG that is served, for its name. */
    readonly vpgs: readonly NamedVpg[]
    /** Findings of others are left out; what nobody can say whose it is, is not. */
    readonly only: VpgId | undefined
  }): Promise<void>
  verifyMirror(argument: { readonly store: StoreConfig; readonly vpgs: readonly NamedVpg[] }): Promise<void>
  /** Lines `from` to `from + limit` of the whole dump. */
  dumpJournal(
    argument: DumpArgument & { readonly dataDirectory: string; readonly only: VpgId | undefined },
  ): Promise<DumpPage>
  dumpMirror(
    argument: DumpArgument & { readonly store: StoreConfig; readonly vpgs: readonly VpgId[] },
  ): Promise<DumpPage>
  hiddenVersions(argument: { readonly store: StoreConfig; readonly vpg: VpgId }): Promise<HiddenVersions>
}

export interface NamedVpg {
  readonly id: VpgId
  readonly name: string
}

export interface DumpArgument {
  readonly from: number
  readonly limit: number
}

export interface VerifyNotices {
  progress: {
    readonly checkedCount: number
    readonly checkedSizeBytes: number
    readonly totalSizeBytes: number | undefined
  }
  finding: Finding
}
