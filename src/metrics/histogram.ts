import type { Metric, Registry } from 'prom-client'

/**
 * A histogram for the hot path: observing is a short search in a typed array, nothing is allocated. prom-client sees it at a scrape only.
 * Buckets are upper bounds in seconds, ascending.
 */
export class FastHistogram {
  readonly #bounds: Float64Array
  /** One more than bounds: the last is +Inf. Not cumulative until they are rendered. */
  readonly #counts: Float64Array
  #sum = 0

  constructor(boundsSeconds: readonly number[]) {
    this.#bounds = Float64Array.from(boundsSeconds)
    this.#counts = new Float64Array(boundsSeconds.length + 1)
  }

  observe(seconds: number): void {
    let bucket = 0
    while (bucket < this.#bounds.length && seconds > (this.#bounds[bucket] ?? Infinity)) bucket++
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1
    this.#sum += seconds
  }

  /** An upper bound, in seconds, of this share (0 to 1) of what was observed: its bucket's; 0 before the first. */
  quantile(share: number): number {
    const total = this.#counts.reduce((sum, count) => sum + count, 0)
    let below = 0
    for (let bucket = 0; bucket < this.#counts.length && total > 0; bucket++) {
      below += this.#counts[bucket] ?? 0
      if (below >= share * total) return this.#bounds[Math.min(bucket, this.#bounds.length - 1)] ?? 0
    }
    return 0
  }

  register(registry: Registry, name: string, help: string): void {
    const metric = {
      name,
      help,
      get: async () => ({ name, help, type: 'histogram', aggregator: 'sum', values: this.#values(name) }),
      reset: () => undefined,
    }
    registry.registerMetric(metric as unknown as Metric)
  }

  #values(name: string): object[] {
    let cumulative = 0
    const buckets = [...this.#counts].map((count, index) => {
      cumulative += count
      return { metricName: `${name}_bucket`, labels: { le: this.#bounds[index] ?? '+Inf' }, value: cumulative }
    })
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels: {}, value: this.#sum },
      { metricName: `${name}_count`, labels: {}, value: cumulative },
    ]
  }
}

/** From a sync of a fast disk to a group that waited for one file's rotation and more. */
export const latencyBoundsSeconds: readonly number[] = [
  0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]
