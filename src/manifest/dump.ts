import { formatCheckpointId, type VpgId } from '../base/ids.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { readManifest } from './read.ts'

/** What the newest manifest of a VPG says, a fact a line. Fails as reading a manifest does. */
export async function* dumpVpg(store: ObjectStore, vpg: VpgId, signal: AbortSignal): AsyncGenerator<string> {
  const { root, rootObject, contents, pageSet, after } = await readManifest(store, vpg, signal)
  const { state } = contents
  const { definition } = state
  yield `vpg ${vpg} "${definition.name}" incarnation ${definition.incarnation}, owner ${root.header.applianceId}`
  yield `root ${rootObject.key} ${rootObject.sizeBytes} bytes, epoch ${state.epoch}`
  for (const { epoch, from, atMicros } of contents.takeovers ?? []) {
    yield `epoch ${epoch} began at ${atMicros} us: taken over from ${from}`
  }
  if (contents.deletedAtMicros !== undefined) yield `deleted at ${contents.deletedAtMicros} us`
  for (const { place } of [...pageSet.indexes, ...pageSet.written.values()]) {
    yield `page ${place.page.key} ${place.page.sizeBytes} bytes: ${place.name}`
  }
  for (const volume of definition.volumes) yield `volume ${volume.number} "${volume.name}" ${volume.sizeBytes} bytes`
  for (const stream of definition.streams) yield `stream ${stream.number} of agent "${stream.agent}"`
  for (const at of state.offloaded) yield `offloaded stream ${at.stream} ${at.generation}:${at.sequence}`
  yield `history ${definition.historyMillis} ms, edge at ${formatCheckpointId(state.historyEdge)}`
  for (const delta of state.deltas) {
    const [from, to] = [formatCheckpointId(delta.fromOrdinal), formatCheckpointId(delta.toOrdinal)]
    yield `delta ${from} to ${to}: ${delta.packs.length} packs, ${delta.rawSizeBytes} raw bytes, ${delta.checkpointCount} checkpoints`
    yield `  checkpoints ${delta.checkpoints.key} ${delta.checkpoints.sizeBytes} bytes`
    for (const { object, volume, startBytes, endBytes } of delta.packs) {
      yield `  pack ${object.key} ${object.sizeBytes} bytes: volume ${volume} from ${startBytes} to ${endBytes}`
    }
  }
  for (const segment of state.segments) {
    yield `segment ${segment.object.key} ${segment.object.sizeBytes} bytes: ${segment.writeCount} writes, ${segment.rawSizeBytes} raw bytes`
  }
  for (const object of after) yield `segment ${object.key} ${object.sizeBytes} bytes, after this manifest`
  for (const { volume, region, asOfOrdinal, pack } of state.regions) {
    const where = pack === undefined ? 'zeros' : `${pack.object.key} ${pack.object.sizeBytes} bytes`
    yield `region ${volume}/${region} as of ${formatCheckpointId(asOfOrdinal)}: ${where}`
  }
  for (const tag of state.tags) yield `tag "${tag.name}" on ${formatCheckpointId(tag.ordinal)}`
  for (const pin of state.pins) yield `pin ${pin.id} of ${pin.owner} on ${formatCheckpointId(pin.ordinal)}`
  for (const { id, kind, state: at, target, checkpoint, failure } of state.recoveries) {
    const where = checkpoint === undefined ? 'no checkpoint yet' : formatCheckpointId(checkpoint.ordinal)
    yield `recovery ${id} ${kind} ${at}, on ${target.kind}, at ${where}${failure === undefined ? '' : `: ${failure.sentence}`}`
  }
  if (state.standby !== undefined) {
    const { id, state: at, checkpoints } = state.standby
    yield `standby ${id} ${at}, of ${checkpoints.map(({ ordinal }) => formatCheckpointId(ordinal)).join(', ')}`
  }
  for (const hole of state.holes) yield `hole from ${formatCheckpointId(hole.fromOrdinal)}: ${hole.reason}`
  for (const { key, leftAtMicros } of state.garbage) yield `garbage ${key} since ${leftAtMicros} us`
}
