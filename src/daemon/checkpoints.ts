import { covers } from '../timeline/positions.ts'
import { holeOver } from '../timeline/retention.ts'
import type { Catalog, Overview } from '../catalog/catalog.ts'
import { Failure } from '../base/failure.ts'
import { formatCheckpointId, ordinal, parseCheckpointId, type Ordinal } from '../base/ids.ts'
import { parseCheckpointReference } from '../control/reference.ts'
import type { CheckpointFacts, CheckpointList, CheckpointListQuery } from '../control/service.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { VolumeDefinition } from '../timeline/definition.ts'
import type { Histories } from './histories.ts'
import type { VpgEntry } from './vpg-table.ts'

/** Between two segments there are some 60 checkpoints; where the store was away there are more. */
const offloadedPageSize = 200
const offloadedPagesMax = 50

/** What is shown of a VPG's checkpoints. */
export interface CheckpointOverview {
  /** The newest that can be recovered. */
  readonly latest: Checkpoint | undefined
  /** The newest at which every volume of the VPG can be. */
  readonly latestOfAll: Checkpoint | undefined
  /** Undefined also where nobody knows, for the history was not read yet. */
  readonly oldest: Checkpoint | undefined
  readonly checkpointCount: number
}

/** Finds the checkpoints of a VPG by what people call them. */
export class Checkpoints {
  readonly #catalog: Catalog
  readonly #histories: Pick<Histories, 'untilIndexed'>

  constructor(catalog: Catalog, histories: Pick<Histories, 'untilIndexed'>) {
    this.#catalog = catalog
    this.#histories = histories
  }

  /** The recoverable checkpoint that the reference means. Fails CHECKPOINT_MISSING, saying what there is instead. */
  async find(entry: VpgEntry, reference: string, nowMicros: number): Promise<Checkpoint> {
    return this.#find(entry, { reference, nowMicros, including: [] })
  }

  /** The same for one volume: `latest` and times mean the newest checkpoint that includes it, and any other must. */
  async findFor(entry: VpgEntry, volume: VolumeDefinition, reference: string, nowMicros: number): Promise<Checkpoint> {
    const including = [volume.number]
    const found = await this.#find(entry, { reference, nowMicros, including })
    if (includes(found, volume.number)) return found
    const nearest = await this.nearestIncluding(entry, including, found.ordinal)
    const hint = nearest === undefined ? 'none does yet' : `the nearest that does is ${nearest}`
    throw new Failure(
      'CHECKPOINT_MISSING',
      `checkpoint ${describe(found)} of ${entry.definition.name} does not include the volume "${volume.name}": ${hint}`,
    )
  }

  /** The same for several volumes: `latest` and times mean the newest checkpoint that includes them all, any other is what it is. */
  async findIncluding(
    entry: VpgEntry,
    including: readonly number[],
    reference: string,
    nowMicros: number,
  ): Promise<Checkpoint> {
    return this.#find(entry, { reference, nowMicros, including })
  }

  /** Of those that include these volumes the one before this place, else the newest, in words. */
  async nearestIncluding(entry: VpgEntry, including: readonly number[], at: Ordinal): Promise<string | undefined> {
    const nearest = (await this.#newest(entry, including, at)) ?? (await this.#newest(entry, including, undefined))
    return nearest === undefined ? undefined : describe(nearest)
  }

  async #find(
    entry: VpgEntry,
    wanted: { readonly reference: string; readonly nowMicros: number; readonly including: readonly number[] },
  ): Promise<Checkpoint> {
    const { reference, nowMicros, including } = wanted
    const meant = parseCheckpointReference(reference, nowMicros)
    const vpg = entry.definition.id
    if (meant.kind === 'latest') {
      const newest = await this.#newest(entry, including, undefined)
      if (newest !== undefined && newest.ordinal >= (entry.unreadThrough ?? 0)) return newest
    }
    await this.#histories.untilIndexed(entry)
    switch (meant.kind) {
      case 'latest':
        return this.#required(entry, reference, await this.#newest(entry, including, undefined))
      case 'time': {
        const { timestampMicros } = meant
        const at = (bound: Bound) => this.#catalog.checkpointAt({ vpg, timestampMicros, including, ...bound })
        return this.#required(entry, reference, await newestOffered(entry, at))
      }
      case 'id':
        return this.#required(entry, reference, await this.#catalog.checkpoint({ vpg, ordinal: meant.ordinal }))
      case 'tag': {
        const tag = entry.tags.find(candidate => candidate.name === meant.tag)
        if (tag === undefined) throw notTagged(entry, reference)
        return this.#required(entry, reference, await this.#catalog.checkpoint({ vpg, ordinal: tag.ordinal }))
      }
    }
  }

  async list(entry: VpgEntry, query: CheckpointListQuery): Promise<CheckpointList> {
    await this.#histories.untilIndexed(entry)
    if (query.tagged === true) return this.#listTagged(entry, query)
    const after = query.after === undefined ? undefined : parseCheckpointId(query.after)
    if (query.after !== undefined && after === undefined)
      throw new Failure('REQUEST_INVALID', `"${query.after}" is not a checkpoint id`)
    const page = await this.#catalog.listCheckpoints({
      vpg: entry.definition.id,
      limit: query.limit,
      order: query.order,
      ...(after === undefined ? {} : { after }),
      ...(query.fromTimestampMicros === undefined ? {} : { fromTimestampMicros: query.fromTimestampMicros }),
      ...(query.toTimestampMicros === undefined ? {} : { toTimestampMicros: query.toTimestampMicros }),
    })
    return { checkpoints: page.checkpoints.map(checkpoint => checkpointFacts(entry, checkpoint)), more: page.more }
  }

  /** There are few tags, so they are all looked at. */
  async #listTagged(entry: VpgEntry, query: CheckpointListQuery): Promise<CheckpointList> {
    const vpg = entry.definition.id
    const ordinals = [...new Set(entry.tags.map(tag => tag.ordinal))]
    const found: Checkpoint[] = []
    for (const at of ordinals) {
      const checkpoint = await this.#catalog.checkpoint({ vpg, ordinal: at })
      if (checkpoint !== undefined) found.push(checkpoint)
    }
    const sign = query.order === 'oldest-first' ? 1 : -1
    const after = query.after === undefined ? undefined : parseCheckpointId(query.after)
    const matching = found
      .filter(checkpoint => after === undefined || sign * (checkpoint.ordinal - after) > 0)
      .filter(checkpoint => checkpoint.timestampMicros >= (query.fromTimestampMicros ?? 0))
      .filter(checkpoint => checkpoint.timestampMicros < (query.toTimestampMicros ?? Infinity))
      .sort((a, b) => sign * (a.ordinal - b.ordinal))
    const page = matching.slice(0, query.limit)
    return {
      checkpoints: page.map(checkpoint => checkpointFacts(entry, checkpoint)),
      more: matching.length > page.length,
    }
  }

  /** The newest recoverable one that is offloaded, so that it survives the loss of this appliance; undefined where none of the last ones is. */
  async newestOffloaded(entry: VpgEntry): Promise<Checkpoint | undefined> {
    const query = { vpg: entry.definition.id, limit: offloadedPageSize, order: 'newest-first' } as const
    let after: Ordinal | undefined
    for (let page = 0; page < offloadedPagesMax; page++) {
      const { checkpoints, more } = await this.#catalog.listCheckpoints({
        ...query,
        ...(after === undefined ? {} : { after }),
      })
      const found = checkpoints.find(
        ({ ordinal: at, vector }) => covers(entry.offloaded, vector) && holeOver(entry.holes, at) === undefined,
      )
      if (found !== undefined || !more) return found
      after = checkpoints.at(-1)?.ordinal
    }
    return undefined
  }

  /** Of each in its order: one question to the index for all, and more where holes have withdrawn the newest. */
  async overviews(entries: readonly VpgEntry[]): Promise<CheckpointOverview[]> {
    const vpgs = entries.map(({ definition: { id, volumes } }) => ({
      vpg: id,
      volumes: volumes.map(({ number }) => number),
    }))
    const found = await this.#catalog.overviews({ vpgs })
    return await Promise.all(entries.map((entry, index) => this.#overview(entry, found[index])))
  }

  async #overview(entry: VpgEntry, found: Overview | undefined): Promise<CheckpointOverview> {
    const { newest, newestOfAll, oldest, checkpointCount = 0 } = found ?? {}
    const isWithdrawn = (checkpoint: Checkpoint | undefined): boolean =>
      checkpoint !== undefined && !isRecoverable(entry, checkpoint.ordinal)
    return {
      latest: isWithdrawn(newest) ? await this.latest(entry) : newest,
      latestOfAll: isWithdrawn(newestOfAll) ? await this.#latestOfAll(entry) : newestOfAll,
      oldest: entry.unreadThrough === undefined ? oldest : undefined,
      checkpointCount,
    }
  }

  async latest(entry: VpgEntry): Promise<Checkpoint | undefined> {
    return this.#newest(entry, [], undefined)
  }

  async #latestOfAll(entry: VpgEntry): Promise<Checkpoint | undefined> {
    return this.#newest(
      entry,
      entry.definition.volumes.map(({ number }) => number),
      undefined,
    )
  }

  /** The newest offered one that includes these volumes, below `before` where given. */
  async #newest(
    entry: VpgEntry,
    including: readonly number[],
    before: Ordinal | undefined,
  ): Promise<Checkpoint | undefined> {
    const vpg = entry.definition.id
    const below = before === undefined ? {} : { before }
    return newestOffered(entry, bound => this.#catalog.latestCheckpoint({ vpg, including, ...below, ...bound }))
  }

  async #required(entry: VpgEntry, reference: string, found: Checkpoint | undefined): Promise<Checkpoint> {
    const { name } = entry.definition
    if (found === undefined) {
      const hint = await this.#nearest(entry, reference)
      throw new Failure('CHECKPOINT_MISSING', `${name} has no recoverable checkpoint for "${reference}": ${hint}`)
    }
    if (!isRecoverable(entry, found.ordinal))
      throw new Failure(
        'CHECKPOINT_MISSING',
        `checkpoint ${describe(found)} of ${name} is withdrawn: ${whyWithdrawn(entry, found.ordinal)}`,
      )
    if (!entry.isRetained(found.ordinal))
      throw new Failure('CHECKPOINT_MISSING', `checkpoint ${describe(found)} of ${name} has left the history`)
    return found
  }

  /** What there is instead, in words: the neighbours of an id, otherwise the oldest. */
  async #nearest(entry: VpgEntry, reference: string): Promise<string> {
    const vpg = entry.definition.id
    const at = parseCheckpointId(reference.trim())
    const before = at === undefined ? undefined : await this.#newest(entry, [], at)
    const query = { vpg, limit: 1, order: 'oldest-first', ...(at === undefined ? {} : { after: at }) } as const
    const after = (await this.#catalog.listCheckpoints(query)).checkpoints[0]
    const found = [before, after].filter(checkpoint => checkpoint !== undefined).map(describe)
    if (found.length === 0) return 'there is none yet'
    return at === undefined ? `the oldest is ${found.join('')}` : `the nearest that are kept are ${found.join(' and ')}`
  }
}

function isRecoverable(entry: VpgEntry, at: Ordinal): boolean {
  return holeOver(entry.holes, at) === undefined
}

function whyWithdrawn(entry: VpgEntry, at: Ordinal): string {
  const hole = holeOver(entry.holes, at)
  const from = formatCheckpointId(hole?.fromOrdinal ?? ordinal(0))
  const repaired = hole?.repairedFromOrdinal
  const later = repaired === undefined ? '' : `, and so are those from ${formatCheckpointId(repaired)} on`
  return `${hole?.reason ?? 'damage'}; those before ${from} are whole${later}`
}

/** A word that is no instant and no id can only have been meant for a tag. */
function notTagged({ definition, tags }: VpgEntry, reference: string): Failure {
  const names = [...new Set(tags.map(({ name }) => `"${name}"`))]
  const told = names.slice(-tagsToldMax).join(', ')
  const known =
    names.length === 0 ? 'it has no tags' : `its ${names.length > tagsToldMax ? 'latest tags' : 'tags'} are ${told}`
  return new Failure(
    'CHECKPOINT_MISSING',
    `${definition.name} has no recoverable checkpoint for "${reference}": nothing of it is tagged so; ${known}`,
  )
}

const tagsToldMax = 8

interface Bound {
  /** Exclusive. */
  readonly before?: Ordinal
}

/** The newest that `find` gives and no hole withdraws. */
async function newestOffered(
  entry: VpgEntry,
  find: (bound: Bound) => Promise<Checkpoint | undefined>,
): Promise<Checkpoint | undefined> {
  let found = await find({})
  for (let hole; found !== undefined && (hole = holeOver(entry.holes, found.ordinal)) !== undefined;)
    found = await find({ before: hole.fromOrdinal })
  return found
}

function includes(checkpoint: Checkpoint, volume: number): boolean {
  return checkpoint.volumes.some(({ number, included }) => number === volume && included)
}

function describe(checkpoint: Checkpoint): string {
  return `${formatCheckpointId(checkpoint.ordinal)} of ${new Date(checkpoint.timestampMicros / 1000).toISOString()}`
}

export function checkpointFacts(entry: VpgEntry, checkpoint: Checkpoint): CheckpointFacts {
  const { volumes, removedVolumes } = entry.definition
  const nameOf = (number: number): string =>
    [...volumes, ...removedVolumes].find(volume => volume.number === number)?.name ?? `volume ${number}`
  return {
    checkpoint: formatCheckpointId(checkpoint.ordinal),
    timestampMicros: checkpoint.timestampMicros,
    tags: entry.tagsOf(checkpoint.ordinal),
    recoverable: isRecoverable(entry, checkpoint.ordinal) && entry.isRetained(checkpoint.ordinal),
    volumes: checkpoint.volumes.map(volume => ({
      name: nameOf(volume.number),
      sizeBytes: volume.sizeBytes,
      included: volume.included,
    })),
  }
}
