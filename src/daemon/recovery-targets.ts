import type { Clock } from '../base/clock.ts'
import { realDisk, realFileCalls } from '../disk/disk.ts'
import { RawTarget } from '../recovery/recovery.ts'
import type { RecoveryTarget } from '../recovery/target.ts'
import type { StoreConfig } from '../store/object-store.ts'
import type { Exports } from './exports.ts'

export interface RecoveryTargetParts {
  readonly clock: Clock
  /** The VRA's own. */
  readonly dataDirectory: string
  readonly exports: Pick<Exports, 'write'>
  readonly live: RecoveryTarget
  /** Undefined where no account is configured. */
  readonly aws: RecoveryTarget | undefined
  readonly store: StoreConfig
}

/** All that this daemon can recover to. */
export function recoveryTargets({
  clock,
  dataDirectory,
  exports,
  live,
  aws,
  store,
}: RecoveryTargetParts): RecoveryTarget[] {
  return [
    live,
    ...(aws === undefined ? [] : [aws]),
    new RawTarget({
      clock,
      calls: realFileCalls,
      freeBytes: directory => realDisk.freeBytes(directory),
      write: (argument, onProgress, signal) => exports.write(argument, onProgress, signal),
      ownDirectories: store.kind === 'directory' ? [dataDirectory, store.directory] : [dataDirectory],
    }),
  ]
}
