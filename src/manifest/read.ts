import { Failure, failedWith } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import { Permits } from '../base/permits.ts'
import type { ListedObject, ObjectStore } from '../store/object-store.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { DeltaSpan, ObjectRef } from '../timeline/state.ts'
import { decodeCheckpoints } from '../timeline/checkpoint-page.ts'
import { contentsOf, itemsOf, type Part, type VpgContents } from './contents.ts'
import { commitKey, commitPrefix, parseCommitKey } from './keys.ts'
import { parseManifestText, type ManifestText } from './manifest-text.ts'
import { nonceOfKey, type PagePlace, type PageSet, type PartPlace, type RootBody, type WrittenPage } from './pages.ts'
import { corrupt, decodeSealed, isSealed, type SealedObject } from './sealed-object.ts'

// From the store to contents: the newest root, its pages, and the list of what was committed after it.

export interface NumberedObject extends ListedObject {
  readonly commitNumber: number
}

/** The newest root, of which no page is read. */
export interface ReadRoot {
  readonly root: SealedObject
  readonly rootObject: NumberedObject
  readonly body: RootBody
  /** Committed after the manifest, ascending: segments all. */
  readonly after: readonly NumberedObject[]
}

export interface ReadManifest extends Omit<ReadRoot, 'body'> {
  readonly contents: VpgContents
  readonly pageSet: PageSet
}

const peeksAtOnce = 16
const pageReadsAtOnce = 8
const peekSizeBytes = 4

/** Every numbered object of the VPG, ascending. */
export async function listCommits(
  store: ObjectStore,
  vpg: VpgId,
  after: string | undefined,
  signal: AbortSignal,
): Promise<NumberedObject[]> {
  const commits: NumberedObject[] = []
  for await (const object of store.list(commitPrefix(vpg), after, signal)) {
    const parsed = parseCommitKey(object.key)
    if (parsed !== undefined) commits.push({ ...object, commitNumber: parsed.commitNumber })
  }
  return commits
}

/** NOT_FOUND where the VPG has no manifest; OBJECT_CORRUPT and VERSION_UNSUPPORTED name the object. */
export async function readManifest(store: ObjectStore, vpg: VpgId, signal: AbortSignal): Promise<ReadManifest> {
  return await readPages(store, await readRoot(store, vpg, signal), () => () => true, signal)
}

/** As readManifest. */
export async function readRoot(store: ObjectStore, vpg: VpgId, signal: AbortSignal): Promise<ReadRoot> {
  const commits = await listCommits(store, vpg, undefined, signal)
  const rootObject = await newestRoot(store, commits, signal)
  if (rootObject === undefined && commits.length > 0) {
    const sentence = `none of the ${commits.length} commits of VPG ${vpg} is a manifest: the one that was is damaged`
    throw new Failure('OBJECT_CORRUPT', sentence, { vpg, key: commits[0]?.key })
  }
  if (rootObject === undefined) throw new Failure('NOT_FOUND', `the store holds no manifest of VPG ${vpg}`, { vpg })
  const root = await readSealed(store, rootObject, signal)
  if (root.header.kind !== 'root' || root.header.vpg !== vpg || root.header.commitNumber !== rootObject.commitNumber) {
    throw corrupt(rootObject.key, 8, `is commit ${root.header.commitNumber} of VPG ${root.header.vpg}`)
  }
  const body = parsedBody(rootObject.key, root.body, bytes => JSON.parse(Buffer.from(bytes).toString()) as RootBody)
  const after = commits.filter(commit => commit.commitNumber > rootObject.commitNumber)
  requireConsecutive(vpg, rootObject.commitNumber, after)
  return { root, rootObject, body, after }
}

/** The root with those of its parts that stand in it, and of the others the wanted ones. The rest is carried, unread. */
export async function readPages(
  store: ObjectStore,
  { body, ...at }: ReadRoot,
  wantedOf: (all: readonly string[]) => (partName: string) => boolean,
  signal: AbortSignal,
): Promise<ReadManifest> {
  const { root, rootObject } = at
  const { parts, pageSet } = await readParts(store, root.header.vpg, { body, wantedOf }, signal)
  if (!parts.some(part => part.name === 'definition')) throw corrupt(rootObject.key, 0, 'has no definition')
  return { ...at, contents: contentsOf(body.fields, rootObject.commitNumber, parts), pageSet }
}

/** Numbers after the newest manifest are never removed before there is a newer one: a missing one is lost data. */
function requireConsecutive(vpg: VpgId, from: number, after: readonly NumberedObject[]): void {
  for (const [index, { commitNumber }] of after.entries()) {
    const expected = from + 1 + index
    if (commitNumber === expected) continue
    const key = commitKey(vpg, expected)
    throw new Failure('OBJECT_CORRUPT', `${key} is missing, although later commits exist`, { key, offsetBytes: 0 })
  }
}

/** Walks down from the highest number. A number taken away meanwhile was below the newest, so it is passed over. */
export async function newestRoot(
  store: ObjectStore,
  commits: readonly NumberedObject[],
  signal: AbortSignal,
): Promise<NumberedObject | undefined> {
  for (let end = commits.length; end > 0; end -= peeksAtOnce) {
    const some = commits.slice(Math.max(0, end - peeksAtOnce), end).reverse()
    const roots = await Promise.all(some.map(commit => isRoot(store, commit, signal)))
    const found = some.find((_, index) => roots[index])
    if (found !== undefined) return found
  }
  return undefined
}

async function isRoot(store: ObjectStore, commit: NumberedObject, signal: AbortSignal): Promise<boolean> {
  try {
    const range = { startBytes: 0, endBytes: Math.min(peekSizeBytes, commit.sizeBytes) }
    return isSealed(await store.readRange(commit.key, range, signal))
  } catch (error) {
    if (failedWith(error, 'NOT_FOUND')) return false
    throw error
  }
}

async function readParts(
  store: ObjectStore,
  vpg: VpgId,
  { body, wantedOf }: { readonly body: RootBody; readonly wantedOf: Parameters<typeof readPages>[2] },
  signal: AbortSignal,
): Promise<{ parts: Part[]; pageSet: PageSet }> {
  const permits = new Permits(pageReadsAtOnce)
  const pageOf = async (name: string, page: ObjectRef): Promise<WrittenPage> => {
    const items = itemsOf(name, await permits.with(() => readItems(store, vpg, page, signal)))
    return { part: { name, items }, place: { name, page } }
  }
  const indexes = await Promise.all(body.indexes.map((page, index) => pageOf(`index/${index}`, page)))
  const places = [...indexes.flatMap(index => index.part.items as readonly PartPlace[]), ...body.parts]
  const isWanted = wantedOf(places.map(({ name }) => name))
  const carried = places.flatMap(place => ('page' in place && !isWanted(place.name) ? [place] : []))
  const unread = new Set<PartPlace>(carried)
  const written = new Map<string, WrittenPage>()
  const parts = await Promise.all(
    places
      .filter(place => !unread.has(place))
      .map(async place => {
        if ('items' in place)
          return { name: place.name, items: itemsOf(place.name, { parsed: place.items, sizes: [] }) }
        const page = await pageOf(place.name, place.page)
        written.set(place.name, page)
        return page.part
      }),
  )
  return { parts, pageSet: { written, indexes, carried } }
}

async function readItems(store: ObjectStore, vpg: VpgId, page: ObjectRef, signal: AbortSignal): Promise<ManifestText> {
  const { header, body } = await readSealed(store, page, signal)
  if (header.vpg !== vpg || header.nonce !== nonceOfKey(page.key)) throw corrupt(page.key, 8, 'is another page')
  if (header.kind === 'checkpoints') return { parsed: decodeCheckpoints(page.key, body), sizes: [] }
  if (header.kind !== 'page') throw corrupt(page.key, 5, `is a ${header.kind}, not a page`)
  return parsedBody(page.key, body, parseManifestText)
}

/** The checkpoints that a delta was made of. */
export async function readCheckpointPage(
  store: ObjectStore,
  vpg: VpgId,
  page: ObjectRef,
  signal: AbortSignal,
): Promise<readonly Checkpoint[]> {
  return (await readItems(store, vpg, page, signal)).parsed as readonly Checkpoint[]
}

/** Of a part of deltas. */
export async function readDeltaPage(
  store: ObjectStore,
  vpg: VpgId,
  { name, page }: PagePlace,
  signal: AbortSignal,
): Promise<DeltaSpan | undefined> {
  return (itemsOf(name, await readItems(store, vpg, page, signal)) as readonly DeltaSpan[])[0]
}

export async function readSealed(store: ObjectStore, object: ObjectRef, signal: AbortSignal): Promise<SealedObject> {
  try {
    const bytes = await store.readRange(object.key, { startBytes: 0, endBytes: object.sizeBytes }, signal)
    return decodeSealed(object.key, bytes)
  } catch (error) {
    if (!failedWith(error, 'NOT_FOUND')) throw error
    const sentence = `${object.key} is missing, although the manifest refers to it`
    throw new Failure('OBJECT_CORRUPT', sentence, { key: object.key, offsetBytes: 0 }, { cause: error })
  }
}

function parsedBody<T>(key: string, body: Uint8Array, parse: (body: Uint8Array) => T): T {
  try {
    return parse(body)
  } catch (error) {
    throw new Failure('OBJECT_CORRUPT', `${key} holds no valid JSON`, { key, offsetBytes: 128 }, { cause: error })
  }
}
