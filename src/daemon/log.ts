import { pino, type Logger } from 'pino'

// Lines are events with facts, not prose: {"event":"segmentCommitted","vpg":"web",...}. Pretty lines say the same for people.

export type Log = Logger

export interface LogOptions {
  readonly level: string
  readonly format: 'pretty' | 'json'
}

const levelNames: Readonly<Record<number, string>> = {
  10: 'trace',
  20: 'debug',
  30: 'info',
  40: 'warn',
  50: 'error',
  60: 'fatal',
}

/** Writes to standard output; synchronously, so that the last lines before an end are there. */
export function openLog(options: LogOptions): Log {
  const base = { level: options.level, base: {}, messageKey: 'event' }
  if (options.format === 'json') return pino({ ...base, timestamp: pino.stdTimeFunctions.isoTime })
  return pino(
    { ...base, timestamp: pino.stdTimeFunctions.isoTime },
    { write: line => process.stdout.write(prettyLine(line)) },
  )
}

/** A JSON line of ours as people read it: time, level, event, then name=value. */
function prettyLine(line: string): string {
  const { level, time, event, ...facts } = JSON.parse(line) as Record<string, unknown>
  const clock = String(time).slice(0, 23).replace('T', ' ') // with the date: it runs for months
  const values = Object.entries(facts).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return (
    `${clock} ${(levelNames[Number(level)] ?? '').padEnd(5)} ${String(event ?? '')} ${values.join(' ')}`.trimEnd() +
    '\n'
  )
}
