import cliProgress from 'cli-progress'
import type { VraStatus } from '../control/service.ts'
import { GiB, KiB, MiB } from '../base/units.ts'

// What the demonstration shows: steps as lines, and under them one line of live facts where there is a terminal.

export function formatBytes(sizeBytes: number): string {
  if (sizeBytes >= GiB) return `${(sizeBytes / GiB).toFixed(2)} GiB`
  if (sizeBytes >= MiB) return `${(sizeBytes / MiB).toFixed(1)} MiB`
  return `${(sizeBytes / KiB).toFixed(0)} KiB`
}

export class View {
  readonly #startedMillis = performance.now()
  readonly #bar = new cliProgress.SingleBar({
    format: '        {facts}',
    noTTYOutput: false,
    hideCursor: true,
    clearOnComplete: true,
  })
  #live = false

  step(text: string): void {
    this.#endLive()
    console.log(`${this.#elapsed()}  ${text}`)
  }

  detail(text: string): void {
    this.#endLive()
    console.log(`${' '.repeat(8)}${text}`)
  }

  /** Replaces the live line; without a terminal it is a line of its own, now and then. */
  live(status: VraStatus): void {
    const facts = liveFacts(status)
    if (!process.stdout.isTTY) {
      console.log(`${' '.repeat(8)}${facts}`)
      return
    }
    if (!this.#live) this.#bar.start(1, 0, { facts })
    this.#live = true
    this.#bar.update(0, { facts })
  }

  #endLive(): void {
    if (this.#live) this.#bar.stop()
    this.#live = false
  }

  #elapsed(): string {
    return `${((performance.now() - this.#startedMillis) / 1000).toFixed(1).padStart(5)} s`
  }
}

function liveFacts(status: VraStatus): string {
  const vpg = status.vpgs[0]
  if (vpg === undefined) return 'waiting'
  const { mirror } = vpg
  const rpo = vpg.rpoMillis === undefined ? '-' : `${(vpg.rpoMillis / 1000).toFixed(1)} s`
  const base = `${mirror.deltaCount} deltas, ${mirror.regionCount} regions (${formatBytes(mirror.deltaSizeBytes + mirror.baseSizeBytes)})`
  return [
    `${Math.round(vpg.writesPerSecond)} writes/s`,
    `${(vpg.bytesPerSecond / 1e6).toFixed(1)} MB/s`,
    `RPO ${rpo}`,
    `${vpg.checkpointCount} checkpoints`,
    `log ${formatBytes(mirror.unsealedSizeBytes)}`,
    `${mirror.segmentCount} segments (${formatBytes(mirror.segmentSizeBytes)})`,
    base,
  ].join(' | ')
}
