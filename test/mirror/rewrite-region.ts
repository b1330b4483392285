import t from 'tap'
import { KiB } from '../../src/base/units.ts'
import { ordinal } from '../../src/base/ids.ts'
import { rewriteRegion, verifyPack, Workspace, type RewriteRequest } from '../../src/mirror/mirror.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { testRegionSizeBytes, TestTimeline } from '../support/mirror-timeline.ts'

const { signal } = new AbortController()
const limits = { packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 2 ** 30, partitionSizeBytes: 2 ** 20 }

/** Two deltas over two regions. */
async function prepare(directory: string): Promise<{ timeline: TestTimeline; request: RewriteRequest }> {
  const history = new History(seeded(9), [{ number: 1, sizeBytes: 128 * KiB, included: true }], 1)
  const timeline = new TestTimeline(history, directory)
  for (let round = 0; round < 2; round++) {
    for (let count = 0; count < 10; count++) history.write()
    timeline.checkpoint()
    await timeline.fold(limits)
  }
  const request: RewriteRequest = {
    store: timeline.store,
    newKey: () => 'base',
    workspace: new Workspace(),
    yieldNow: () => Promise.resolve(),
    signal,
    state: timeline.state,
    vpg: timeline.vpg,
    epoch: 1,
    volume: 1,
    region: 0,
    asOfOrdinal: timeline.retained[0]!.ordinal,
    regionSizeBytes: testRegionSizeBytes,
  }
  return { timeline, request }
}

t.test('a new version holds the region and nothing beside it, without its zeros', async t => {
  const { timeline, request } = await prepare(t.testdir())
  const version = await rewriteRegion(request)
  const pack = version.pack!
  t.strictSame((await verifyPack(timeline.store, pack.object, signal)).faults, [])
  t.ok(pack.endBytes <= testRegionSizeBytes && pack.rawSizeBytes <= testRegionSizeBytes)
  const held = timeline.history.contents.get(request.asOfOrdinal)!.get(1)!.subarray(0, testRegionSizeBytes)
  let pages = 0
  for (let at = 0; at < held.length; at += 4096) if (held.subarray(at, at + 4096).some(byte => byte !== 0)) pages++
  t.equal(pack.rawSizeBytes, pages * 4096)
})

t.test('a version as of the first delta needs nothing of the second, and later ones nothing of the first', async t => {
  const { timeline, request } = await prepare(t.testdir())
  const [first, second] = timeline.state.deltas
  const secondKeys = second!.packs.map(pack => pack.object.key)
  const secondPacks = secondKeys.map(key => [key, timeline.store.objects.get(key)!] as const)
  secondKeys.forEach(key => timeline.store.objects.delete(key))
  const version = await rewriteRegion(request)
  secondPacks.forEach(([key, bytes]) => timeline.store.objects.set(key, bytes))
  first!.packs.forEach(pack => timeline.store.objects.delete(pack.object.key))
  const later = await rewriteRegion({
    ...request,
    newKey: () => 'base-2',
    state: { ...request.state, regions: [version] },
    asOfOrdinal: timeline.retained[1]!.ordinal,
  })
  t.equal(later.asOfOrdinal, timeline.retained[1]!.ordinal)
  await t.rejects(
    rewriteRegion({ ...request, newKey: () => 'base-3' }),
    { code: 'OBJECT_CORRUPT' },
    'it is needed here',
  )
})

t.test('a region of zeros has no pack', async t => {
  const { request } = await prepare(t.testdir())
  const version = await rewriteRegion({ ...request, region: 7 })
  t.strictSame(version, { volume: 1, region: 7, asOfOrdinal: ordinal(request.asOfOrdinal), pack: undefined })
})
