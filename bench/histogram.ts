/** Counts of durations in buckets that grow by 5 %, from 10 microseconds to over a minute: quantiles are exact to 5 %. */
export class Histogram {
  static readonly growth = 1.05
  static readonly firstMillis = 0.01
  readonly counts: number[]

  constructor(counts: readonly number[] = []) {
    this.counts = Array.from({ length: 340 }, (_, index) => counts[index] ?? 0)
  }

  add(millis: number, count = 1): void {
    const bucket = Math.ceil(Math.log(Math.max(millis, Histogram.firstMillis) / Histogram.firstMillis) / logGrowth)
    const index = Math.min(this.counts.length - 1, bucket)
    this.counts[index] = (this.counts[index] ?? 0) + count
  }

  get total(): number {
    return this.counts.reduce((sum, count) => sum + count, 0)
  }

  /** The upper end of the bucket that holds the share; undefined when nothing was counted. */
  quantileMillis(share: number): number | undefined {
    const wanted = this.total * share
    if (wanted === 0) return undefined
    let sum = 0
    const index = this.counts.findIndex(count => (sum += count) >= wanted)
    return Histogram.bucketEndMillis(index)
  }

  static bucketEndMillis(index: number): number {
    return Histogram.firstMillis * Histogram.growth ** index
  }
}

const logGrowth = Math.log(Histogram.growth)
