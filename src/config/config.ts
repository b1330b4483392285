import { readFileSync } from 'node:fs'
import * as path from 'node:path'
import type { z } from 'zod'
import { Failure } from '../base/failure.ts'
import { formatSizeExactly } from './sizes.ts'
import { agentSchema, type AgentConfig } from './agent-config.ts'
import { emptyDocument, parseConfigDocument, type ConfigDocument } from './document.ts'
import { agentVariables, overrideFromEnvironment, vraVariables, type Environment } from './environment.ts'
import { configFailure, faultsOf, unwrap, type Fault, type KeyPath, type Origin } from './faults.ts'
import { vraSchema, type VraConfig, type VraEncryptionConfig } from './vra-config.ts'

export type { AgentConfig } from './agent-config.ts'
export { pricesDefault, type TlsConfig, type VraConfig, type VraStoreConfig } from './vra-config.ts'
export { formatSizeExactly, parseSize } from './sizes.ts'
export { exampleConfig } from './example.ts'

// One YAML file per role. The schema is the only list of options: reading, checking, the example file and the suggestions for
// misspelt keys all come from it. Everything that is wrong is said at once, with file, line and the nearest right key.

/** Reads, overrides from the environment, checks. Without a file: the defaults. Fails CONFIG_INVALID, naming every fault. */
export function loadVraConfig(file: string | undefined, environment: Environment): VraConfig {
  const { document, base } = readDocument(file)
  return vraConfigOf(document, { file, base, environment })
}

export function loadAgentConfig(file: string | undefined, environment: Environment): AgentConfig {
  const { document, base } = readDocument(file)
  return checked(agentSchema, document, { file, base, environment, variables: agentVariables })
}

/** The same rules for values that did not come from a file: the command line's flags, a test, the demo. */
export function agentConfigFrom(values: unknown, environment: Environment = {}): AgentConfig {
  const source = { file: undefined, base: process.cwd(), environment, variables: agentVariables }
  return checked(agentSchema, { ...emptyDocument, values }, source)
}

export function vraConfigFrom(values: unknown): VraConfig {
  return vraConfigOf({ ...emptyDocument, values }, { file: undefined, base: process.cwd(), environment: {} })
}

interface Source {
  readonly file: string | undefined
  /** The directory that relative paths are taken from. */
  readonly base: string
  readonly environment: Environment
}

function vraConfigOf(document: ConfigDocument, source: Source): VraConfig {
  const config = checked(vraSchema, document, { ...source, variables: vraVariables }, relationsOfVra)
  const { clientEncryption, ...store } = config.store
  return {
    ...config,
    store:
      store.kind === 'directory'
        ? {
            kind: 'directory',
            directory: store.directory ?? path.join(config.dataDirectory, 'store'),
            ...encryptionOf(clientEncryption),
          }
        : {
            ...store,
            endpoint: store.endpoint,
            kmsKeyId: store.kmsKeyId,
            objectLock: store.objectLock,
            ...encryptionOf(clientEncryption),
          },
  }
}

function encryptionOf(configured: z.output<typeof vraSchema>['store']['clientEncryption']): {
  readonly clientEncryption?: VraEncryptionConfig
} {
  if (configured === undefined) return {}
  if (configured.key === 'file') return { clientEncryption: configured }
  return { clientEncryption: { ...configured, endpoint: configured.endpoint } }
}

function relationsOfVra(config: z.output<typeof vraSchema>): { path: KeyPath; sentence: string }[] {
  const { store } = config
  const { logSizeBytesMax } = config.journal
  const faults: { path: KeyPath; sentence: string }[] = []
  if (config.aging.logSizeBytesPressure >= logSizeBytesMax) {
    const max = formatSizeExactly(logSizeBytesMax)
    faults.push({
      path: ['aging', 'logSizeBytesPressure'],
      sentence: `must be less than journal.logSizeBytesMax (${max})`,
    })
  }
  if (store.kind === 's3' && store.kmsKeyId !== undefined && store.serverSideEncryption !== 'kms')
    faults.push({ path: ['store', 'kmsKeyId'], sentence: 'has no effect without serverSideEncryption: kms' })
  return faults
}

function checked<T extends z.ZodType>(
  schema: T,
  document: ConfigDocument,
  source: Source & { readonly variables: Parameters<typeof overrideFromEnvironment>[1] },
  relations: (config: z.output<T>) => { path: KeyPath; sentence: string }[] = () => [],
): z.output<T> {
  const overridden = overrideFromEnvironment(document.values, source.variables, source.environment)
  const origin: Origin = { file: source.file, lineOf: document.lineOf, variableOf: overridden.variableOf }
  const parsed = schema.safeParse(overridden.values)
  const faults: Fault[] = [...document.faults, ...overridden.faults]
  if (!parsed.success) faults.push(...faultsOf(parsed.error, schema, overridden.values, origin))
  else faults.push(...relations(parsed.data).map(fault => ({ ...fault, line: origin.lineOf(fault.path) })))
  if (!parsed.success || faults.length > 0) throw configFailure(faults, origin)
  return resolvePaths(schema, parsed.data, source.base) as z.output<T>
}

function readDocument(file: string | undefined): { readonly document: ConfigDocument; readonly base: string } {
  if (file === undefined) return { document: emptyDocument, base: process.cwd() }
  try {
    return { document: parseConfigDocument(readFileSync(file, 'utf8')), base: path.dirname(path.resolve(file)) }
  } catch (error) {
    throw new Failure(
      'CONFIG_INVALID',
      `cannot read the configuration ${file}: ${whyUnread(error)}`,
      { file },
      { cause: error },
    )
  }
}

function whyUnread(error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return 'there is no such file'
    case 'EACCES':
      return 'this user may not read it'
    case 'EISDIR':
      return 'it is a directory'
    default:
      return error instanceof Error ? error.message : String(error)
  }
}

/** Relative paths, defaults included, are taken from the configuration file's directory. */
function resolvePaths(schema: z.ZodType, value: unknown, base: string): unknown {
  const inner = unwrap(schema)
  if (typeof value === 'string') return isPath(schema) ? path.resolve(base, value) : value
  if (typeof value !== 'object' || value === null) return value
  const { def } = inner as unknown as { readonly def: { readonly element?: z.ZodType; readonly options?: z.ZodType[] } }
  if (Array.isArray(value)) {
    const { element } = def
    return element === undefined ? value : value.map(entry => resolvePaths(element, entry, base))
  }
  const shapes = (def.options ?? [inner]).map(
    option => (option as unknown as { shape?: Record<string, z.ZodType> }).shape,
  )
  return Object.fromEntries(
    Object.entries(value).map(([key, entry]) => {
      const next = shapes.map(shape => shape?.[key]).find(candidate => candidate !== undefined)
      return [key, next === undefined ? entry : resolvePaths(next, entry, base)]
    }),
  )
}

function isPath(schema: z.ZodType): boolean {
  return unwrap(schema).meta()?.['path'] === true
}
