/** What a recovery may have left. */
export interface Traces {
  /** Ids that are remembered. */
  readonly snapshots: readonly string[]
  readonly volumes: readonly string[]
  readonly images: readonly string[]
  readonly instances: readonly string[]
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
  isSomethingUnnoted: false,
  unlistedMillis: 0,
}
