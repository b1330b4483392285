import type { z } from 'zod'
import { durationInWords, sizeInWords } from './words.ts'

/** The command line's names of what its users never see as a key. */
const optionOf: Readonly<Record<string, string>> = {
  historyMillis: '--history',
  retention: '--retention',
  checkpointIntervalMillis: '--interval',
  syncRateBytesPerSecond: '--sync-rate',
  journalWarnSizeBytes: '--journal-warn',
  journalLimitSizeBytes: '--journal-limit',
  syncMayPassLimit: '--sync-over-limit',
  snapshotKeys: '--snapshot-key',
  keepMillis: '--keep',
  afterMillis: '--after',
  sizeBytes: 'the size of a volume',
}

/** What zod found, in words: "historyMillis (--history) must be 10 s or more". */
export function faultInWords(issue: z.core.$ZodIssue): string {
  const steps = issue.path.map(String)
  const key = steps.findLast(step => !/^\d+$/.test(step)) ?? ''
  const option = optionOf[key]
  const place = [steps.join('.'), ...(option === undefined ? [] : [`(${option})`])].join(' ')
  const sentence = sentenceOf(issue, key)
  if (place === '') return sentence
  return /^(must|is|has|names) /.test(sentence) ? `${place} ${sentence}` : `${place}: ${sentence}`
}

function sentenceOf(issue: z.core.$ZodIssue, key: string): string {
  switch (issue.code) {
    case 'too_small':
      return issue.inclusive === false
        ? `must be more than ${amount(issue.minimum, issue.origin, key)}`
        : `must be ${amount(issue.minimum, issue.origin, key)} or more`
    case 'too_big':
      return `must be ${amount(issue.maximum, issue.origin, key)} or less`
    case 'not_multiple_of':
      return `must be a multiple of ${amount(issue.divisor, 'number', key)}`
    case 'unrecognized_keys':
      return `has the unknown ${issue.keys.length === 1 ? 'key' : 'keys'} ${issue.keys.join(', ')}`
    case 'invalid_value':
      return `must be one of ${issue.values.map(String).join(', ')}`
    case 'invalid_type':
      return /undefined$/.test(issue.message) ? 'is missing' : `must be of type ${issue.expected}`
    case 'invalid_format':
      return issue.format === 'regex'
        ? issue.message.replace(/^Invalid string: /, '')
        : `must be of the form ${issue.format}`
    default:
      return issue.message.charAt(0).toLowerCase() + issue.message.slice(1)
  }
}

function amount(value: number | bigint, origin: string, key: string): string {
  const number = Number(value)
  if (origin === 'string') return `${number} characters`
  if (origin === 'array') return number === 1 ? '1 entry' : `${number} entries`
  if (key.endsWith('Millis') && number !== 0) return durationInWords(number)
  if (/Bytes(PerSecond)?$/.test(key) && number !== 0) return sizeInWords(number)
  return String(number)
}
