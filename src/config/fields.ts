import { isIP } from 'node:net'
import { z } from 'zod'
import { nameSizeCharactersMax } from '../base/limits.ts'
import { formatSizeExactly, parseSize } from './sizes.ts'

// The kinds of values that a configuration holds. Each states its bounds; each message says what would be right.

export interface Bounds {
  readonly min: number
  readonly max: number
}

/** What the example file says about an option; the first line of it is its comment. */
export function described<T extends z.ZodType>(schema: T, description: string, example?: unknown): T {
  return schema.meta({ description, ...(example === undefined ? {} : { example }) }) as T
}

/**
 * A rule between the keys of a section: when it does not hold, `message` is said of `key`. It is checked beside other faults of the
 * section, so that all are said at once; so it may see keys
 * whose own value is faulty.
 */
export function related<S extends z.ZodObject>(
  schema: S,
  rule: { readonly key: string; readonly message: string; readonly holds: (section: z.output<S>) => boolean },
): S {
  return schema.refine(section => rule.holds(section as z.output<S>), {
    path: [rule.key],
    message: rule.message,
    when: ({ value }) => typeof value === 'object' && value !== null,
  })
}

/** Bytes: a number, or text with a binary unit such as "64 MiB". */
export function sizeBytes(bounds: Bounds) {
  return z.union([z.number(), z.string()]).transform((value, context) => {
    const parsed = typeof value === 'number' ? value : parseSize(value)
    if (parsed === undefined) return refused(context, value, 'is not a size; write bytes, or text like "64 MiB"')
    if (!Number.isSafeInteger(parsed)) return refused(context, value, 'is not a whole number of bytes')
    if (parsed < bounds.min || parsed > bounds.max) return refused(context, value, betweenSizes(bounds))
    return parsed
  })
}

export function millis(bounds: Bounds) {
  return z.number().superRefine((value, context) => {
    if (!Number.isInteger(value)) context.addIssue('is not a whole number of milliseconds')
    else if (value < bounds.min || value > bounds.max)
      context.addIssue(`must lie between ${bounds.min} and ${bounds.max} milliseconds`)
  })
}

export function share(bounds: Bounds) {
  return z.number().superRefine((value, context) => {
    if (value < bounds.min || value > bounds.max) context.addIssue(`must lie between ${bounds.min} and ${bounds.max}`)
  })
}

/** An amount of money. */
export function price() {
  return z.number().superRefine((value, context) => {
    if (value < 0 || value > 1_000_000) context.addIssue('must lie between 0 and 1000000')
  })
}

export function port() {
  return z.number().superRefine((value, context) => {
    if (!Number.isInteger(value) || value < 0 || value > 65_535)
      context.addIssue('must be a port: a whole number between 0 (any free one) and 65535')
  })
}

/** An address to listen on or connect to: an IP address or a host name. */
export function host() {
  return z.string().superRefine((value, context) => {
    const name = /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*$/
    if (isIP(value) === 0 && !name.test(value)) context.addIssue('must be an IP address or a host name')
  })
}

/** `host:port` or `[IPv6]:port`. */
export function address() {
  return z.string().superRefine((value, context) => {
    const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]{1,253})):(\d{1,5})$/.exec(value)
    const [v6, number] = [match?.[1], Number(match?.[3])]
    if (match === null || number < 1 || number > 65_535 || (v6 !== undefined && isIP(v6) !== 6))
      context.addIssue('must be an address of the form host:port')
  })
}

/** The name of a VPG, an agent or a volume. */
export function name() {
  return z.string().superRefine((value, context) => {
    if (!namePattern.test(value) || value.length > nameSizeCharactersMax)
      context.addIssue(
        `must be a name: letters, digits, ".", "_" and "-", beginning with a letter or digit, at most ${nameSizeCharactersMax} characters`,
      )
  })
}

export const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]*$/

/** A path; made absolute after reading, see resolvePaths. */
export function file() {
  return z
    .string()
    .superRefine((value, context) => {
      if (value === '' || value.includes('\0')) context.addIssue('must be a path')
    })
    .meta({ path: true })
}

/** True where every address of the host is meant. */
export function isWildcard(address: string): boolean {
  return address === '0.0.0.0' || /^[0:]+$/.test(address)
}

/** True where only processes of the same host can connect. */
export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || /^127(\.\d{1,3}){3}$/.test(address)
}

function betweenSizes(bounds: Bounds): string {
  return `must lie between ${formatSizeExactly(bounds.min)} and ${formatSizeExactly(bounds.max)}`
}

function refused(context: z.RefinementCtx, input: unknown, message: string): never {
  context.addIssue({ code: 'custom', message, input })
  return z.NEVER
}
