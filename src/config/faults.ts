import { z } from 'zod'
import { Failure } from '../base/failure.ts'
import { nearestWord } from './nearest.ts'

/** The keys and list indexes that lead to a value. */
export type KeyPath = readonly (string | number)[]

/** One thing that is wrong in a configuration. */
export interface Fault {
  readonly path: KeyPath
  readonly line: number | undefined
  readonly sentence: string
  /** The environment variable that it is about, where it is about none of the file's values. */
  readonly variable?: string
}

/** Where values came from, so that a fault names the file and line, or the environment variable, to mend. */
export interface Origin {
  readonly file: string | undefined
  lineOf(path: KeyPath): number | undefined
  variableOf(path: KeyPath): string | undefined
}

/** Every fault at once, one a line, in the order of the file. */
export function configFailure(faults: readonly Fault[], origin: Origin): Failure {
  const ordered = [...faults].sort((a, b) => (a.line ?? 0) - (b.line ?? 0))
  const lines = ordered.map(fault => describeFault(fault, origin))
  return new Failure('CONFIG_INVALID', lines.join('\n'), {
    ...(origin.file === undefined ? {} : { file: origin.file }),
    faultCount: lines.length,
  })
}

function describeFault(fault: Fault, origin: Origin): string {
  if (fault.variable !== undefined) return `environment: ${fault.variable} ${fault.sentence}`
  const variable = origin.variableOf(fault.path)
  const key = formatPath(fault.path)
  if (variable !== undefined) return `environment: ${variable}, which sets ${key}, ${fault.sentence}`
  const line = fault.line === undefined ? '' : `:${fault.line}`
  const place = origin.file === undefined ? '' : `${origin.file}${line}: `
  return `${place}${key === '' ? '' : `${key} `}${fault.sentence}`
}

/** listen.port, volumes[2].path */
export function formatPath(path: KeyPath): string {
  return path.reduce<string>(
    (text, step) => (typeof step === 'number' ? `${text}[${step}]` : text === '' ? step : `${text}.${step}`),
    '',
  )
}

/** What zod found, as faults in words; unknown keys one by one, each with the known key that is nearest. */
export function faultsOf(error: z.ZodError, schema: z.ZodType, values: unknown, origin: Origin): Fault[] {
  return error.issues.flatMap(issue => {
    const path = issue.path.filter(step => typeof step !== 'symbol')
    if (issue.code === 'unrecognized_keys') {
      const known = knownKeys(schema, path, values)
      return issue.keys.map(key => ({
        path: [...path, key],
        line: origin.lineOf([...path, key]),
        sentence: unknownKey(key, known),
      }))
    }
    return [{ path, line: origin.lineOf(path), sentence: sentenceOf(issue, valueAt(values, path)) }]
  })
}

function unknownKey(key: string, known: readonly string[]): string {
  const nearest = nearestWord(key, known)
  return nearest === undefined
    ? `is not a known key; known here: ${known.join(', ')}`
    : `is not a known key; did you mean ${nearest}?`
}

function sentenceOf(issue: z.core.$ZodIssue, value: unknown): string {
  const shown = value === undefined ? '' : ` (is ${JSON.stringify(value)})`
  switch (issue.code) {
    case 'invalid_type':
      return value === undefined ? 'is missing' : `must be ${article(issue.expected)}${shown}`
    case 'invalid_union':
      return value === undefined
        ? 'is missing'
        : issue.discriminator === undefined
          ? `must be a size: bytes, or text like "64 MiB"${shown}`
          : `must be one of ${unionValues(issue as { options?: readonly unknown[] })}${shown}`
    case 'invalid_value': {
      const nearest = typeof value === 'string' ? nearestWord(value, issue.values.map(String)) : undefined
      const hint = nearest === undefined ? '' : `; did you mean ${nearest}?`
      return `must be one of ${issue.values.map(String).join(', ')}${shown}${hint}`
    }
    default:
      return `${issue.message}${shown}`
  }
}

function unionValues(issue: { readonly options?: readonly unknown[] }): string {
  return issue.options === undefined ? 'the known kinds' : issue.options.map(String).join(', ')
}

function article(expected: string): string {
  const words: Readonly<Record<string, string>> = {
    object: 'a section of keys',
    array: 'a list',
    number: 'a number',
    string: 'text',
    boolean: 'true or false',
  }
  return words[expected] ?? expected
}

function valueAt(values: unknown, path: KeyPath): unknown {
  return path.reduce<unknown>(
    (value, step) =>
      typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[step] : undefined,
    values,
  )
}

/** The keys that the schema knows at a path; of a union, those of the member that the values chose. */
export function knownKeys(schema: z.ZodType, path: KeyPath, values: unknown): readonly string[] {
  const inner = unwrap(schema)
  if (inner instanceof z.ZodDiscriminatedUnion) {
    const key = inner.def.discriminator
    const chosen = inner.options.find(option => {
      const literal: unknown = option instanceof z.ZodObject ? option.shape[key] : undefined
      return literal instanceof z.ZodLiteral && literal.value === valueAt(values, [key])
    })
    return chosen === undefined ? [key] : knownKeys(chosen as z.ZodType, path, values)
  }
  const [step, ...rest] = path
  if (inner instanceof z.ZodObject) {
    if (step === undefined) return Object.keys(inner.shape)
    const next: unknown = inner.shape[String(step)]
    return next instanceof z.ZodType ? knownKeys(next, rest, valueAt(values, [step])) : []
  }
  if (inner instanceof z.ZodArray && step !== undefined)
    return knownKeys(inner.element as z.ZodType, rest, valueAt(values, [step]))
  return []
}

/** The schema without its wrappers for defaults and absence. */
export function unwrap(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional)
    return unwrap(schema.unwrap() as z.ZodType)
  return schema
}
