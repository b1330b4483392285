import { intervalsBeforeSilence } from '../base/limits.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { SyncKind, VolumeStatus } from '../wire/messages.ts'
import type { Stream } from './stream.ts'

// Why a VPG has no new checkpoints, in the words that a person reads. The gravest reason comes first.

export interface CheckpointSituation {
  readonly definition: VpgDefinition
  /** Those that take part in checkpoints. */
  readonly streams: readonly Stream[]
  readonly coordinator: Stream | undefined
  /** Whether a term could be issued, without which there is no coordinator. */
  readonly hasTerm: boolean
  /** Since the last checkpoint became complete. */
  readonly silentMillis: number
}

/** Told to agents as well, which come again. */
export const noTermSentence =
  "the VRA's disk does not take the term of a coordinator (is it full?): agents are served when it does"

/** A sentence; undefined while checkpoints are made. */
export function whyNoCheckpoints(situation: CheckpointSituation): string | undefined {
  const { definition, streams, coordinator, hasTerm, silentMillis } = situation
  if (!hasTerm) return noTermSentence
  if (coordinator === undefined) return 'the VPG has no agent'
  if (definition.paused) return 'the VPG is paused'
  const away = streams.filter(stream => stream.session?.facts === undefined).map(({ agent }) => `"${agent}"`)
  if (away.length > 0)
    return `the ${away.length === 1 ? 'agent' : 'agents'} ${away.join(', ')} ${away.length === 1 ? 'is' : 'are'} not connected`
  const refusal = whyRefused(situation)
  if (refusal !== undefined) return refusal
  if (silentMillis <= intervalsBeforeSilence * definition.checkpointIntervalMillis) return undefined
  return streams.some(stream => stream.status().waitingFrameCount > 0)
    ? 'the journal does not make records durable'
    : `the agent "${coordinator.agent}" has sent none for ${Math.round(silentMillis / 1000)} s`
}

/** What an agent says that keeps it from making or granting a checkpoint. */
export function whyRefused({
  definition,
  streams,
}: Pick<CheckpointSituation, 'definition' | 'streams'>): string | undefined {
  const volumes = streams.flatMap(stream => stream.agentStatus?.volumes ?? [])
  const nameOf = (volume: VolumeStatus): string =>
    definition.volumes.find(({ number }) => number === volume.number)?.name ?? String(volume.number)
  const ailing = volumes.find(volume => volume.needsSync && volume.sync === 'none')
  if (ailing !== undefined) return `the volume "${nameOf(ailing)}" needs a synchronisation: ${ailing.reason}`
  const stopping = volumes.find(volume => stopsCheckpoints(volume.sync))
  if (stopping !== undefined) return syncInWords(nameOf(stopping), stopping)
  const own = definition.volumes.map(({ number }) => volumes.find(volume => volume.number === number))
  const first = own.find(volume => volume !== undefined)
  if (first !== undefined && own.every(volume => volume?.sync === 'initial')) return syncInWords(nameOf(first), first)
  const refusing = streams.find(stream => (stream.agentStatus?.noCheckpointsBecause ?? '') !== '')
  return refusing === undefined ? undefined : `"${refusing.agent}" says: ${refusing.agentStatus?.noCheckpointsBecause}`
}

/** A first synchronisation only keeps its own volume out of checkpoints. */
function stopsCheckpoints(kind: SyncKind): boolean {
  return kind !== 'none' && kind !== 'initial'
}

function syncInWords(name: string, { sync, reason, syncDoneBytes, syncTotalBytes }: VolumeStatus): string {
  const percent = syncTotalBytes === 0 ? '' : `, ${Math.floor((100 * syncDoneBytes) / syncTotalBytes)} %`
  return `the volume "${name}" is being synchronised (${sync}${percent})${reason === '' ? '' : `: ${reason}`}`
}
