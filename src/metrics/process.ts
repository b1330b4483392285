import { readdirSync } from 'node:fs'
import type { IntervalHistogram } from 'node:perf_hooks'
import { Counter, Gauge, type Registry } from 'prom-client'

/** The process itself. prom-client's own default set is not used: some of its names fail `promtool check metrics`. */
export function registerProcessMetrics(registry: Registry, version: string, loopDelay: IntervalHistogram): void {
  const registers = [registry]
  new Gauge({
    name: 'vra_build_info',
    help: 'Always 1; the labels say what runs here.',
    labelNames: ['version', 'node_version'],
    registers,
  }).set({ version, node_version: process.versions.node }, 1)
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'User and system CPU time of all threads, in seconds.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage()
      this.reset()
      this.inc((user + system) / 1e6)
    },
  })
  new Gauge({
    name: 'process_start_time_seconds',
    help: 'When the process started, in seconds since 1970.',
    registers,
  }).set(Math.round(Date.now() / 1000 - process.uptime()))
  gauge(registry, 'process_resident_memory_bytes', 'Resident memory of the process.', () => process.memoryUsage.rss())
  gauge(
    registry,
    'process_heap_bytes',
    "Heap in use by the main thread's JavaScript.",
    () => process.memoryUsage().heapUsed,
  )
  gauge(registry, 'process_open_fds', 'Open file descriptors.', openDescriptorCount)
  registerLoopDelay(registry, loopDelay)
}

/** Undefined: without TLS. */
export function registerCertificate(
  registry: Registry,
  role: 'vra' | 'vra_agent',
  endSeconds: number | undefined,
): void {
  const name = `${role}_certificate_not_after_seconds`
  const help =
    'When its certificate, or that of its authority, ends, in seconds since 1970, as they were at the start; +Inf without TLS.'
  gauge(registry, name, help, () => endSeconds ?? Infinity)
}

/** How late the main thread's loop runs its timers, between two scrapes. */
function registerLoopDelay(registry: Registry, delay: IntervalHistogram): void {
  const seconds = (nanoseconds: number): number => (Number.isFinite(nanoseconds) ? nanoseconds / 1e9 : 0)
  const help = (what: string): string => `${what} delay of the event loop since the last scrape, in seconds.`
  gauge(registry, 'vra_event_loop_delay_p50_seconds', help('Median'), () => seconds(delay.percentile(50)))
  gauge(registry, 'vra_event_loop_delay_p99_seconds', help('99th percentile of the'), () =>
    seconds(delay.percentile(99)),
  )
  gauge(registry, 'vra_event_loop_delay_max_seconds', help('Greatest'), () => {
    const max = seconds(delay.max)
    delay.reset() // the last of the three to be collected
    return max
  })
}

export function gauge(registry: Registry, name: string, help: string, value: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(value())
    },
  })
}

/** A counter whose count somebody keeps as a plain number. */
export function counter(registry: Registry, name: string, help: string, value: () => number): void {
  new Counter({
    name,
    help,
    registers: [registry],
    collect() {
      this.reset()
      this.inc(value())
    },
  })
}

/** What a metric with labels is at a scrape. */
type Samples = Iterable<readonly [labels: Readonly<Record<string, string>>, value: number]>

interface Labelled {
  readonly name: string
  readonly help: string
  readonly labelNames: readonly string[]
}

/** As counter(), by labels: samples that somebody keeps, all found anew at each scrape. Few: those of VPGs are in series.ts. */
export function counters(registry: Registry, { name, help, labelNames }: Labelled, samples: () => Samples): void {
  new Counter({
    name,
    help,
    labelNames: [...labelNames],
    registers: [registry],
    collect() {
      this.reset()
      for (const [labels, value] of samples()) this.inc({ ...labels }, value)
    },
  })
}

function openDescriptorCount(): number {
  try {
    return readdirSync('/proc/self/fd').length - 1
  } catch {
    return 0 // no /proc here
  }
}
