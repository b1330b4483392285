import { LineCounter, isAlias, isMap, isNode, isScalar, parseDocument, visit, type Document } from 'yaml'
import type { Fault, KeyPath } from './faults.ts'

/** A configuration as it was written: its values, and where each of them stands. */
export interface ConfigDocument {
  readonly values: unknown
  readonly faults: readonly Fault[]
  /** The line of the key (or list entry) at the path, or of the nearest one above it that was written. */
  lineOf(path: KeyPath): number | undefined
}

export const emptyDocument: ConfigDocument = { values: {}, faults: [], lineOf: () => undefined }

/** Plain YAML only: one document, no aliases, no tags, every key once. */
export function parseConfigDocument(text: string): ConfigDocument {
  const lineCounter = new LineCounter()
  const document = parseDocument(text, { lineCounter, prettyErrors: false, uniqueKeys: true, stringKeys: true })
  const faults: Fault[] = [...document.errors, ...document.warnings].map(error => ({
    path: [],
    line: lineCounter.linePos(error.pos[0]).line,
    sentence: error.message,
  }))
  // An alias can make a small file expand to a huge value; nothing here needs one.
  visit(document, {
    Alias: (_, alias) => {
      faults.push({
        path: [],
        line: lineCounter.linePos(alias.range?.[0] ?? 0).line,
        sentence: `aliases (*${alias.source}) are not read here: write the value out`,
      })
    },
  })
  const lineOf = (path: KeyPath): number | undefined => {
    const offset = keyOffset(document, path)
    return offset === undefined ? undefined : lineCounter.linePos(offset).line
  }
  const values: unknown = faults.length > 0 ? {} : (document.toJS() ?? {})
  return { values, faults, lineOf }
}

function keyOffset(document: Document, path: KeyPath): number | undefined {
  let offset: number | undefined
  let node: unknown = document.contents
  for (const step of path) {
    if (isAlias(node)) break
    if (isMap(node)) {
      const pair = node.items.find(item => isScalar(item.key) && item.key.value === step)
      if (pair === undefined) break
      if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset
      node = pair.value
    } else {
      const entry: unknown = document.getIn([...path.slice(0, path.indexOf(step)), step], true)
      if (!isNode(entry)) break
      offset = entry.range?.[0] ?? offset
      node = entry
    }
  }
  return offset
}
