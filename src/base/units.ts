/** Binary sizes in bytes. */
export const KiB = 1024
export const MiB = 1024 * KiB
export const GiB = 1024 * MiB
export const TiB = 1024 * GiB

/** The smallest addressable piece of a volume, in bytes; every offset and length in a stream is a multiple of it. */
export const sectorSizeBytes = 512

/** Rounds down to a whole unit. No `& -unit`: past 2 GiB it returns a wrong, plausible offset. */
export function alignDown(offsetBytes: number, unitBytes: number): number {
  return offsetBytes - (offsetBytes % unitBytes)
}

/** Rounds up to a whole unit. */
export function alignUp(offsetBytes: number, unitBytes: number): number {
  const rest = offsetBytes % unitBytes
  return rest === 0 ? offsetBytes : offsetBytes + (unitBytes - rest)
}
