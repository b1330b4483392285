import { existsSync, readdirSync, readFileSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { doors, levels, packageOwners, sideways } from '../support/tidy-rules.ts'

// Reads the sources as text. Invariants: imports point down the levels and through front doors; no cycles between files;
// a package has its owner; no `any`; only src/disk syncs and renames; no unfinished marks, machine paths or lone tests.

const root = path.resolve(import.meta.dirname, '../../..')

interface Source {
  readonly file: string
  readonly text: string
  readonly imports: readonly string[]
}

function sourcesBelow(folder: string): Source[] {
  if (!existsSync(path.join(root, folder))) return []
  return readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && entry.name.endsWith('.ts'))
    .map(entry => {
      const file = path.relative(root, path.join(entry.parentPath, entry.name))
      const text = readFileSync(path.join(root, file), 'utf8')
      const imports = [...text.matchAll(/(?:from\s+|import\(|^import\s+)'([^']+)'/gm)].map(match => match[1] ?? '')
      return { file, text, imports }
    })
}

const sources = sourcesBelow('src')
const everything = [...sources, ...sourcesBelow('test'), ...sourcesBelow('bench')]

function folderOf(file: string): string {
  return file.split('/')[1] ?? ''
}

function levelOf(folder: string): number {
  return levels.findIndex(level => level.includes(folder))
}

function resolved(source: Source, specifier: string): string {
  return path.normalize(path.join(path.dirname(source.file), specifier))
}

t.test('imports between folders point down the levels', async t => {
  const faults = sources.flatMap(source =>
    source.imports
      .filter(specifier => specifier.startsWith('.'))
      .map(specifier => ({ from: folderOf(source.file), to: folderOf(resolved(source, specifier)) }))
      .filter(({ from, to }) => from !== to && to !== '' && !to.endsWith('.ts'))
      .filter(({ from, to }) => !(levelOf(to) >= 0 && levelOf(to) < levelOf(from)))
      .filter(({ from, to }) => !sideways.some(([a, b]) => a === from && b === to))
      .map(({ from, to }) => `${source.file}: ${from} imports ${to}`),
  )
  t.strictSame(faults, [])
})

t.test('other folders are entered by their front doors', async t => {
  const open = (to: string, file: string): boolean => {
    const name = path.basename(file, '.ts')
    const allowed = [to, ...(doors['*'] ?? []), ...(doors[to] ?? [])]
    return allowed.includes('*') || allowed.includes(name)
  }
  const faults = sources.flatMap(source =>
    source.imports
      .filter(specifier => specifier.startsWith('.'))
      .map(specifier => resolved(source, specifier))
      .filter(file => file.startsWith('src/') && folderOf(file) !== folderOf(source.file))
      .filter(file => !open(folderOf(file), file))
      .map(file => `${source.file} imports ${file}`),
  )
  t.strictSame(faults, [])
})

t.test('no file imports itself, however far around', async t => {
  const edges = new Map(
    sources.map(source => [
      source.file,
      source.imports.filter(specifier => specifier.startsWith('.')).map(specifier => resolved(source, specifier)),
    ]),
  )
  const finished = new Set<string>()
  const cycles: string[] = []
  const visit = (file: string, trail: readonly string[]): void => {
    if (trail.includes(file)) {
      cycles.push([...trail.slice(trail.indexOf(file)), file].join(' > '))
      return
    }
    if (finished.has(file)) return
    for (const next of edges.get(file) ?? []) visit(next, [...trail, file])
    finished.add(file)
  }
  for (const file of edges.keys()) visit(file, [])
  t.strictSame(cycles, [])
})

t.test('a package is known to its owner only', async t => {
  const packageOf = (specifier: string): string =>
    specifier
      .split('/')
      .slice(0, specifier.startsWith('@') ? 2 : 1)
      .join('/')
  const faults = sources.flatMap(source =>
    source.imports
      .filter(specifier => !specifier.startsWith('.') && !specifier.startsWith('node:'))
      .filter(specifier => !(packageOwners[packageOf(specifier)] ?? []).includes(folderOf(source.file)))
      .map(specifier => `${source.file} imports ${specifier}`),
  )
  t.strictSame(faults, [])
})

function linesMatching(files: readonly Source[], pattern: RegExp): string[] {
  return files.flatMap(({ file, text }) =>
    text
      .split('\n')
      .map((line, index) => ({ line, at: `${file}:${index + 1}` }))
      .filter(({ line }) => pattern.test(line))
      .map(({ line, at }) => `${at}: ${line.trim()}`),
  )
}

t.test('nothing is typed any', async t => {
  // In a type `any` is followed by what ends a type; in prose by another word.
  t.strictSame(linesMatching(sources, /(:\s*any(?=\s*([;)=|>\]{}]|$))|<any>|\bas any\b(?! [a-z])|\bany\[\])/), [])
})

t.test('only the disk folder syncs, renames and links', async t => {
  const elsewhere = sources.filter(source => folderOf(source.file) !== 'disk')
  t.strictSame(
    linesMatching(elsewhere, /\b(fsync|fdatasync|fsyncSync|fdatasyncSync|renameSync|linkSync)\b\(|fs\.(rename|link)\(/),
    [],
  )
})

/**
 * An absolute path below a root that not every Linux host has. A regular expression looks alike, and ends with its flags; '/page/' is
 * a part of a key. /v1 is the API's, /nowhere what tests look for in vain.
 */
const machinePath =
  /['"`\s]\/(?!(?:bin|boot|dev|etc|lib|mnt|nowhere|opt|proc|run|sbin|srv|sys|tmp|usr|v1|var)\/)[\w.-]+\/(?!['"`]|[dgimsuvy]*[\s.,;)\]])/

t.test('a path of one machine is told from one of every machine', t => {
  const bound = [
    "'/data7/disk.raw'",
    'cd /somewhere/else',
    "'/workspace/disks/'",
    '`/home/${user}/x`',
    '"/root/key.pem"',
  ]
  const free = [
    "'/var/lib/vra'",
    'cp /etc/vra/vra.yaml',
    "'/v1/status'",
    't.match(text, /sync/i)',
    'a / b / c',
    "'/facts'",
    "key.includes('/page/')",
  ]
  t.strictSame(
    [...bound, ...free].filter(line => machinePath.test(line)),
    bound,
  )
  t.end()
})

t.test('nothing is marked unfinished, run alone, or bound to one machine', async t => {
  const others = everything.filter(source => !source.file.startsWith('test/tidy/'))
  t.strictSame(linesMatching(others, /\b(TODO|FIXME|XXX)\b|not implemented|\.only\(/), [])
  t.strictSame(linesMatching(others, machinePath), [])
})
