import { X509Certificate } from 'node:crypto'
import { Failure } from '../base/failure.ts'
import type { Log } from './log.ts'
import { readText } from './read-text.ts'

const warnedBeforeSeconds = 30 * 86_400

export interface TlsFiles {
  readonly certificateFile: string
  readonly privateKeyFile: string
  readonly authorityFile: string
}

/** PEM texts. Fails CONFIG_INVALID, naming the file. */
export interface TlsTexts {
  readonly certificate: string
  readonly privateKey: string
  readonly authority: string
}

export function readTls(files: TlsFiles): TlsTexts {
  return {
    certificate: readText(files.certificateFile),
    privateKey: readText(files.privateKeyFile),
    authority: readText(files.authorityFile),
  }
}

/**
 * When the certificate that this process shows ends, in seconds since 1970; that of its authority where it is sooner. A certificate that ends within
 * 30 days is told in the log. Undefined without TLS; CONFIG_INVALID where a file holds no certificate.
 */
export function certificateEndSeconds(files: TlsFiles | undefined, log: Log): number | undefined {
  if (files === undefined) return undefined
  const ends = [files.certificateFile, files.authorityFile].map(file => ({ file, endSeconds: endOf(file) }))
  const first = ends.reduce((a, b) => (b.endSeconds < a.endSeconds ? b : a))
  if (first.endSeconds < Date.now() / 1000 + warnedBeforeSeconds)
    log.warn({ file: first.file, ends: new Date(first.endSeconds * 1000).toISOString() }, 'certificateEndsSoon')
  return first.endSeconds
}

function endOf(file: string): number {
  try {
    return Date.parse(new X509Certificate(readText(file)).validTo) / 1000
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw new Failure('CONFIG_INVALID', `${file} holds no certificate in PEM`, { file }, { cause })
  }
}
