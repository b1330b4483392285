import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { systemClock } from '../src/base/clock.ts'
import { Catalog } from '../src/catalog/catalog.ts'
import { newVpgId, type VpgId } from '../src/base/ids.ts'
import { mergeSizeBytesMax } from '../src/base/limits.ts'
import { MiB } from '../src/base/units.ts'
import { crc32c } from '../src/codec/crc32c.ts'
import { VpgCommits } from '../src/manifest/manifest.ts'
import { openStore } from '../src/store/store.ts'
import type { ObjectRef } from '../src/timeline/state.ts'
import type { HistoryModel } from './history-model.ts'

// Very many volumes with a history, in a store that is a directory. One is committed as the daemon commits it; the others are its objects with another id and
// name, for to put together what is the same but for these would take hours. They are not synced: it is not the setting up that is measured.

const never = new AbortController().signal
const fail = (sentence: unknown): never => {
  throw new Error(`the index: ${sentence}`)
}
/** What an index tells that is damaged, or full. */
export const failing = { catalogBegunAnew: fail, tailRowsDropped: fail, catalogFailing: fail }

/** Where an object's header has what is another's in a copy (src/manifest/sealed-object.ts). */
const vpgAt = 8
const bodyChecksumAt = 120
const headerChecksumAt = 124
const bodyAt = 128

/** Of what a merge would read nothing is there: so any two of the deltas are more than is merged at once, none tells apart more than is retained, and no merge is due. */
const deltaSizeBytesMin = mergeSizeBytesMax / 2 + MiB

/** An object of the volume that is copied. */
interface Template {
  /** Below the VPG's own folder; undefined of the registry's. */
  readonly name: string | undefined
  readonly bytes: Buffer
  readonly idPlaces: readonly number[]
  readonly namePlaces: readonly number[]
}

export interface VolumesAt {
  readonly dataDirectory: string
  readonly applianceId: string
}

/** The first volume, in the store alone: for a daemon to read it, and to leave beside the store what it leaves at a stop. */
export async function layFirstVolume(model: HistoryModel, { dataDirectory, applianceId }: VolumesAt): Promise<void> {
  const id = newVpgId()
  const store = await openStore({ kind: 'directory', directory: path.join(dataDirectory, 'store') })
  const { state } = model.contents
  const definition = { ...state.definition, id, name: nameOf(0) }
  const commits = await VpgCommits.create({ store, clock: systemClock, applianceId }, definition, never)
  const deltas = []
  for (const { packs, ...delta } of state.deltas) {
    const page = commits.checkpointPage(model.checkpointsOf(delta.checkpoints.key))
    await store.create(page.key, page.bytes, never)
    const checkpoints: ObjectRef = { key: page.key, sizeBytes: page.bytes.length }
    const factor = Math.max(1, deltaSizeBytesMin / packs.reduce((sum, { rawSizeBytes }) => sum + rawSizeBytes, 0))
    const larger = packs.map(pack => ({ ...pack, rawSizeBytes: Math.ceil(pack.rawSizeBytes * factor) }))
    deltas.push({ ...delta, versionCount: delta.checkpointCount, packs: larger, checkpoints })
  }
  const contents = { ...model.contents, state: { ...state, definition, deltas, segments: [], garbage: [] } }
  await commits.commitManifest(commits.prepareManifest(contents, []), never)
  await store.close()
}

/** So many copies of the first volume, in the store and in what the daemon left of it beside the store. Returns the bytes of one in the store. */
export async function layCopies(
  { dataDirectory, applianceId }: VolumesAt,
  { from, to }: { readonly from: number; readonly to: number },
): Promise<number> {
  const objects = path.join(dataDirectory, 'store', 'objects')
  const file = path.join(dataDirectory, 'journal-index.sqlite')
  const catalog = await Catalog.open({ file, events: failing })
  const [first] = catalog.takeNotes().filter(({ text }) => text.includes(nameOf(0)))
  if (first === undefined) throw new Error('the daemon left no note of the first volume')
  const id = first.vpg
  const store = await openStore({ kind: 'directory', directory: path.join(dataDirectory, 'store') })
  const { contents, folded } = await VpgCommits.load({ store, clock: systemClock, applianceId }, id, never).then(
    ({ commits, ...loaded }) => ({ contents: commits.contents, ...loaded }),
  )
  await store.close()
  const history = {
    segments: [],
    checkpoints: [...folded, ...contents.recent],
    offloaded: contents.state.offloaded,
  }
  const templates = templatesOf(objects, id)
  const memo = readFileSync(path.join(dataDirectory, 'vpgs', `${id}.json`), 'utf8')
  for (let volume = from; volume < to; volume++) {
    const copy = { id: newVpgId(), name: nameOf(volume) }
    const copied = (text: string): string => checked(text.replaceAll(id, copy.id).replaceAll(nameOf(0), copy.name))
    layDown(templates, objects, copy)
    writeFileSync(path.join(dataDirectory, 'vpgs', `${copy.id}.json`), copied(memo))
    await catalog.loadVpg({ vpg: copy.id, ...history })
    await catalog.keepNotes([{ vpg: copy.id, text: copied(first.text) }])
  }
  await catalog.close()
  return templates.reduce((sum, { bytes }) => sum + bytes.length, 0)
}

/** A line, and behind it its checksum anew (src/aging/stop-notes.ts, vpg-memos.ts). */
function checked(text: string): string {
  const [line = '', ...rest] = text.split('\n')
  const checksum = crc32c(Buffer.from(line)).toString(16).padStart(8, '0')
  return [line, checksum, ...rest.slice(1)].join('\n')
}

/** All of the same length. */
export function nameOf(volume: number): string {
  return `scale-${String(volume).padStart(5, '0')}`
}

function templatesOf(objects: string, id: VpgId): Template[] {
  const below = readdirSync(path.join(objects, id), { recursive: true, withFileTypes: true })
  const files = below.filter(entry => entry.isFile()).map(entry => path.join(entry.parentPath, entry.name))
  return [path.join(objects, 'vpg', id), ...files].map(file => {
    const key = path.relative(objects, file)
    const bytes = readFileSync(file)
    return {
      name: key.startsWith(`${id}/`) ? key.slice(id.length + 1) : undefined,
      bytes,
      idPlaces: placesOf(bytes, id),
      namePlaces: placesOf(bytes, nameOf(0)),
    }
  })
}

function placesOf(bytes: Buffer, text: string): number[] {
  const places: number[] = []
  for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + text.length)) places.push(at)
  return places
}

function layDown(
  templates: readonly Template[],
  objects: string,
  { id, name }: { readonly id: VpgId; readonly name: string },
): void {
  for (const kind of ['commit', 'page']) mkdirSync(path.join(objects, id, kind), { recursive: true })
  mkdirSync(path.join(objects, 'vpg'), { recursive: true })
  for (const { name: own, bytes: original, idPlaces, namePlaces } of templates) {
    const bytes = Buffer.from(original)
    for (const at of idPlaces) bytes.write(id, at, 'ascii')
    for (const at of namePlaces) bytes.write(name, at, 'ascii')
    bytes.write(id, vpgAt, 'hex')
    bytes.writeUInt32LE(crc32c(bytes.subarray(bodyAt)), bodyChecksumAt)
    bytes.writeUInt32LE(crc32c(bytes.subarray(0, headerChecksumAt)), headerChecksumAt)
    writeFileSync(path.join(objects, own === undefined ? `vpg/${id}` : `${id}/${own}`), bytes)
  }
}
