import type Database from 'better-sqlite3'
import type { Ordinal, StreamPosition, VpgId } from '../base/ids.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import { decodePortions } from '../timeline/checkpoint-page.ts'
import type { RecoverablePoint } from '../timeline/recoverable.ts'
import type { SegmentSpan } from '../timeline/state.ts'
import { sizeBytesOf, statementOf } from './catalog-file.ts'
import { checkpointToRow, includesAll, checkpointsFromRows, type CheckpointRow } from './checkpoint-codec.ts'
import type {
  CatalogNote,
  CatalogStatistics,
  CheckpointPage,
  CheckpointQuery,
  CheckpointsAbove,
  Overview,
  OverviewQuery,
  TailRow,
} from './service.ts'

// The index's tables. Every method is one transaction at most and bounded; what is long is a generator of bounded steps,
// between which other calls are answered.

const selectVpg = `SELECT id, historyId, checkpointCount, segmentCount, tailRowCount FROM vpg WHERE vpg = :vpg`
const insertVpg = `
  INSERT INTO vpg (id, vpg, historyId, checkpointCount, segmentCount, tailRowCount)
  VALUES (:id, :vpg, :historyId, 0, 0, 0)`
const deleteVpg = `DELETE FROM vpg WHERE id = :id`
const changeHistory = `
  UPDATE vpg SET historyId = :historyId, checkpointCount = :checkpointCount, segmentCount = :segmentCount WHERE id = :id`
const countRows = `
  UPDATE vpg
     SET checkpointCount = checkpointCount + :checkpointCount,
         segmentCount = segmentCount + :segmentCount,
         tailRowCount = tailRowCount + :tailRowCount
   WHERE id = :id`
const drawId = `UPDATE counter SET next = next + 1 RETURNING next - 1 AS id`

const insertNote = `INSERT OR REPLACE INTO note (vpg, text) VALUES (:vpg, :text)`
const selectNotes = `SELECT vpg, text FROM note`
const deleteNote = `DELETE FROM note WHERE vpg = :vpg`

const insertLeftover = `INSERT INTO leftover (id) VALUES (:id)`
const deleteLeftover = `DELETE FROM leftover WHERE id = :id`
const selectLeftovers = `SELECT id FROM leftover`
const deleteLeftoverRows = [
  `DELETE FROM tail WHERE vpgId = :id LIMIT :limit`,
  `DELETE FROM checkpoint WHERE historyId = :id LIMIT :limit`,
  `DELETE FROM segment WHERE historyId = :id LIMIT :limit`,
  `DELETE FROM segmentRange WHERE historyId = :id LIMIT :limit`,
]

const insertTail = `
  INSERT OR IGNORE INTO tail
    (vpgId, stream, generation, firstSequence, lastSequence, timestampMicros, fileIdentity, offsetBytes, sizeBytes)
  VALUES
    (:vpgId, :stream, :generation, :firstSequence, :lastSequence, :timestampMicros, :fileIdentity, :offsetBytes, :sizeBytes)`
const updateTail = `
  UPDATE tail
     SET lastSequence = :lastSequence, timestampMicros = :timestampMicros, fileIdentity = :fileIdentity,
         offsetBytes = :offsetBytes, sizeBytes = :sizeBytes
   WHERE vpgId = :vpgId AND stream = :stream AND generation = :generation AND firstSequence = :firstSequence`
const deleteOlderTail = `
  DELETE FROM tail WHERE vpgId = :vpgId AND stream = :stream AND generation < :generation LIMIT :limit`
const deleteCoveredTail = `
  DELETE FROM tail
   WHERE vpgId = :vpgId AND stream = :stream AND generation = :generation
     AND firstSequence <= :sequence AND lastSequence <= :sequence
   LIMIT :limit`
const selectTailAt = `
  SELECT stream, generation, firstSequence, lastSequence, timestampMicros, fileIdentity, offsetBytes, sizeBytes
    FROM tail
   WHERE vpgId = :vpgId AND stream = :stream AND generation = :generation AND firstSequence <= :sequence
   ORDER BY firstSequence DESC LIMIT 1`

const insertSegment = `INSERT OR IGNORE INTO segment (historyId, commitNumber, span) VALUES (:historyId, :commitNumber, :span)`
const updateSegment = `UPDATE segment SET span = :span WHERE historyId = :historyId AND commitNumber = :commitNumber`
const deleteSegments = `DELETE FROM segment WHERE historyId = :historyId AND commitNumber <= :commitNumber LIMIT :limit`
const insertSegmentRange = `
  INSERT OR REPLACE INTO segmentRange (historyId, stream, generation, firstSequence, lastSequence, commitNumber)
  VALUES (:historyId, :stream, :generation, :firstSequence, :lastSequence, :commitNumber)`
const deleteSegmentRanges = `
  DELETE FROM segmentRange WHERE historyId = :historyId AND commitNumber <= :commitNumber LIMIT :limit`
const selectSegmentAt = `
  SELECT segment.span, segmentRange.lastSequence
    FROM segmentRange JOIN segment USING (historyId, commitNumber)
   WHERE historyId = :historyId AND stream = :stream AND generation = :generation AND firstSequence <= :sequence
   ORDER BY firstSequence DESC LIMIT 1`

const insertVolumeList = `INSERT OR IGNORE INTO volumeList (volumes) VALUES (:volumes)`
const selectVolumeLists = `SELECT id, volumes FROM volumeList`
const selectVolumeList = `SELECT id FROM volumeList WHERE volumes = :volumes`
const insertCheckpoint = `
  INSERT OR IGNORE INTO checkpoint (historyId, ordinal, timestampMicros, historyMillis, vector, volumeListId)
  VALUES (:historyId, :ordinal, :timestampMicros, :historyMillis, :vector, :volumeListId)`
const updateCheckpoint = `
  UPDATE checkpoint
     SET timestampMicros = :timestampMicros, historyMillis = :historyMillis, vector = :vector, volumeListId = :volumeListId
   WHERE historyId = :historyId AND ordinal = :ordinal`
const deleteCheckpoint = `DELETE FROM checkpoint WHERE historyId = :historyId AND ordinal = :ordinal`
const deleteCheckpointsAbove = `
  DELETE FROM checkpoint WHERE historyId = :historyId AND ordinal > :above LIMIT :limit`
const copyCheckpoints = `
  INSERT OR REPLACE INTO checkpoint (historyId, ordinal, timestampMicros, historyMillis, vector, volumeListId)
  SELECT :historyId, ordinal, timestampMicros, historyMillis, vector, volumeListId
    FROM checkpoint
   WHERE historyId = :from AND ordinal > :above AND ordinal <= :through`
const selectCopyEnd = `
  SELECT max(ordinal) AS ordinal
    FROM (SELECT ordinal FROM checkpoint WHERE historyId = :historyId AND ordinal > :above ORDER BY ordinal LIMIT :limit)`
const selectOrdinals = `
  SELECT ordinal FROM checkpoint
   WHERE historyId = :historyId AND ordinal > :after AND ordinal < :edge
   ORDER BY ordinal LIMIT :limit`

// The plus signs keep the planner on the primary key, whose order the page has.
const columns = `ordinal, timestampMicros, historyMillis, vector, volumes`
const checkpointsWhere = `
  SELECT ${columns} FROM checkpoint JOIN volumeList ON volumeList.id = volumeListId
   WHERE historyId = :historyId AND ordinal >= :first AND ordinal <= :last
     AND +timestampMicros >= :from AND +timestampMicros < :to`
const selectNewestFirst = `${checkpointsWhere} ORDER BY ordinal DESC LIMIT :limit`
const selectNewestOfLists = `
  ${checkpointsWhere} AND volumeListId IN (SELECT value FROM json_each(:volumeListIds))
   ORDER BY ordinal DESC LIMIT :limit`
const selectOldestFirst = `${checkpointsWhere} ORDER BY ordinal LIMIT :limit`
const selectPoints = `
  SELECT ordinal, timestampMicros, historyMillis FROM checkpoint
   WHERE historyId = :historyId AND ordinal > :after
   ORDER BY ordinal LIMIT :limit`
const selectFirstFrom = `
  SELECT ordinal FROM checkpoint WHERE historyId = :historyId AND timestampMicros >= :timestampMicros
   ORDER BY timestampMicros, ordinal LIMIT 1`
const selectLastBelow = `
  SELECT ordinal FROM checkpoint WHERE historyId = :historyId AND timestampMicros < :timestampMicros
   ORDER BY timestampMicros DESC, ordinal DESC LIMIT 1`

/** Rows that one transaction deletes, or a load inserts: a few milliseconds. */
const deleteRowsMax = 500
const insertRowsMax = 2000
/** VPGs that one step looks at: of each it is two questions to the index. */
const vpgsPerStep = 64
/** Points that one step reads. */
const pointsMax = 5000

interface VpgRow {
  readonly id: number
  readonly historyId: number
  readonly checkpointCount: number
  readonly segmentCount: number
  readonly tailRowCount: number
}

interface Wanted {
  readonly before: Ordinal | undefined
  readonly including: readonly number[] | undefined
}

/** What is shown of a history, as far as rows have to be looked for. */
interface Ends extends Omit<Overview, 'checkpointCount'> {
  /** The numbers that were asked for. */
  readonly volumes: string
}

type Parameters = Readonly<Record<string, string | number>>
type Counts = Partial<Record<'checkpointCount' | 'segmentCount' | 'tailRowCount', number>>

export class CatalogTables {
  readonly #database: Database.Database
  /** Ids of lists of volumes by their text; few, and forgotten all at once when they are not. */
  readonly #volumeLists = new Map<string, number>()
  /** By historyId, for who watches asks far more often than most of them change; each is forgotten when a row of the history comes or goes. */
  readonly #ends = new Map<number, Ends>()

  constructor(database: Database.Database) {
    this.#database = database
  }

  add(
    rows: readonly TailRow[],
    checkpoints: readonly { readonly vpg: VpgId; readonly checkpoint: Checkpoint }[],
  ): void {
    this.#transact(() => {
      const added = new Map<VpgId, { tailRowCount: number; checkpointCount: number }>()
      const countsOf = (vpg: VpgId): { tailRowCount: number; checkpointCount: number } => {
        const counts = added.get(vpg) ?? { tailRowCount: 0, checkpointCount: 0 }
        added.set(vpg, counts)
        return counts
      }
      const rowOf = this.#vpgRows()
      for (const row of rows) countsOf(row.vpg).tailRowCount += this.#putTail(rowOf(row.vpg).id, row)
      for (const { vpg, checkpoint } of checkpoints)
        countsOf(vpg).checkpointCount += this.#putCheckpoint(rowOf(vpg).historyId, checkpoint)
      for (const [vpg, counts] of added) this.#count(rowOf(vpg).id, counts)
    })
  }

  /** Steps; the last but for clearing away makes the new rows the VPG's. */
  *load(argument: {
    readonly vpg: VpgId
    readonly segments: readonly SegmentSpan[]
    readonly checkpoints: readonly Checkpoint[] | Uint8Array
    readonly offloaded: readonly StreamPosition[]
    readonly keepAbove?: Ordinal
  }): Generator<void, void> {
    const { vpg, segments, checkpoints, offloaded, keepAbove } = argument
    const historyId = this.#transact(() => {
      const id = this.#drawId()
      this.#run(insertLeftover, { id }) // until it is in use: a load that was cut short leaves nothing
      return id
    })
    let checkpointCount = 0
    let segmentCount = 0
    for (const chunk of portionsOf(checkpoints)) {
      checkpointCount += this.#transact(() => sum(chunk, each => this.#putCheckpoint(historyId, each)))
      yield
    }
    for (const chunk of chunksOf(segments, insertRowsMax)) {
      segmentCount += this.#transact(() => sum(chunk, each => this.#putSegment(historyId, each)))
      yield
    }
    const kept = { historyId, above: keepAbove, count: 0 }
    while (this.#copyKept(vpg, kept) >= insertRowsMax) yield
    checkpointCount += kept.count
    this.#transact(() => {
      const row = this.#vpgRow(vpg)
      this.#ends.delete(row.historyId)
      checkpointCount += this.#copyKept(vpg, { ...kept })
      this.#run(changeHistory, { id: row.id, historyId, checkpointCount, segmentCount })
      this.#run(deleteLeftover, { id: historyId })
      this.#run(insertLeftover, { id: row.historyId })
    })
    yield* this.#dropTail(vpg, offloaded)
    yield* this.clearLeftovers()
  }

  /** Copies some of the checkpoints above the mark from the VPG's history into another, and moves the mark. Returns how many. */
  #copyKept(vpg: VpgId, kept: { readonly historyId: number; above: number | undefined; count: number }): number {
    const from = this.#find(vpg)?.historyId
    if (kept.above === undefined || from === undefined) return 0
    const { historyId, above } = kept
    const through = this.#ordinal(selectCopyEnd, { historyId: from, above, limit: insertRowsMax })
    if (through === undefined || through === null) return 0
    const count = this.#run(copyCheckpoints, { historyId, from, above, through })
    kept.above = through
    kept.count += count
    return count
  }

  notes(): CatalogNote[] {
    return this.#all<CatalogNote>(selectNotes, {})
  }

  *keepNotes(notes: readonly CatalogNote[]): Generator<void, void> {
    this.#transact(() => {
      for (const { vpg, text } of notes) this.#run(insertNote, { vpg, text })
    })
  }

  *dropCheckpointsAbove(vpgs: readonly CheckpointsAbove[]): Generator<void, void> {
    for (const [index, vpg] of vpgs.entries()) {
      yield* this.#dropAbove(vpg)
      if (index % vpgsPerStep === vpgsPerStep - 1) yield
    }
  }

  /** Of most there is nothing to drop, which is no transaction. */
  *#dropAbove({ vpg, above, noteFalls }: CheckpointsAbove): Generator<void, void> {
    const row = this.#find(vpg)
    if (row === undefined || !this.#hasAbove(row, above)) return
    const range = { historyId: row.historyId, above, limit: deleteRowsMax }
    yield* this.#deleteAll(deleteCheckpointsAbove, range, count => {
      this.#dropped(row, count)
      if (noteFalls && count > 0) this.#run(deleteNote, { vpg })
    })
  }

  #hasAbove({ historyId }: VpgRow, above: Ordinal): boolean {
    return this.#all(selectOrdinals, { historyId, after: above, edge: Infinity, limit: 1 }).length > 0
  }

  #dropped({ id, historyId }: VpgRow, count: number): void {
    this.#ends.delete(historyId)
    this.#count(id, { checkpointCount: -count })
  }

  *forget(vpg: VpgId): Generator<void, void> {
    const row = this.#find(vpg)
    if (row === undefined) return
    this.#transact(() => {
      this.#ends.delete(row.historyId)
      this.#run(deleteVpg, { id: row.id })
      this.#run(deleteNote, { vpg })
      this.#run(insertLeftover, { id: row.id })
      this.#run(insertLeftover, { id: row.historyId })
    })
    yield* this.clearLeftovers()
  }

  *addSegment(vpg: VpgId, segment: SegmentSpan, offloaded: readonly StreamPosition[]): Generator<void, void> {
    this.#transact(() => {
      const row = this.#vpgRow(vpg)
      this.#count(row.id, { segmentCount: this.#putSegment(row.historyId, segment) })
    })
    yield* this.#dropTail(vpg, offloaded)
  }

  *dropSegments(vpg: VpgId, throughCommitNumber: number): Generator<void, void> {
    const row = this.#find(vpg)
    if (row === undefined) return
    const through = { historyId: row.historyId, commitNumber: throughCommitNumber, limit: deleteRowsMax }
    yield* this.#deleteAll(deleteSegmentRanges, through, () => undefined)
    yield* this.#deleteAll(deleteSegments, through, count => this.#count(row.id, { segmentCount: -count }))
  }

  *dropCheckpoints(vpg: VpgId, edge: Ordinal, kept: readonly Ordinal[]): Generator<void, void> {
    const row = this.#find(vpg)
    if (row === undefined) return
    const keep = new Set<number>(kept)
    const { historyId } = row
    let after = -1
    for (;;) {
      const range = { historyId, after, edge, limit: deleteRowsMax }
      const ordinals = this.#all<{ ordinal: number }>(selectOrdinals, range).map(each => each.ordinal)
      const last = ordinals.at(-1)
      if (last === undefined) return
      after = last
      this.#transact(() => {
        const gone = ordinals.filter(each => !keep.has(each))
        const deleted = sum(gone, ordinal => this.#run(deleteCheckpoint, { historyId, ordinal }))
        this.#dropped(row, deleted)
      })
      yield
    }
  }

  *thinCheckpoints(vpg: VpgId, dropped: readonly Ordinal[]): Generator<void, void> {
    const row = this.#find(vpg)
    if (row === undefined) return
    const { historyId } = row
    for (const chunk of chunksOf(dropped, deleteRowsMax)) {
      this.#transact(() => {
        const deleted = sum(chunk, ordinal => this.#run(deleteCheckpoint, { historyId, ordinal }))
        this.#dropped(row, deleted)
      })
      yield
    }
  }

  /** Deletes the rows of ids that nobody uses any more. */
  *clearLeftovers(): Generator<void, void> {
    for (const { id } of this.#all<{ id: number }>(selectLeftovers, {})) {
      for (const statement of deleteLeftoverRows)
        yield* this.#deleteAll(statement, { id, limit: deleteRowsMax }, () => undefined)
      this.#run(deleteLeftover, { id })
    }
  }

  list(query: CheckpointQuery): CheckpointPage {
    const row = this.#find(query.vpg)
    const bounds = row === undefined ? undefined : this.#ordinalBounds(row.historyId, query)
    if (bounds === undefined) return { checkpoints: [], more: false }
    const statement = query.order === 'newest-first' ? selectNewestFirst : selectOldestFirst
    const found = this.#all<CheckpointRow>(statement, { ...bounds, limit: query.limit + 1 })
    return { checkpoints: checkpointsFromRows(found.slice(0, query.limit)), more: found.length > query.limit }
  }

  checkpoint(vpg: VpgId, ordinal: Ordinal): Checkpoint | undefined {
    return this.#newest(vpg, { first: ordinal, last: ordinal, to: Infinity })
  }

  latest(vpg: VpgId, { before, including }: Wanted): Checkpoint | undefined {
    const last = before === undefined ? Infinity : before - 1
    return this.#newest(vpg, { first: 0, last, to: Infinity }, including)
  }

  at(vpg: VpgId, timestampMicros: number, { before, including }: Wanted): Checkpoint | undefined {
    const row = this.#find(vpg)
    if (row === undefined) return undefined
    const to = timestampMicros + 1
    const newest = this.#ordinal(selectLastBelow, { historyId: row.historyId, timestampMicros: to })
    if (newest === undefined) return undefined
    const last = before === undefined ? newest : Math.min(newest, before - 1)
    return this.#newest(vpg, { first: 0, last, to }, including)
  }

  /** Of every checkpoint above `after`, the oldest first; some milliseconds. */
  points(vpg: VpgId, after: number): RecoverablePoint[] {
    const row = this.#find(vpg)
    if (row === undefined) return []
    return this.#all<RecoverablePoint>(selectPoints, { historyId: row.historyId, after, limit: pointsMax })
  }

  statistics(vpg: VpgId): CatalogStatistics {
    const { checkpointCount = 0, segmentCount = 0, tailRowCount = 0 } = this.#find(vpg) ?? {}
    return { checkpointCount, segmentCount, tailRowCount, fileSizeBytes: sizeBytesOf(this.#database) }
  }

  overview({ vpg, volumes }: OverviewQuery): Overview {
    const row = this.#find(vpg)
    if (row === undefined) return { newest: undefined, newestOfAll: undefined, oldest: undefined, checkpointCount: 0 }
    const { historyId, checkpointCount } = row
    const known = this.#ends.get(historyId)
    const ends = known?.volumes === volumes.join() ? known : this.#endsOf(vpg, volumes)
    this.#ends.set(historyId, ends)
    const { newest, newestOfAll, oldest } = ends
    return { newest, newestOfAll, oldest, checkpointCount }
  }

  #endsOf(vpg: VpgId, volumes: readonly number[]): Ends {
    const newest = this.latest(vpg, { before: undefined, including: [] })
    const isOfAll = volumes.every(number => newest?.volumes.some(each => each.number === number && each.included))
    const newestOfAll = isOfAll ? newest : this.latest(vpg, { before: undefined, including: volumes })
    const [oldest] = this.list({ vpg, limit: 1, order: 'oldest-first' }).checkpoints
    return { volumes: volumes.join(), newest, newestOfAll, oldest }
  }

  locate(vpg: VpgId, at: StreamPosition): TailRow | SegmentSpan | undefined {
    const row = this.#find(vpg)
    if (row === undefined) return undefined
    const { stream, generation, sequence } = at
    const [tail] = this.#all<Omit<TailRow, 'vpg'>>(selectTailAt, { vpgId: row.id, stream, generation, sequence })
    if (tail !== undefined && tail.lastSequence >= sequence) return { vpg, ...tail }
    const place = { historyId: row.historyId, stream, generation, sequence }
    const [segment] = this.#all<{ span: string; lastSequence: number }>(selectSegmentAt, place)
    return segment !== undefined && segment.lastSequence >= sequence
      ? (JSON.parse(segment.span) as SegmentSpan)
      : undefined
  }

  /** The ordinals between which the page lies. Labels rise with the ordinal, so a range of time is one of ordinals. */
  #ordinalBounds(
    historyId: number,
    query: CheckpointQuery,
  ): { historyId: number; first: number; last: number; from: number; to: number } | undefined {
    const { fromTimestampMicros: from, toTimestampMicros: to, after } = query
    let first: number | undefined = 0
    let last: number | undefined = Infinity
    if (from !== undefined) first = this.#ordinal(selectFirstFrom, { historyId, timestampMicros: from })
    if (to !== undefined) last = this.#ordinal(selectLastBelow, { historyId, timestampMicros: to })
    if (first === undefined || last === undefined) return undefined
    if (after !== undefined && query.order === 'newest-first') last = Math.min(last, after - 1)
    if (after !== undefined && query.order === 'oldest-first') first = Math.max(first, after + 1)
    return { historyId, first, last, from: from ?? 0, to: to ?? Infinity }
  }

  #newest(
    vpg: VpgId,
    bounds: { first: number; last: number; to: number },
    including: readonly number[] = [],
  ): Checkpoint | undefined {
    const row = this.#find(vpg)
    if (row === undefined) return undefined
    const all = { historyId: row.historyId, from: 0, limit: 1, ...bounds }
    if (including.length === 0) return checkpointsFromRows(this.#all<CheckpointRow>(selectNewestFirst, all))[0]
    const volumeListIds = JSON.stringify(this.#listsIncluding(including))
    return checkpointsFromRows(this.#all<CheckpointRow>(selectNewestOfLists, { ...all, volumeListIds }))[0]
  }

  /** There are few lists of volumes: another one with every volume that comes, goes, grows or is synchronised. */
  #listsIncluding(including: readonly number[]): number[] {
    const lists = this.#all<{ id: number; volumes: string }>(selectVolumeLists, {})
    return lists.filter(({ volumes }) => includesAll(volumes, including)).map(({ id }) => id)
  }

  #ordinal(sql: string, parameters: Parameters): number | undefined {
    return this.#all<{ ordinal: number }>(sql, parameters)[0]?.ordinal
  }

  *#dropTail(vpg: VpgId, offloaded: readonly StreamPosition[]): Generator<void, void> {
    const row = this.#find(vpg)
    if (row === undefined) return
    const deleted = (count: number): void => this.#count(row.id, { tailRowCount: -count })
    for (const { stream, generation, sequence } of offloaded) {
      const older = { vpgId: row.id, stream, generation, limit: deleteRowsMax }
      yield* this.#deleteAll(deleteOlderTail, older, deleted)
      yield* this.#deleteAll(deleteCoveredTail, { ...older, sequence }, deleted)
    }
  }

  /** Runs a DELETE with a limit until it deletes fewer; `deleted` is in each step's transaction. */
  *#deleteAll(sql: string, parameters: Parameters, deleted: (count: number) => void): Generator<void, void> {
    for (;;) {
      const count = this.#transact(() => {
        const changes = this.#run(sql, parameters)
        deleted(changes)
        return changes
      })
      if (count < deleteRowsMax) return
      yield
    }
  }

  #putTail(vpgId: number, row: TailRow): number {
    const { stream, generation, firstSequence, lastSequence, timestampMicros, fileIdentity, offsetBytes, sizeBytes } =
      row
    const place = { fileIdentity, offsetBytes, sizeBytes }
    const columns = { vpgId, stream, generation, firstSequence, lastSequence, timestampMicros, ...place }
    return this.#put(insertTail, updateTail, columns)
  }

  #putCheckpoint(historyId: number, checkpoint: Checkpoint): number {
    this.#ends.delete(historyId)
    const { volumes, ...row } = checkpointToRow(checkpoint)
    return this.#put(insertCheckpoint, updateCheckpoint, {
      historyId,
      ...row,
      volumeListId: this.#volumeListId(volumes),
    })
  }

  #putSegment(historyId: number, segment: SegmentSpan): number {
    const { commitNumber } = segment
    for (const range of segment.ranges) {
      const { stream, generation, firstSequence, lastSequence } = range
      this.#run(insertSegmentRange, { historyId, stream, generation, firstSequence, lastSequence, commitNumber })
    }
    return this.#put(insertSegment, updateSegment, { historyId, commitNumber, span: JSON.stringify(segment) })
  }

  /** 1 when the row is new, 0 when it replaced one. */
  #put(insert: string, update: string, parameters: Parameters): number {
    if (this.#run(insert, parameters) === 1) return 1
    this.#run(update, parameters)
    return 0
  }

  #volumeListId(volumes: string): number {
    const known = this.#volumeLists.get(volumes)
    if (known !== undefined) return known
    this.#run(insertVolumeList, { volumes })
    const [row] = this.#all<{ id: number }>(selectVolumeList, { volumes })
    const id = row?.id ?? 0
    if (this.#volumeLists.size >= 1000) this.#volumeLists.clear()
    this.#volumeLists.set(volumes, id)
    return id
  }

  #find(vpg: VpgId): VpgRow | undefined {
    return this.#all<VpgRow>(selectVpg, { vpg })[0]
  }

  #vpgRow(vpg: VpgId): VpgRow {
    const found = this.#find(vpg)
    if (found !== undefined) return found
    const row = { id: this.#drawId(), historyId: this.#drawId() }
    this.#run(insertVpg, { vpg, ...row })
    return { ...row, checkpointCount: 0, segmentCount: 0, tailRowCount: 0 }
  }

  /** vpgRow() for one transaction, each asked for once. */
  #vpgRows(): (vpg: VpgId) => VpgRow {
    const rows = new Map<VpgId, VpgRow>()
    return vpg => {
      const row = rows.get(vpg) ?? this.#vpgRow(vpg)
      rows.set(vpg, row)
      return row
    }
  }

  #drawId(): number {
    return this.#all<{ id: number }>(drawId, {})[0]?.id ?? 0
  }

  #count(id: number, counts: Counts): void {
    this.#run(countRows, { id, checkpointCount: 0, segmentCount: 0, tailRowCount: 0, ...counts })
  }

  #transact<T>(work: () => T): T {
    try {
      return this.#database.transaction(work).immediate()
    } catch (error) {
      this.#volumeLists.clear() // what it inserted is not there
      throw error
    }
  }

  #run(sql: string, parameters: Parameters): number {
    return this.#statement(sql).run(parameters).changes
  }

  #all<R>(sql: string, parameters: Parameters): R[] {
    return this.#statement(sql).all(parameters) as R[]
  }

  #statement(sql: string): Database.Statement<unknown[]> {
    return statementOf(this.#database, sql)
  }
}

function portionsOf(checkpoints: readonly Checkpoint[] | Uint8Array): Generator<readonly Checkpoint[]> {
  if (checkpoints instanceof Uint8Array) return decodePortions('what was read', checkpoints, insertRowsMax)
  return chunksOf(checkpoints, insertRowsMax)
}

function* chunksOf<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let start = 0; start < items.length; start += size) yield items.slice(start, start + size)
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  let total = 0
  for (const item of items) total += value(item)
  return total
}
