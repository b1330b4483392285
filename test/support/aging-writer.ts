import type { Ordinal } from '../../src/base/ids.ts'
import { regionSizeBytes } from '../../src/base/limits.ts'
import { Permits } from '../../src/base/permits.ts'
import { AwakeVpgs } from '../../src/aging/awake-vpgs.ts'
import { StoreAnswers } from '../../src/aging/store-answers.ts'
import type { AgingTools } from '../../src/aging/tools.ts'
import { VpgWriter } from '../../src/aging/vpg-writer.ts'
import { VpgCommits } from '../../src/manifest/manifest.ts'
import { regionSizes } from '../../src/timeline/region-sizes.ts'
import type { RegionVersion } from '../../src/timeline/state.ts'
import { AgingModel } from './aging-model.ts'
import { randomFrom } from './segment-records.ts'

/** The writer of a VPG without the worker around it, for what has to happen between two of its commits. */
export async function openWriter(directory: string) {
  const { store, clock, config, definition } = new AgingModel(randomFrom(81), directory, 60_000)
  const { signal } = new AbortController()
  const tools = {
    ...{ store, clock, config, signal, memos: undefined, notify: () => undefined },
    segmentPermit: new Permits(1),
    mergePermit: new Permits(1),
    awake: new AwakeVpgs(Infinity, clock),
    answers: new StoreAnswers(clock),
  } as unknown as AgingTools
  const commits = await VpgCommits.create({ store, clock, applianceId: config.applianceId }, definition, signal)
  const owner = { isUnread: false, awakeSizeBytes: 0, sleep: () => false, woken: () => undefined }
  const writer = new VpgWriter(tools, commits, { folded: [] }, owner)
  await writer.exclusively(turn => turn.commitManifest({ contents: turn.contents }))
  return { tools, writer, store, clock, config }
}

export async function commitRegions(
  writer: VpgWriter,
  regions: readonly RegionVersion[],
  leftKeys: readonly string[] = [],
): Promise<void> {
  await writer.exclusively(async ({ contents, commitManifest }) => {
    await commitManifest({ contents: { ...contents, state: { ...contents.state, regions } }, leftKeys })
  })
}

/** Of the first region of volume 1; its pack is named, not there. */
export function regionAsOf(ordinal: number, key: string): RegionVersion {
  const pack = {
    ...{ object: { key, sizeBytes: 4096 }, volume: 1, startBytes: 0, endBytes: regionSizeBytes },
    ...{ indexOffsetBytes: 1024, extentCount: 1, rawSizeBytes: 512, regionRawSizeBytes: regionSizes([[0, 512]]) },
  }
  return { volume: 1, region: 0, asOfOrdinal: ordinal as Ordinal, pack }
}
