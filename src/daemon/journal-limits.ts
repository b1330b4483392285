import { Failure } from '../base/failure.ts'
import type * as api from '../control/service.ts'
import { durationInWords, instantInWords, sizeInWords } from '../control/words.ts'
import { fileSystemSizeBytes } from '../disk/disk.ts'
import type { StoreConfig } from '../store/object-store.ts'
import type { VpgDefinition } from '../timeline/definition.ts'

export type JournalLimits = Pick<VpgDefinition, 'journalWarnSizeBytes' | 'journalLimitSizeBytes'>

/**
 * The limits as bytes: those that were asked for, the others as before. A share is one of the disk that holds the store as it is now. Fails
 * REQUEST_INVALID for a share of a store that is on no disk here, and where the limit would come before its warning.
 */
export function journalLimitsOf(
  asked: api.JournalLimitsRequest,
  before: JournalLimits,
  store: StoreConfig,
): JournalLimits {
  const inBytes = (limit: api.JournalLimit | undefined, otherwise: number): number => {
    if (limit === undefined) return otherwise
    if (typeof limit === 'number') return limit
    if (store.kind !== 'directory')
      throw new Failure('REQUEST_INVALID', `the store is not on a disk of this host: give a size, not ${limit}`)
    return Math.floor((fileSystemSizeBytes(store.directory) * Number.parseInt(limit, 10)) / 100)
  }
  const limits = {
    journalWarnSizeBytes: inBytes(asked.journalWarnSizeBytes, before.journalWarnSizeBytes),
    journalLimitSizeBytes: inBytes(asked.journalLimitSizeBytes, before.journalLimitSizeBytes),
  }
  const { journalWarnSizeBytes: warn, journalLimitSizeBytes: limit } = limits
  if (limit > 0 && warn > limit)
    throw new Failure(
      'REQUEST_INVALID',
      `the warning at ${sizeInWords(warn)} would come after the limit, ${sizeInWords(limit)}`,
    )
  return limits
}

/** What people are told of a history that comes to its limits, or was cut short by them. */
export function journalLimitAlerts(vpg: api.VpgStatus): api.Alert[] {
  const { journalWarnSizeBytes: warn, journalLimitSizeBytes: limit, historyMillis, mirror } = vpg
  const takes = `the history takes ${sizeInWords(mirror.historySizeBytes)}`
  const sentences: string[] = []
  const waiting = vpg.volumes.filter(
    volume => volume.sync?.heldBecause !== undefined && volume.preseed?.state !== 'under-way',
  )
  for (const { name, sync } of waiting)
    sentences.push(`the synchronisation of volume ${name} waits: ${sync?.heldBecause ?? ''}`)
  if (limit > 0 && mirror.historySizeBytes > limit)
    sentences.push(`${takes}, more than its limit of ${sizeInWords(limit)}: its oldest checkpoints go`)
  else if (warn > 0 && mirror.historySizeBytes > warn) {
    const of = limit > 0 ? ` of ${sizeInWords(limit)}` : ''
    sentences.push(`${takes}${of}, more than the ${sizeInWords(warn)} to warn at`)
  }
  if (mirror.agedEarlySinceMicros !== undefined) {
    const [actual, wanted] = [mirror.historyMillis, historyMillis].map(durationInWords)
    const since = instantInWords(mirror.agedEarlySinceMicros)
    const allowed = limit > 0 ? `, ${sizeInWords(limit)}` : ' that it had'
    sentences.push(`the history is ${actual}, not ${wanted}: since ${since} it is cut short by the limit${allowed}`)
  }
  return sentences.map(sentence => ({ severity: 'warning', vpg: vpg.name, sentence }))
}
