import type { Workload } from './frames.ts'

/** A position that has crossed a process boundary. */
export interface PlainPosition {
  readonly generation: number
  readonly sequence: number
}

/** What a sender process is told to do; plain data, it crosses a process boundary. */
export interface SenderJob {
  readonly target: 'vra' | 'sink'
  readonly port: number
  /** PEM texts; undefined for plain TCP. */
  readonly tls: { readonly authority: string; readonly certificate: string; readonly privateKey: string } | undefined
  readonly agent: string
  /** A stream for each; for a sink only their number counts. */
  readonly vpgs: readonly { readonly name: string; readonly durable: PlainPosition }[]
  readonly volumeName: string
  readonly volumeSizeBytes: number
  readonly workload: Workload
  /** Frames under way per stream at most, in bytes; the VRA's credit may be less. */
  readonly windowBytes: number
  /** Undefined: as fast as it goes. */
  readonly rawBytesPerSecond: number | undefined
  readonly warmupMillis: number
  /** Measured for this long, or until so many writes have been sent in all, the warm-up included. */
  readonly measureMillis: number
  readonly writeCountMax: number | undefined
  /** Checkpoint markers at this interval in every stream, and one at the end; undefined: none. */
  readonly markerMillis: number | undefined
  /** A file that is written first, at the beginning of each volume, but for its zeros. */
  readonly imageFile?: string
}

export interface SenderResult {
  /** Acknowledged in the measured time. */
  readonly writeCount: number
  readonly rawSizeBytes: number
  readonly frameSizeBytes: number
  readonly elapsedSeconds: number
  /** Over the measured time only. */
  readonly cpuSeconds: number
  /** Raw over stored bytes. */
  readonly ratio: number
  /** Buckets of bench/histogram.ts, by frame; in a paced run from the moment when the frame was due. */
  readonly latencyCounts: readonly number[]
  /** The part of that before it was sent: of a paced run, by frame; that of a process which shares its cores with the receiver. */
  readonly latenessCounts: readonly number[]
  readonly writeCountTotal: number
}
