import { Command, InvalidArgumentError } from 'commander'
import { ControlClient } from '../control/client.ts'
import { parseDuration, parseInstant, parseRetention } from '../control/reference.ts'
import type { Density } from '../control/service.ts'
import { faultOf } from '../timeline/densities.ts'
import { parseSize } from '../config/sizes.ts'

/** Options that every command has which asks a daemon. */
export interface ClientOptions {
  readonly url: string
  readonly json?: true
}

/** A command that asks the daemon. `json`: it prints facts, so it can print them as JSON. */
export function clientCommand(name: string, description: string): Command {
  const defaultUrl = process.env['VRA_CONTROL_URL'] ?? 'http://127.0.0.1:7421'
  return new Command(name)
    .description(description)
    .option('--url <url>', "the daemon's control API; VRA_CONTROL_URL", defaultUrl)
    .option('--json', 'print one JSON document')
}

/** Ctrl-C ends the request under way. */
export function clientOf(options: ClientOptions): ControlClient {
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  process.once('SIGTERM', () => stop.abort())
  return new ControlClient(options.url, stop.signal)
}

export function durationArgument(text: string): number {
  const millis = parseDuration(text)
  if (millis === undefined) throw new InvalidArgumentError('Give a duration such as 30s, 4h, 1h30m or 7d.')
  return millis
}

export function retentionArgument(text: string): readonly Density[] {
  const densities = parseRetention(text)
  if (densities === undefined)
    throw new InvalidArgumentError('Give how densely for how long, from young to old: all:4h,1m:2d,1h:14d,1d:30d.')
  const fault = faultOf(densities)
  if (fault !== undefined) throw new InvalidArgumentError(`It ${fault}.`)
  return densities
}

/** How long a tag keeps its checkpoint; undefined: until it is untagged. */
export function keepArgument(text: string): number | undefined {
  return text === 'forever' ? undefined : durationArgument(text)
}

export function sizeArgument(text: string): number {
  const size = parseSize(text)
  if (size === undefined) throw new InvalidArgumentError('Give a size such as 40GiB, 512MiB or a number of bytes.')
  return size
}

export function instantArgument(text: string): number {
  const micros = parseInstant(text, Date.now() * 1000)
  if (micros === undefined)
    throw new InvalidArgumentError('Give a time such as 2026-03-29T02:15:00Z, "2026-03-29 02:15" (UTC) or "2h ago".')
  return micros
}

export function countArgument(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give a whole number.')
  return Number(text)
}

/** "name=value", for options that are given several times. */
export function pairArgument(text: string): readonly [string, string] {
  const at = text.indexOf('=')
  if (at < 1 || at === text.length - 1) throw new InvalidArgumentError('Write it as name=value.')
  return [text.slice(0, at), text.slice(at + 1)]
}

/** "[agent:][vm/]name=size" */
export function volumeArgument(text: string): {
  readonly name: string
  readonly sizeBytes: number
  readonly agent?: string
  readonly vm?: string
} {
  const [whose, size] = pairArgument(text)
  const at = whose.indexOf(':')
  const [name = '', vm] = whose
    .slice(at + 1)
    .split('/')
    .reverse()
  return {
    ...{ name, sizeBytes: sizeArgument(size) },
    ...(at < 0 ? {} : { agent: whose.slice(0, at) }),
    ...(vm === undefined ? {} : { vm }),
  }
}

export type SnapshotKeyArgument = 'none' | { readonly volume?: string; readonly key: string }

/** "[volume=]ARN" */
export function snapshotKeyArgument(text: string): SnapshotKeyArgument {
  if (text === 'none') return 'none'
  if (!text.includes('=')) return { key: text }
  const [volume, key] = pairArgument(text)
  return { volume, key }
}

/** Bytes a second; 0 for no limit. */
export function rateArgument(text: string): number {
  if (text === 'none') return 0
  const rate = sizeArgument(text.replace(/\/s$/, ''))
  if (rate === 0) throw new InvalidArgumentError('A rate is above 0; "none" is no limit.')
  return rate
}

/** How often standby copies are brought up to a newer checkpoint; 0 for none. */
export function standbyArgument(text: string): number {
  return text === 'none' ? 0 : durationArgument(text)
}

/** A share of the disk ("20%") or bytes; 0 for no limit. */
export function limitArgument(text: string): number | string {
  return /^\d+ ?%$/.test(text) ? text.replace(' ', '') : text === 'none' ? 0 : sizeArgument(text)
}

/** Collects an option that may be given several times. */
export function collected<T>(
  parse: (text: string) => T,
): (text: string, before: readonly T[] | undefined) => readonly T[] {
  return (text, before) => [...(before ?? []), parse(text)]
}
