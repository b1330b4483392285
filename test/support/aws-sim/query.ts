import { refuse } from './refusal.ts'

// The query protocol of EC2: parameters whose names are paths (BlockDeviceMapping.1.Ebs.SnapshotId), and answers in XML.

/** A parameter: text, a list, or a structure. */
export type Value = string | readonly Value[] | { readonly [key: string]: Value }

interface Tree {
  [key: string]: string | Tree
}

export function parseQuery(body: string): Record<string, Value> {
  const root: Tree = {}
  for (const [name, value] of new URLSearchParams(body)) {
    const path = name.split('.')
    let at = root
    for (const step of path.slice(0, -1)) {
      const next = (at[step] ??= {})
      if (typeof next === 'string') refuse('MalformedQueryString', name)
      at = next
    }
    at[path.at(-1)!] = value
  }
  return settled(root) as Record<string, Value>
}

/** What is numbered from 1 is a list. */
function settled(tree: Tree): Value {
  const entries = Object.entries(tree).map(
    ([key, value]) => [key, typeof value === 'string' ? value : settled(value)] as const,
  )
  if (entries.length > 0 && entries.every(([key], index) => key === String(index + 1)))
    return entries.map(([, value]) => value)
  return Object.fromEntries(entries)
}

export function text(value: Value | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}

export function number(value: Value | undefined): number | undefined {
  return typeof value === 'string' ? Number(value) : undefined
}

export function texts(value: Value | undefined): readonly string[] {
  return Array.isArray(value) ? (value as string[]) : []
}

export function list(value: Value | undefined): readonly Readonly<Record<string, Value>>[] {
  return Array.isArray(value) ? (value as Readonly<Record<string, Value>>[]) : []
}

export function structure(value: Value | undefined): Readonly<Record<string, Value>> {
  return typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, Value>) : {}
}

/** What goes into an answer: lists become <item>s, undefined is left out. */
export type Xml = string | number | boolean | undefined | readonly Xml[] | { readonly [tag: string]: Xml }

export function xmlOf(value: Xml): string {
  if (value === undefined) return ''
  if (Array.isArray(value)) return (value as Xml[]).map(item => `<item>${xmlOf(item)}</item>`).join('')
  if (typeof value === 'object')
    return Object.entries(value)
      .filter(([, inner]) => inner !== undefined)
      .map(([tag, inner]) => `<${tag}>${xmlOf(inner)}</${tag}>`)
      .join('')
  return String(value).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
