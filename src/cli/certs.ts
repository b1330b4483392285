import { X509Certificate } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import * as path from 'node:path'
import { Argument, Command, InvalidArgumentError } from 'commander'
import { Failure } from '../base/failure.ts'
import type { Certificate } from '../certs/certs.ts'
import { instantInWords } from '../control/words.ts'
import { realDisk, replaceFile } from '../disk/disk.ts'
import { collected, countArgument } from './client.ts'
import { printFacts, printJson } from './output.ts'

// Loaded when it is asked for: every other command starts without it.
const load = () => import('../certs/certs.ts')

export function certsCommand(): Command {
  return new Command('certs')
    .description('a small certificate authority to begin with')
    .addCommand(initCommand())
    .addCommand(issueCommand())
}

interface InitOptions {
  readonly directory: string
  readonly name: string
  readonly days: number
  readonly json?: true
}

function initCommand(): Command {
  return new Command('init')
    .description('make the authority: authority.crt for every host, authority.key for this directory only')
    .option('--directory <directory>', 'where', './vra-certs')
    .option('--name <name>', 'its common name', 'VRA authority')
    .option('--days <count>', 'how long it is valid', daysArgument, 3650)
    .option('--json', 'print one JSON document')
    .action(async (options: InitOptions) => {
      const written = filesIn(options.directory, 'authority')
      refuseExisting(written)
      const { createAuthority } = await load()
      write(written, await createAuthority({ name: options.name, validDays: options.days }))
      print(written, options.json)
    })
}

interface IssueOptions {
  readonly directory: string
  readonly host?: readonly string[]
  readonly days: number
  readonly json?: true
}

function issueCommand(): Command {
  return new Command('issue')
    .description('issue a certificate for the VRA (server) or an agent (client)')
    .addArgument(new Argument('<kind>', 'server: the VRA; client: an agent').choices(['server', 'client']))
    .argument('<name>', "an agent's name, as its VPG lists it; for the VRA any name")
    .option('--directory <directory>', 'where the authority is, and the certificate goes', './vra-certs')
    .option('--host <host>', 'a name or address under which the server is reached; once for each', collected(String))
    .option('--days <count>', 'how long it is valid', daysArgument, 825)
    .option('--json', 'print one JSON document')
    .addHelpText(
      'after',
      `
Examples:
  vra certs init
  vra certs issue server vra --host vra.example.org --host 10.20.0.5
  vra certs issue client host1`,
    )
    .action(async (kind: 'server' | 'client', name: string, options: IssueOptions) => {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name))
        throw new Failure('REQUEST_INVALID', `"${name}" is not a name: letters, digits, ".", "_" and "-"`)
      const hosts = options.host ?? []
      if (kind === 'server' && hosts.length === 0)
        throw new Failure(
          'REQUEST_INVALID',
          'a server certificate needs --host: the name or address that agents connect to',
        )
      const authority = read(filesIn(options.directory, 'authority'))
      const written = filesIn(options.directory, name)
      refuseExisting(written)
      const { issueCertificate } = await load()
      write(written, await issueCertificate(authority, { commonName: name, kind, hosts, validDays: options.days }))
      print(written, options.json)
    })
}

interface CertificateFiles {
  readonly certificateFile: string
  readonly privateKeyFile: string
}

function filesIn(directory: string, name: string): CertificateFiles {
  const stem = path.resolve(directory, name)
  return { certificateFile: `${stem}.crt`, privateKeyFile: `${stem}.key` }
}

/** A key that exists is somebody's. */
function refuseExisting(files: CertificateFiles): void {
  for (const file of [files.certificateFile, files.privateKeyFile])
    if (existsSync(file)) throw new Failure('ALREADY_EXISTS', `${file} exists; move it away first`, { file })
}

/** The key is in a directory, and then in a file, that only its owner reads. */
function write(files: CertificateFiles, certificate: Certificate): void {
  mkdirSync(path.dirname(files.privateKeyFile), { recursive: true, mode: 0o700 })
  const before = process.umask(0o077)
  try {
    replaceFile(realDisk, files.privateKeyFile, Buffer.from(certificate.privateKeyPem))
  } finally {
    process.umask(before)
  }
  replaceFile(realDisk, files.certificateFile, Buffer.from(certificate.certificatePem))
  chmodSync(files.certificateFile, 0o644)
}

function read(files: CertificateFiles): Certificate {
  try {
    return {
      certificatePem: readFileSync(files.certificateFile, 'utf8'),
      privateKeyPem: readFileSync(files.privateKeyFile, 'utf8'),
    }
  } catch (error) {
    const sentence = `there is no authority in ${path.dirname(files.certificateFile)}: run "vra certs init" first`
    throw new Failure('NOT_FOUND', sentence, {}, { cause: error })
  }
}

function daysArgument(text: string): number {
  const days = countArgument(text)
  if (days < 1) throw new InvalidArgumentError('Give a whole number of days, 1 at least.')
  return days
}

function print(files: CertificateFiles, json: true | undefined): void {
  const validUntil = new X509Certificate(readFileSync(files.certificateFile)).validTo
  if (json) printJson({ ...files, validUntil: new Date(validUntil).toISOString() })
  else
    printFacts([
      ['certificate', files.certificateFile],
      ['private key', files.privateKeyFile],
      ['valid until', instantInWords(Date.parse(validUntil) * 1000)],
    ])
}
