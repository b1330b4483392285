import { assert } from '../base/assert.ts'
import { manifestRootSizeBytesMax } from '../base/limits.ts'
import { KiB } from '../base/units.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { ObjectRef } from '../timeline/state.ts'
import { encodeCheckpoints } from '../timeline/checkpoint-page.ts'
import {
  garbageParts,
  leftMicrosOf,
  manifestText,
  partsOf,
  rootFieldsOf,
  type Part,
  type RootFields,
  type VpgContents,
} from './contents.ts'
import { newObjectKey } from './keys.ts'
import { encodeSealed, sealedHeaderSizeBytes, type SealedHeader } from './sealed-object.ts'

// A manifest as objects: a root of at most 64 KiB over pages that are never changed. What is small stands in the root itself,
// so that a quiet VPG's commit is one object; when the references to the pages outgrow the root, they go into pages, too.

/** Where a part's items are. */
export type PartPlace = PagePlace | { readonly name: string; readonly items: readonly unknown[] }

export interface PagePlace {
  readonly name: string
  readonly page: ObjectRef
}

/** The body of a root, as JSON. */
export interface RootBody {
  readonly fields: RootFields
  readonly parts: readonly PartPlace[]
  /** Pages of `parts` that found no room here. */
  readonly indexes: readonly ObjectRef[]
}

export interface WrittenPage {
  readonly part: Part
  readonly place: PagePlace
}

/** The pages that the newest manifest refers to. */
export interface PageSet {
  readonly written: ReadonlyMap<string, WrittenPage>
  readonly indexes: readonly WrittenPage[]
  /** Of parts that nobody has read: the next manifest refers to them as this one does. */
  readonly carried: readonly PagePlace[]
}

export const noPages: PageSet = { written: new Map(), indexes: [], carried: [] }

export interface EncodedManifest {
  /** Objects to create before the root. */
  readonly pages: readonly { readonly key: string; readonly bytes: Uint8Array }[]
  readonly root: (commitNumber: number, nonce: string) => Uint8Array
  readonly rootSizeBytes: number
  readonly contents: VpgContents
  readonly pageSet: PageSet
}

const inlinePartSizeBytesMax = 4 * KiB
/** As JSON in the root; more are a page of their own, see src/timeline/checkpoint-page.ts. */
const checkpointsInRootMax = 12
// Together, names and all, with the positions of 64 streams twice (10 KiB) and references to 40 index pages, within a root.
const inlineSizeBytesMax = 24 * KiB
const placesSizeBytesMax = 22 * KiB
/** What stands around a part's items in the root, beside its name. */
const placeSizeBytes = 24
const placesPerIndex = 256

/**
 * The manifest that says `contents`, after one whose pages are `before`. `left` are the keys of objects that leave with it;
 * they and the replaced pages become garbage at `nowMicros`.
 */
export function encodeManifest(
  contents: VpgContents,
  before: PageSet,
  left: readonly string[],
  identity: { readonly applianceId: string; readonly nowMicros: number },
): EncodedManifest {
  const { definition, epoch } = contents.state
  const header = { vpg: definition.id, epoch, commitNumber: 0, applianceId: identity.applianceId }
  const sheet = new PageSheet(before, header)
  const read = [...partsOf(contents), ...garbageParts(contents.state.garbage)]
  const places = [...before.carried, ...read.map(part => sheet.place(part))]
  assert(new Set(places.map(({ name }) => name)).size === places.length, 'no part is carried and written anew')
  const indexes = sheet.indexes(places)
  // What leaves now is known only after every page has its place, so that newest part is referred to by the root itself.
  const leftAtMicros = Math.max(identity.nowMicros, 1 + lastLeftMicros(contents, before.carried))
  const newest = [...left, ...sheet.replacedKeys(indexes)].map(key => ({ key, leftAtMicros }))
  const newestPlaces = newest.length === 0 ? [] : [sheet.place({ name: `garbage/${leftAtMicros}`, items: newest })]
  const inRoot = indexes.length === 0 ? places : places.filter(place => 'items' in place)

  const body: RootBody = {
    fields: rootFieldsOf(contents),
    parts: [...inRoot, ...newestPlaces],
    indexes: indexes.map(index => index.place.page),
  }
  const bodyBytes = Buffer.from(manifestText(body))
  assert(bodyBytes.length + sealedHeaderSizeBytes <= manifestRootSizeBytesMax, 'a root stays within its bound')
  return {
    pages: sheet.created,
    root: (commitNumber, nonce) => encodeSealed({ ...header, kind: 'root', commitNumber, nonce }, bodyBytes),
    rootSizeBytes: sealedHeaderSizeBytes + bodyBytes.length,
    contents: { ...contents, state: { ...contents.state, garbage: [...contents.state.garbage, ...newest] } },
    pageSet: { written: sheet.written, indexes, carried: before.carried },
  }
}

/** When something left last; the newest is last. */
function lastLeftMicros({ state }: VpgContents, carried: readonly PagePlace[]): number {
  const times = carried.flatMap(({ name }) => leftMicrosOf(name) ?? [])
  return times.reduce((last, each) => Math.max(last, each), state.garbage.at(-1)?.leftAtMicros ?? 0)
}

/** The pages of one manifest while it is put together. */
class PageSheet {
  readonly created: { key: string; bytes: Uint8Array }[] = []
  readonly written = new Map<string, WrittenPage>()
  readonly #before: PageSet
  readonly #header: Omit<SealedHeader, 'kind' | 'nonce'>
  #inlineSizeBytes = 0

  constructor(before: PageSet, header: Omit<SealedHeader, 'kind' | 'nonce'>) {
    this.#before = before
    this.#header = header
  }

  /** Keeps the part's page, or puts the part in the root, or writes a page. */
  place(part: Part): PartPlace {
    const before = this.#before.written.get(part.name)
    if (before !== undefined && sameItems(before.part, part)) {
      this.written.set(part.name, before)
      return before.place
    }
    const text = isCheckpoints(part) && part.items.length > checkpointsInRootMax ? undefined : manifestText(part.items)
    const textSizeBytes = text === undefined ? Infinity : Buffer.byteLength(text) + part.name.length + placeSizeBytes
    if (textSizeBytes <= inlinePartSizeBytesMax && this.#inlineSizeBytes + textSizeBytes <= inlineSizeBytesMax) {
      this.#inlineSizeBytes += textSizeBytes
      return { name: part.name, items: part.items }
    }
    const page = this.#write(part)
    this.written.set(part.name, page)
    return page.place
  }

  /** Pages over the places of pages, where those would not fit in the root. */
  indexes(places: readonly PartPlace[]): WrittenPage[] {
    const pages = places.filter(place => 'page' in place)
    if (Buffer.byteLength(JSON.stringify(pages)) <= placesSizeBytesMax) return []
    const indexes: WrittenPage[] = []
    for (let first = 0; first < pages.length; first += placesPerIndex) {
      const part = { name: `index/${indexes.length}`, items: pages.slice(first, first + placesPerIndex) }
      const before = this.#before.indexes[indexes.length]
      indexes.push(before !== undefined && sameItems(before.part, part) ? before : this.#write(part))
    }
    return indexes
  }

  /** Pages of the manifest before that this one does not use. */
  replacedKeys(indexes: readonly WrittenPage[]): string[] {
    const parts = [...this.#before.written].filter(([name, page]) => this.written.get(name) !== page)
    return [...parts.map(([, page]) => page), ...this.#before.indexes.filter(page => !indexes.includes(page))].map(
      page => page.place.page.key,
    )
  }

  #write(part: Part): WrittenPage {
    const { vpg, epoch } = this.#header
    const key = newObjectKey(vpg, 'page', epoch)
    const kind = isCheckpoints(part) ? 'checkpoints' : 'page'
    const bytes = encodeSealed({ ...this.#header, kind, nonce: nonceOfKey(key) }, encodeItems(part))
    this.created.push({ key, bytes })
    return { part, place: { name: part.name, page: { key, sizeBytes: bytes.length } } }
  }
}

/** A checkpoint page that stands alone, as a delta refers to it. */
export function encodeCheckpointPage(
  header: Omit<SealedHeader, 'kind' | 'nonce' | 'commitNumber'>,
  checkpoints: readonly Checkpoint[],
): { readonly key: string; readonly bytes: Uint8Array } {
  const key = newObjectKey(header.vpg, 'page', header.epoch)
  const sealed = { ...header, kind: 'checkpoints', commitNumber: 0, nonce: nonceOfKey(key) } as const
  return { key, bytes: encodeSealed(sealed, encodeCheckpoints(checkpoints)) }
}

/** The uuid in a page's key: the page's header repeats it. */
export function nonceOfKey(key: string): string {
  return key.slice(-36).replaceAll('-', '')
}

function sameItems(a: Part, b: Part): boolean {
  return a.items.length === b.items.length && a.items.every((item, index) => item === b.items[index])
}

function isCheckpoints(part: Part): boolean {
  return part.name.startsWith('recent/')
}

function encodeItems(part: Part): Uint8Array {
  if (isCheckpoints(part)) return encodeCheckpoints(part.items as readonly Checkpoint[])
  return Buffer.from(manifestText(part.items))
}
