import { Failure, failedWith } from '../base/failure.ts'
import { GiB } from '../base/units.ts'
import type { SpoolableImage, VolumeRange } from '../image/image.ts'
import { BlockSet } from './block-set.ts'
import { create, type FormerTries, type Tries } from './creation.ts'
import type { EbsCalls } from './ebs-calls.ts'
import type { Ec2Calls } from './ec2-calls.ts'
import { errorNameOf } from './failures.ts'
import type { SnapshotMemory } from './memory.ts'
import { unlistedMillisMax, until } from './polling.ts'
import type { TagTable } from './tags.ts'
import { unseenMillisMax, writeBlocks, type WriteTools } from './write-blocks.ts'

// One snapshot of one volume as of one checkpoint, from nothing to completed, whatever interrupts it.
//
//   remember attempt ─> start (token) ─> remember id ─> put blocks ─> remember count and checksum ─> complete ─> remember that ─> look until completed
//
// What a dead process had put is not known (a pending snapshot cannot be listed): all is put once more. A snapshot that failed, ran out of time, or
// was refused at the end is deleted, and the next attempt has another token.
//
// Who completes a snapshot for the second time may be refused because AWS has taken the first request, of which the answer was lost: then it is becoming complete, which
// may take far longer than all that was put, and is waited for as long as it is pending. One that was not taken ends as well: AWS cancels it when its time is over.

export interface SnapshotTools extends WriteTools {
  readonly ebs: EbsCalls
  readonly ec2: Ec2Calls
}

export interface Parent {
  readonly snapshot: string
  /** The checkpoint that it holds. */
  readonly ordinal: number
}

export interface SnapshotJob {
  readonly image: SpoolableImage
  readonly volume: number
  readonly sizeBytes: number
  readonly description: string
  readonly tags: TagTable
  readonly memory: () => SnapshotMemory | undefined
  /** Durable on return. */
  readonly remember: (memory: SnapshotMemory) => Promise<void>
  readonly token: (attempt: number) => string
  /** A completed snapshot, encrypted with the same key, that this one may be put upon; asked once. */
  readonly chooseParent: () => Promise<Parent | undefined>
  /** With which it is to be encrypted, and the parent is. */
  readonly kmsKey: string | undefined
  /** What may differ between the parent's checkpoint and the image, ascending; undefined where that cannot be said (any more). */
  readonly changes: (parent: Parent) => Promise<AsyncIterable<VolumeRange> | undefined>
  readonly onProgress: (doneBytes: number) => void
  /** As Tries has it. */
  readonly answerSignal: AbortSignal
}

const attemptsMax = 5
const completionMillisMax = 2 * 3_600_000

/** The id of the completed snapshot. */
export async function makeSnapshot(job: SnapshotJob, tools: SnapshotTools, signal: AbortSignal): Promise<string> {
  const found = job.memory()
  for (;;) {
    const memory = job.memory() ?? (await firstAttempt(job))
    if (memory.isComplete === true && memory.snapshot !== undefined) return memory.snapshot
    if (memory.attempt > attemptsMax)
      throw new Failure(
        'CLOUD_REFUSED',
        `${attemptsMax} snapshots of volume ${job.volume} have failed one after the other`,
        {
          volume: job.volume,
        },
      )
    const made = await attemptSnapshot(job, memory, formerTriesOf(memory, found), tools, signal)
    if (made !== undefined) return made
    signal.throwIfAborted()
  }
}

async function firstAttempt(job: SnapshotJob): Promise<SnapshotMemory> {
  const memory = { attempt: 1, ...parentMemory(await job.chooseParent()), ...keyMemory(job) }
  await job.remember(memory)
  return memory
}

function keyMemory({ kmsKey }: SnapshotJob): Pick<SnapshotMemory, 'kmsKey'> {
  return kmsKey === undefined ? {} : { kmsKey }
}

function parentMemory(parent: Parent | undefined): Pick<SnapshotMemory, 'parent' | 'parentOrdinal'> {
  return parent === undefined ? {} : { parent: parent.snapshot, parentOrdinal: parent.ordinal }
}

/** What was found was begun by others, or by a call before. */
function formerTriesOf({ attempt, isRefused }: SnapshotMemory, found: SnapshotMemory | undefined): FormerTries {
  if (attempt !== found?.attempt) return 'none'
  return isRefused === true ? 'refused' : 'doubtful'
}

/** Undefined where the next attempt has to do it. */
async function attemptSnapshot(
  job: SnapshotJob,
  begun: SnapshotMemory,
  former: FormerTries,
  tools: SnapshotTools,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { isRefused: _, ...memory } = begun
  // Upon the same parent, or another one: of a chain that has moved on meanwhile the newest link, else none.
  const next = async (upon: 'same' | 'other'): Promise<undefined> => {
    const { snapshot } = job.memory() ?? memory
    if (snapshot !== undefined) await deleteSnapshot(snapshot, tools.ec2, signal)
    const chosen = upon === 'same' ? parent : await job.chooseParent()
    const isOther = upon === 'same' || chosen?.snapshot !== memory.parent
    await job.remember({
      attempt: memory.attempt + 1,
      ...parentMemory(isOther ? chosen : undefined),
      ...keyMemory(job),
    })
  }
  const parent =
    memory.parent === undefined ? undefined : { snapshot: memory.parent, ordinal: memory.parentOrdinal ?? 0 }

  const begunMillis = tools.clock.monotonicMillis()
  const mayBeUnseen = (): boolean => tools.clock.monotonicMillis() - begunMillis < unseenMillisMax
  let { snapshot, written } = memory
  if (snapshot === undefined) {
    const notes = {
      former,
      begun: async () => (former === 'refused' ? await job.remember(memory) : undefined),
      refused: () => job.remember({ ...memory, isRefused: true }),
    }
    const start = (tries: Tries): Promise<string> =>
      tools.ebs.start(
        {
          token: job.token(memory.attempt),
          sizeGiB: Math.max(1, Math.ceil(job.sizeBytes / GiB)),
          parent: parent?.snapshot,
          kmsKey: memory.kmsKey,
          description: job.description,
          tags: job.tags,
        },
        tries,
        signal,
      )
    try {
      snapshot = await create(notes, job.answerSignal, start)
    } catch (error) {
      if (isStale(error) && !isRefusedByItself(error, parent)) return await next('other')
      throw error
    }
    await job.remember({ ...memory, snapshot })
  } else if (written === undefined && (await stateOf(snapshot, tools.ec2, signal)) === 'error') {
    return await next('same') // it ran out of time while nobody wrote it
  }

  if (written === undefined) {
    const ranges = parent === undefined ? job.image.extents(job.volume, signal) : await job.changes(parent)
    if (ranges === undefined) return await next('other')
    try {
      const parentBlocks =
        parent === undefined ? undefined : await blocksOf(parent.snapshot, job.sizeBytes, tools, signal)
      const { image, volume, sizeBytes, onProgress } = job
      written = await writeBlocks(
        { snapshot, image, volume, sizeBytes, ranges, parentBlocks, onProgress },
        tools,
        signal,
      )
    } catch (error) {
      if (isStale(error)) return await next(isAbout(error, parent?.snapshot) ? 'other' : 'same')
      throw error
    }
    job.onProgress(job.sizeBytes) // zeros at its end, too
    await job.remember({ ...memory, snapshot, written })
  }

  const wasTaken = memory.isTaken === true
  if (!wasTaken) {
    const isSecond = memory.written !== undefined // a process before may have got so far
    const outcome = await complete({ snapshot, written, isSecond, mayBeUnseen }, tools, signal)
    if (outcome === 'refused') return await next('same')
    if (outcome === 'taken') await job.remember({ ...memory, snapshot, written, isTaken: true })
  }
  if ((await untilEnded(snapshot, tools, signal)) === 'error') return await next('same')
  await job.remember({ ...memory, snapshot, written, isTaken: true, isComplete: true })
  return snapshot
}

interface Completion {
  readonly snapshot: string
  readonly written: NonNullable<SnapshotMemory['written']>
  /** It may have been asked for before. */
  readonly isSecond: boolean
  readonly mayBeUnseen: () => boolean
}

/** 'refused': it will never be complete, for a dead process has left other blocks in it. 'doubtful': an earlier request may have been taken. */
async function complete(
  { snapshot, written, isSecond, mayBeUnseen }: Completion,
  { ebs }: SnapshotTools,
  signal: AbortSignal,
): Promise<'taken' | 'refused' | 'doubtful'> {
  let mayBeTaken = isSecond
  try {
    await ebs.complete(snapshot, written, { mayBeUnseen, unanswered: () => void (mayBeTaken = true) }, signal)
    return 'taken'
  } catch (error) {
    if (!isStale(error)) throw error
    return mayBeTaken || !isAboutBlocks(error) ? 'doubtful' : 'refused'
  }
}

/** Waits as long as it is pending, up to a bound, past which it fails CLOUD_UNAVAILABLE: whoever comes back goes on waiting. */
async function untilEnded(
  snapshot: string,
  { ec2, clock }: SnapshotTools,
  signal: AbortSignal,
): Promise<'completed' | 'error'> {
  const startedMillis = clock.monotonicMillis()
  const look = async (): Promise<'completed' | 'error' | undefined> => {
    const state = await stateOf(snapshot, ec2, signal)
    if (state === undefined && clock.monotonicMillis() - startedMillis > unlistedMillisMax) return 'error'
    return state === 'completed' || state === 'error' ? state : undefined
  }
  return await until(`the snapshot ${snapshot} is completed`, look, completionMillisMax, clock, signal)
}

/** Undefined where it is in no listing (yet). */
async function stateOf(snapshot: string, ec2: Ec2Calls, signal: AbortSignal): Promise<string | undefined> {
  try {
    const [found] = await ec2.snapshots({ ids: [snapshot] }, signal)
    return found?.State
  } catch (error) {
    if (failedWith(error, 'NOT_FOUND')) return undefined
    throw error
  }
}

/** False where AWS does not know it, or not as a completed one. */
export async function isThere(snapshot: string, ec2: Ec2Calls, signal: AbortSignal): Promise<boolean> {
  return (await stateOf(snapshot, ec2, signal)) === 'completed'
}

/** Nothing of it is left on return, or never was. */
export async function deleteSnapshot(snapshot: string, ec2: Ec2Calls, signal: AbortSignal): Promise<void> {
  try {
    await ec2.deleteSnapshot(snapshot, signal)
  } catch (error) {
    if (!failedWith(error, 'NOT_FOUND')) throw error
  }
}

async function blocksOf(
  snapshot: string,
  sizeBytes: number,
  { ebs }: SnapshotTools,
  signal: AbortSignal,
): Promise<BlockSet> {
  const blocks = new BlockSet(sizeBytes)
  for await (const page of ebs.blocks(snapshot, signal)) for (const index of page) blocks.add(index)
  return blocks
}

const staleNames = new Set(['ResourceNotFoundException', 'ValidationException', 'ConflictException'])

/** The snapshot, or its parent, is not what it was taken for. */
function isStale(error: unknown): boolean {
  return staleNames.has(errorNameOf(error))
}

/** Nothing that it is put upon can be wrong: another attempt asks for the same, a key that AWS does not take. */
function isRefusedByItself(error: unknown, parent: Parent | undefined): boolean {
  return parent === undefined && errorNameOf(error) === 'ValidationException'
}

/** The count or the checksum of its blocks is another one. */
function isAboutBlocks(error: unknown): boolean {
  return error instanceof Failure && error.details['reason'] === 'INVALID_PARAMETER_VALUE'
}

function isAbout(error: unknown, parent: string | undefined): boolean {
  return parent !== undefined && error instanceof Failure && error.details['call'] === 'ebs:ListSnapshotBlocks'
}
