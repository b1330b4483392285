import * as path from 'node:path'
import { formatPath, type Fault, type KeyPath } from './faults.ts'
import { nearestWord } from './nearest.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** What a variable sets. A path in it is taken from the working directory, not from the file's. */
interface Variable {
  readonly path: KeyPath
  readonly kind: 'text' | 'path' | 'number' | 'boolean'
  /** Set along with it: the variable implies this choice. */
  readonly implies?: { readonly path: KeyPath; readonly value: string }
}

const s3 = { path: ['store', 'kind'], value: 's3' }

const logVariables: Readonly<Record<string, Variable>> = {
  VRA_LOG_LEVEL: { path: ['log', 'level'], kind: 'text' },
  VRA_LOG_FORMAT: { path: ['log', 'format'], kind: 'text' },
}

/** What a deployment has to set per host; all else belongs in the file. */
export const vraVariables: Readonly<Record<string, Variable>> = {
  VRA_DATA_DIRECTORY: { path: ['dataDirectory'], kind: 'path' },
  VRA_LISTEN_HOST: { path: ['listen', 'host'], kind: 'text' },
  VRA_LISTEN_PORT: { path: ['listen', 'port'], kind: 'number' },
  VRA_TLS_CERTIFICATE_FILE: { path: ['listen', 'tls', 'certificateFile'], kind: 'path' },
  VRA_TLS_PRIVATE_KEY_FILE: { path: ['listen', 'tls', 'privateKeyFile'], kind: 'path' },
  VRA_TLS_AUTHORITY_FILE: { path: ['listen', 'tls', 'authorityFile'], kind: 'path' },
  VRA_CONTROL_HOST: { path: ['control', 'host'], kind: 'text' },
  VRA_CONTROL_PORT: { path: ['control', 'port'], kind: 'number' },
  VRA_CONTROL_ALLOW_BEYOND_LOOPBACK: { path: ['control', 'allowBeyondLoopback'], kind: 'boolean' },
  VRA_LOG_SIZE_BYTES_MAX: { path: ['journal', 'logSizeBytesMax'], kind: 'text' },
  VRA_STORE_DIRECTORY: {
    path: ['store', 'directory'],
    kind: 'path',
    implies: { path: ['store', 'kind'], value: 'directory' },
  },
  VRA_S3_BUCKET: { path: ['store', 'bucket'], kind: 'text', implies: s3 },
  VRA_S3_PREFIX: { path: ['store', 'prefix'], kind: 'text', implies: s3 },
  VRA_S3_REGION: { path: ['store', 'region'], kind: 'text', implies: s3 },
  VRA_S3_ENDPOINT: { path: ['store', 'endpoint'], kind: 'text', implies: s3 },
  VRA_S3_FORCE_PATH_STYLE: { path: ['store', 'forcePathStyle'], kind: 'boolean', implies: s3 },
  ...logVariables,
}

export const agentVariables: Readonly<Record<string, Variable>> = {
  VRA_AGENT_ID: { path: ['agentId'], kind: 'text' },
  VRA_AGENT_VPG: { path: ['vpg'], kind: 'text' },
  VRA_AGENT_STATE_DIRECTORY: { path: ['stateDirectory'], kind: 'path' },
  VRA_AGENT_VRA_HOST: { path: ['vra', 'host'], kind: 'text' },
  VRA_AGENT_VRA_PORT: { path: ['vra', 'port'], kind: 'number' },
  VRA_AGENT_TLS_CERTIFICATE_FILE: { path: ['vra', 'tls', 'certificateFile'], kind: 'path' },
  VRA_AGENT_TLS_PRIVATE_KEY_FILE: { path: ['vra', 'tls', 'privateKeyFile'], kind: 'path' },
  VRA_AGENT_TLS_AUTHORITY_FILE: { path: ['vra', 'tls', 'authorityFile'], kind: 'path' },
  VRA_AGENT_NBD_HOST: { path: ['nbd', 'host'], kind: 'text' },
  VRA_AGENT_NBD_PORT: { path: ['nbd', 'port'], kind: 'number' },
  VRA_AGENT_QUEUE_SIZE_BYTES_MAX: { path: ['queueSizeBytesMax'], kind: 'text' },
  VRA_AGENT_CONTROL_HOST: { path: ['control', 'host'], kind: 'text' },
  VRA_AGENT_CONTROL_PORT: { path: ['control', 'port'], kind: 'number' },
  ...logVariables,
}

/** The command line's own variable: where its daemon is. */
const clientVariables = ['VRA_CONTROL_URL']

export interface Overridden {
  readonly values: unknown
  readonly faults: readonly Fault[]
  variableOf(path: KeyPath): string | undefined
}

/** The values with what the environment sets put over them. A variable that is nearly a known one is a fault. */
export function overrideFromEnvironment(
  values: unknown,
  variables: Readonly<Record<string, Variable>>,
  environment: Environment,
): Overridden {
  const setBy = new Map<string, string>()
  let result = values
  for (const [name, variable] of Object.entries(variables)) {
    const text = environment[name]
    if (text === undefined || text === '') continue
    const { implies } = variable
    if (implies !== undefined && valueOf(result, implies.path) !== implies.value) {
      // Another kind of store than the file's: its keys go with it.
      result = put(put(result, implies.path.slice(0, -1), {}), implies.path, implies.value)
      setBy.set(formatPath(implies.path), name)
    }
    result = put(result, variable.path, valueOfText(text, variable.kind))
    setBy.set(formatPath(variable.path), name)
  }
  const known = [...Object.keys(vraVariables), ...Object.keys(agentVariables), ...clientVariables]
  const faults = Object.keys(environment)
    .filter(name => name.startsWith('VRA_') && !known.includes(name))
    .flatMap(name => {
      const nearest = nearestWord(
        name.slice('VRA_'.length),
        known.map(other => other.slice('VRA_'.length)),
      )
      if (nearest === undefined) return []
      return [
        {
          path: [],
          line: undefined,
          variable: name,
          sentence: `is not a known variable; did you mean VRA_${nearest}?`,
        },
      ]
    })
  return { values: result, faults, variableOf: at => setBy.get(formatPath(at)) }
}

/** What is not a number or a boolean stays text, for the schema to refuse in its own words. */
function valueOfText(text: string, kind: Variable['kind']): string | number | boolean {
  switch (kind) {
    case 'number':
      return /^\d{1,9}$/.test(text) ? Number(text) : text
    case 'boolean':
      return text === 'true' ? true : text === 'false' ? false : text
    case 'path':
      return path.resolve(text)
    case 'text':
      return text
  }
}

function valueOf(values: unknown, at: KeyPath): unknown {
  return at.reduce<unknown>(
    (value, step) =>
      typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[step] : undefined,
    values,
  )
}

/** A copy with the value at the path; sections on the way are made where there are none. */
function put(values: unknown, at: KeyPath, value: unknown): unknown {
  const [step, ...rest] = at
  if (step === undefined) return value
  const section = typeof values === 'object' && values !== null && !Array.isArray(values) ? values : {}
  return { ...section, [step]: put((section as Record<string, unknown>)[step], rest, value) }
}
