/**
 * Raw bytes of a pack in each region that it touches, as pairs of numbers one behind the other: region, bytes, region, bytes; ascending. A month of one large
 * volume has a million such pairs, so they are no objects. In a manifest they are `[[region, bytes], …]`.
 */
export type RegionSizes = Uint32Array

export function regionSizes(pairs: readonly (readonly [number, number])[]): RegionSizes {
  const sizes = new Uint32Array(2 * pairs.length)
  pairs.forEach(([region, sizeBytes], index) => {
    sizes[2 * index] = region
    sizes[2 * index + 1] = sizeBytes
  })
  return sizes
}

/** Each region and its bytes. */
export function* eachRegion(sizes: RegionSizes): Generator<readonly [number, number], void> {
  for (let at = 0; at < sizes.length; at += 2) yield [sizes[at] ?? 0, sizes[at + 1] ?? 0]
}
