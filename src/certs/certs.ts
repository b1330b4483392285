import 'reflect-metadata'
import { randomBytes, webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import * as x509 from '@peculiar/x509'
import { Failure } from '../base/failure.ts'

// A small certificate authority to begin with: one self-signed certificate, and certificates of the VRA and its agents
// under it. EC P-256, SHA-256. An agent is who its common name says, see proto/README.md.

export interface Certificate {
  readonly certificatePem: string
  /** PKCS #8, not encrypted: the file that holds it is to be read by its owner only. */
  readonly privateKeyPem: string
}

export interface CertificateRequest {
  readonly commonName: string
  /** 'server' for the VRA, 'client' for an agent, which is a server to the other agents of its VPG, too. */
  readonly kind: 'server' | 'client'
  /** Host names and IP addresses under which a server is reached. */
  readonly hosts: readonly string[]
  readonly validDays: number
}

const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const
const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' } as const
const dayMillis = 24 * 3_600_000
/** Certificates are valid from a little before now, for hosts whose clock is behind. */
const clockToleranceMillis = 10 * 60_000
const purposesOf = {
  server: [x509.ExtendedKeyUsage.serverAuth],
  client: [x509.ExtendedKeyUsage.clientAuth, x509.ExtendedKeyUsage.serverAuth],
} as const
/** An agent is known by its common name to agents, and to nobody as a host: the VRA cannot be played with its certificate. */
const agentHost = 'agent.vra.invalid'

export async function createAuthority(authority: {
  readonly name: string
  readonly validDays: number
}): Promise<Certificate> {
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerialNumber(),
    name: distinguishedName(authority.name),
    ...validity(authority.validDays),
    signingAlgorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificatePem: toPem(certificate), privateKeyPem: await privateKeyToPem(keys.privateKey) }
}

/** A certificate with a key of its own, under the authority. */
export async function issueCertificate(authority: Certificate, request: CertificateRequest): Promise<Certificate> {
  const issuer = new x509.X509Certificate(authority.certificatePem)
  const signingKey = await importPrivateKey(authority.privateKeyPem)
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify'])
  const hosts = request.kind === 'client' ? [...request.hosts, agentHost] : request.hosts
  const names = hosts.map(host => new x509.GeneralName(isIP(host) === 0 ? 'dns' : 'ip', host))
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: newSerialNumber(),
    subject: distinguishedName(request.commonName),
    issuer: issuer.subjectName,
    ...validity(request.validDays),
    signingAlgorithm,
    publicKey: keys.publicKey,
    signingKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([...purposesOf[request.kind]]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
    ],
  })
  return { certificatePem: toPem(certificate), privateKeyPem: await privateKeyToPem(keys.privateKey) }
}

/** As data, not as text, so that no character of a name can mean anything else. */
function distinguishedName(commonName: string): x509.Name {
  return new x509.Name([{ CN: [{ utf8String: commonName }] }])
}

function validity(validDays: number): { notBefore: Date; notAfter: Date } {
  const now = Date.now()
  return { notBefore: new Date(now - clockToleranceMillis), notAfter: new Date(now + validDays * dayMillis) }
}

/** Positive, as the standard asks. */
function newSerialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) % 127) + 1
  return bytes.toString('hex')
}

function toPem(certificate: x509.X509Certificate): string {
  return `${certificate.toString('pem')}\n`
}

async function privateKeyToPem(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`
}

async function importPrivateKey(pem: string): Promise<webcrypto.CryptoKey> {
  const [encoded] = x509.PemConverter.decode(pem)
  if (encoded === undefined) throw new Failure('CONFIG_INVALID', 'the private key of the authority is not PEM')
  return webcrypto.subtle.importKey('pkcs8', encoded, keyAlgorithm, false, ['sign'])
}
