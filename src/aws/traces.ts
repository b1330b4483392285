/** What a recovery may have left. */
export interface Traces {
  /** Ids that are remembered. */
  readonly snapshots: readonly string[]
  readonly volumes: readonly string[]
  readonly images: readonly string[]
  readonly instances: readonly string[]
  /** Instances that brought along so many volumes each, of which not all are remembered. */
  readonly volumesBrought: ReadonlyMap<string, number>
  /** A creation has begun of which the record does not have the end. */
  readonly isSomethingUnnoted: boolean
  /** From now on; then all that there is, is listed. */
  readonly unlistedMillis: number
}

export const noTraces: Traces = {
  snapshots: [],
  volumes: [],
  images: [],
  instances: [],
  volumesBrought: new Map(),
  isSomethingUnnoted: false,
  unlistedMillis: 0,
}
