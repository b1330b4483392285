import { logFileSizeBytes } from '../../../src/base/limits.ts'
import { GiB, KiB, MiB } from '../../../src/base/units.ts'
import type { AgentSettings } from './agent.ts'
import type { SimulatedPeers } from './peers.ts'
import type { VraSettings } from './vra.ts'
import type { World } from './world.ts'

// What a seed decides before anything happens: how large, how slow, how eager. Extremes are as frequent as what is usual.

/** How long it lasts before everything is mended. */
export interface Pace {
  /** Hours, in which little is done, instead of a minute. */
  readonly isLong: boolean
  readonly durationMillis: number
}

const hourMillis = 3_600_000
/** Every checkpoint for a moment, then ever fewer. */
const thinning = {
  historyMillis: 32_000,
  retention: {
    formatVersion: 1,
    densities: [
      { everyMillis: 0, forMillis: 200 },
      { everyMillis: 2_000, forMillis: 8_000 },
      { everyMillis: 8_000, forMillis: 32_000 },
    ],
  },
} as const

export function paceOf(world: World): Pace {
  const { random } = world
  const isLong = random.chance(0.001)
  if (isLong) return { isLong, durationMillis: world.delay(hourMillis, 3 * hourMillis) }
  return { isLong, durationMillis: world.delay(1_500, random.chance(0.1) ? 60_000 : 10_000) }
}

export function siteSettings(world: World, peers: SimulatedPeers, { isLong }: Pace): readonly AgentSettings[] {
  const { random } = world
  const count = random.chance(0.4) ? random.integer(2, 3) : 1
  const sites: AgentSettings[] = []
  let firstVolume = 1
  for (let at = 0; at < count; at++) {
    const volumeCount = random.integer(1, count > 1 ? 2 : 3)
    sites.push({
      ...siteSetting(world, volumeCount, isLong),
      id: 'abc'[at]!,
      stream: at + 1,
      firstVolume,
      peers: count === 1 ? undefined : { network: peers, host: `10.0.1.${at + 1}` },
    })
    firstVolume += volumeCount
  }
  return sites
}

function siteSetting(
  world: World,
  volumeCount: number,
  isLong: boolean,
): Omit<AgentSettings, 'id' | 'stream' | 'firstVolume' | 'peers'> {
  const { random } = world
  return {
    volumeSizesBytes: Array.from(
      { length: volumeCount },
      // Up to three regions of a dirty map.
      () => random.integer(8, random.chance(0.85) ? 256 : 4_300) * 512,
    ),
    volumeDelayMillisMax: world.pick([0.2, 2, 20]),
    // Less than can be configured, so that a few writes fill it.
    queueSizeBytesMax: random.chance(0.15) ? random.integer(256, 1_024) * KiB : 256 * MiB,
    batchDelayMillisMax: world.pick([0.5, 2, 20]),
    sealer: { delayMillisMax: world.pick([0, 0.2, 5, 100]), deathShare: world.pick([0, 0.02]) },
    markRotationMillisMin: world.pick([100, 1_000, 10_000]),
    foundSectorCountMax: world.pick([0, 40]),
    guests: {
      guestCount: random.integer(1, 2),
      thinkMillisMax: isLong ? 120_000 : world.pick([400, 1_000, 4_000]),
      sectorsPerWriteMax: world.pick([4, 8, 32]),
      hotSectors: random.integer(1, 24),
    },
  }
}

export function vraSettings(
  world: World,
  sites: readonly AgentSettings[],
  { isLong }: Pace,
): Omit<VraSettings, 'asksBehindPowerCuts'> {
  const { random } = world
  const volumes = sites.flatMap(({ firstVolume, stream, volumeSizesBytes }) =>
    volumeSizesBytes.map((sizeBytes, index) => {
      const number = firstVolume + index
      return { number, name: `disk${number}`, sizeBytes, stream }
    }),
  )
  const historyMillis = isLong ? 600_000 : world.pick([1_500, 5_000, 20_000, 3_600_000])
  const isThinned = !isLong && random.chance(0.4)
  const foldSizeBytesMin = world.pick([8, 64, 512]) * KiB
  return {
    // Every start opens another log file, and without a store none is freed.
    logSizeBytesMax: 16 * GiB,
    poolSizeBytes: 2 * MiB,
    syncDelayMillisMax: world.pick([0.5, 5, 50]),
    storeDelayMillisMax: world.pick([1, 20, 500]),
    definition: {
      volumes,
      streams: sites.map(({ id: agent, stream: number }) => ({ number, agent })),
      checkpointIntervalMillis: isThinned ? 1_000 : random.integer(1, 5) * 1_000,
      ...(isThinned ? thinning : { historyMillis }),
      journalLimitSizeBytes: random.chance(0.2) ? world.pick([32, 256]) * KiB : 0,
    },
    aging: {
      segmentAgeMillisMax: world.pick([500, 4_000, 30_000]),
      foldSizeBytesMin,
      foldSizeBytesMax: 2 * foldSizeBytesMin,
      garbageGraceMillis: world.pick([1_000, 10_000, 600_000]),
      logSizeBytesPressure: world.pick([1, 4, 64]) * logFileSizeBytes,
    },
  }
}
