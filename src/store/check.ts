import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { promises as fs } from 'node:fs'
import * as path from 'node:path'
import { Failure, failedWith } from '../base/failure.ts'
import { MiB } from '../base/units.ts'
import type { CreateOptions, ListedObject, ObjectStore, StoreConfig } from './object-store.ts'
import { openStore, type StoreOptions } from './store.ts'

// Whether a store keeps what this program stands on, found out by trying it: under a name of its own, which is gone afterwards. Every
// check says in words what was found, and what to do where it is not fit.

export interface StoreFinding {
  /** A name for machines. */
  readonly check: string
  /** 'skipped': what it needs has failed, or does not concern this store. */
  readonly outcome: 'passed' | 'failed' | 'skipped'
  readonly sentence: string
  readonly remedy: string | undefined
  readonly failureCode: string | undefined
  readonly millis: number
}

/** Two stores open on one place, so that what one does the other has to see. */
interface Site {
  readonly config: StoreConfig
  readonly options: StoreOptions
  readonly store: ObjectStore
  readonly other: ObjectStore
  readonly key: (name: string) => string
  /** As store.create; the object is removed in the end, whatever comes of this. */
  readonly create: (store: ObjectStore, name: string, body: Uint8Array, options?: CreateOptions) => Promise<void>
  readonly signal: AbortSignal
}

interface Check {
  readonly name: string
  /** Returns what was found, a sentence; fails where the store is not fit. */
  readonly run: (site: Site) => Promise<string>
  readonly remedy: (kind: StoreConfig['kind']) => string
  /** Undefined where it concerns every store; else why it does not concern this one. */
  readonly skipped?: (config: StoreConfig) => string | undefined
}

const racersMax = 12
const raceRounds = 3
const pageKeysMax = 5
const largeSizeBytes = 8 * MiB + 7
const cleanUpMillisMax = 60_000

const checks: readonly Check[] = [
  {
    name: 'list',
    run: async ({ store, key, signal }) => {
      const found = await keysOf(store.list(key(''), undefined, signal))
      if (found.length > 0) throw unfit(`a name that was never used before lists ${found.length} objects`)
      return 'the store answers, and may be listed'
    },
    remedy: permission('s3:ListBucket on the bucket'),
  },
  {
    name: 'create-and-read',
    run: async site => {
      const body = randomBytes(4096)
      await site.create(site.store, 'first', body)
      await requireBody(site, 'first', body)
      return 'an object is there for everybody as soon as it is created'
    },
    remedy: permission(
      's3:PutObject and s3:GetObject on its objects (with SSE-KMS also kms:GenerateDataKey and kms:Decrypt)',
    ),
  },
  {
    name: 'create-once',
    run: async site => {
      const first = Buffer.from('first')
      await site.create(site.store, 'once', first)
      for (const store of [site.store, site.other]) {
        const again = await site.create(store, 'once', Buffer.from('again')).then(
          () => undefined,
          (error: unknown) => error,
        )
        if (again === undefined) throw unfit('an object that existed was replaced by a create with If-None-Match: *')
        if (!failedWith(again, 'ALREADY_EXISTS')) throw again
      }
      await requireBody(site, 'once', first)
      return 'an object is never replaced'
    },
    remedy: conditional,
  },
  {
    name: 'one-winner',
    run: async site => {
      for (let round = 0; round < raceRounds; round++) await race(site, `race-${round}`)
      return `of ${racersMax} that create one object at once, one wins`
    },
    remedy: conditional,
  },
  {
    name: 'ranges',
    run: async site => {
      const body = randomBytes(10_000)
      await site.create(site.store, 'ranges', body)
      for (const [startBytes, endBytes] of [
        [0, 1],
        [4_096, 8_192],
        [9_999, 10_000],
        [17, 17],
        [0, 10_000],
      ] as const) {
        const found = await site.other.readRange(site.key('ranges'), { startBytes, endBytes }, site.signal)
        if (!Buffer.from(found).equals(body.subarray(startBytes, endBytes)))
          throw unfit(`bytes ${startBytes} to ${endBytes} of an object came back as others`)
      }
      await requireFailure(site, { key: 'ranges', endBytes: 10_001 }, 'OBJECT_CORRUPT', 'a range past the end')
      await requireFailure(site, { key: 'nowhere', endBytes: 1 }, 'NOT_FOUND', 'an object that does not exist')
      return 'ranges are exact, and what is missing is said to be'
    },
    remedy: kind =>
      kind === 's3'
        ? 'use a server (or a proxy before it) that honours the Range header and answers 404 for what is missing'
        : 'check the file system: it returns other bytes than were written',
  },
  {
    name: 'listing',
    run: checkListing,
    remedy: kind =>
      kind === 's3'
        ? 'use a general purpose bucket: who owns the mirror is decided by listings, so they must be complete, in byte order and up to date (directory buckets and some caches are not)'
        : 'use a local file system, or one whose directories are up to date for everybody at once',
  },
  {
    name: 'large-object',
    run: async site => {
      const body = randomBytes(largeSizeBytes)
      await site.create(site.store, 'large', body)
      const range = { startBytes: 0, endBytes: body.length }
      const found = await site.other.readRange(site.key('large'), range, site.signal)
      if (digestOf(found) !== digestOf(body)) throw unfit(`an object of ${body.length} bytes came back as another`)
      return 'an object of 8 MiB comes back as it was'
    },
    remedy: kind =>
      kind === 's3'
        ? 'raise the limit of a body in the proxy before the server: objects are up to 64 MiB (aging.segmentSizeBytesTarget) and 128 MiB'
        : 'check the file system, and its quota',
  },
  {
    name: 'checksums',
    skipped: config => {
      if (config.kind !== 's3') return 'files bear checksums of their own'
      return config.checksums === 'when-supported' ? undefined : 'the configuration says checksums: when-required'
    },
    run: async ({ config, options, key, create, signal }) => {
      if (config.kind !== 's3') return ''
      const { refusesWrongChecksum } = await import('./s3-probes.ts')
      const object = { key: key('wrong-checksum'), body: Buffer.from('not empty') }
      const wrong: Pick<ObjectStore, 'create'> = {
        create: async () => {
          if (await refusesWrongChecksum(config, options.credentials, object, signal)) return
          throw unfit('an object whose checksum was wrong was stored all the same')
        },
      }
      await create(wrong as ObjectStore, 'wrong-checksum', object.body)
      return 'what is damaged on its way is refused'
    },
    remedy: () =>
      'set store.checksums: when-required where the server does not know the checksum headers; the digest in each signature protects uploads then',
  },
  {
    name: 'encryption',
    skipped: config => (config.kind === 's3' ? undefined : 'it is the file system’s'),
    run: async ({ config, options, store, key, create, signal }) => {
      if (config.kind !== 's3') return ''
      const { encryptionOf } = await import('./s3-probes.ts')
      await create(store, 'encrypted', Buffer.from('secret'))
      return await encryptionOf(config, options.credentials, key('encrypted'), signal)
    },
    remedy: () =>
      'mend store.serverSideEncryption and store.kmsKeyId, allow the role kms:GenerateDataKey and kms:Decrypt on the key, or use a server that encrypts',
  },
  {
    name: 'remove',
    run: async site => {
      const { store, other, key, signal } = site
      await site.create(store, 'removed', Buffer.from('x'))
      await other.remove(key('removed'), signal)
      await store.remove(key('removed'), signal)
      await requireFailure(site, { key: 'removed', endBytes: 1 }, 'NOT_FOUND', 'an object that was removed')
      if ((await keysOf(store.list(key('removed'), undefined, signal))).length > 0)
        throw unfit('an object that was removed is still listed')
      return 'what is removed is gone'
    },
    remedy: permission('s3:DeleteObject on its objects'),
  },
  {
    name: 'object-lock',
    skipped: config => {
      if (config.kind !== 's3') return 'a directory locks nothing'
      return config.objectLock === undefined ? 'the configuration has no store.objectLock' : undefined
    },
    run: checkLock,
    remedy: () =>
      'use a bucket that was made with Object Lock (it has versions then), and allow the role s3:PutObjectRetention and s3:GetObjectRetention on its objects',
  },
  {
    name: 'versions',
    skipped: config => (config.kind === 's3' ? undefined : 'a directory keeps no versions'),
    run: async ({ config, options, signal }) => {
      if (config.kind !== 's3') return ''
      const { versionsOf } = await import('./s3-probes.ts')
      const versions = await versionsOf(config, options.credentials, signal)
      if (versions === undefined) {
        if (config.objectLock === undefined) return 'the role may not ask for the versioning of the bucket'
        throw unfit('the role may not ask for the versioning of the bucket and its lifecycle rules')
      }
      if (!versions.isVersioned) return 'the bucket keeps no versions: what is removed is gone'
      if (!versions.expire)
        throw unfit('the bucket keeps a version of whatever is removed, and no lifecycle rule ever takes it away')
      return 'what is removed is a noncurrent version, which goes by a lifecycle rule of the bucket when nothing locks it'
    },
    remedy: () =>
      'give the bucket a lifecycle rule, enabled for store.prefix, with NoncurrentVersionExpiration (NoncurrentDays 1) and ExpiredObjectDeleteMarker; ' +
      'to be asked for it, the role needs s3:GetBucketVersioning and s3:GetLifecycleConfiguration',
  },
]

/** So long one small object stays that this check has locked. */
const lockMillis = 60_000

async function checkLock({ config, options, store, create, key, signal }: Site): Promise<string> {
  if (config.kind !== 's3' || store.locks === undefined) return ''
  const { refusesToDestroy } = await import('./s3-probes.ts')
  const startMicros = Date.now() * 1000
  await create(store, 'locked', Buffer.from('locked'), { lockMillis })
  const untilMicros = await store.locks.lockedUntilMicros(key('locked'), signal)
  if (untilMicros < startMicros) throw unfit('an object that was to be locked is not')
  if (!(await refusesToDestroy(config, options.credentials, key('locked'), signal)))
    throw unfit('an object was destroyed although it was locked')
  await store.locks.extend(key('locked'), lockMillis + 5_000, signal)
  if ((await store.locks.lockedUntilMicros(key('locked'), signal)) <= untilMicros)
    throw unfit('the lock of an object was not extended')
  return `an object that is locked (${config.objectLock}) cannot be destroyed, and its lock can be extended; this one, of 6 bytes, is locked for a minute more`
}

/** Reads alone: the first key is made with the first VPG. */
function keyCheck(encrypted: StoreConfig): Check {
  return {
    name: 'client-encryption',
    run: async ({ options, signal }) => {
      const store = await openStore(encrypted, options)
      try {
        await keysOf(store.list('vpg/', undefined, signal))
        return 'the key is the one that this store was encrypted with, or it holds nothing yet'
      } finally {
        await store.close()
      }
    },
    remedy: () => 'mend store.clientEncryption; encryption begins with a store that is empty, or a prefix of its own',
  }
}

/**
 * Tries all of it, one after the other, and takes away what it made. The place itself is tried in plain, whether or not objects are encrypted
 * before they get there. Fails only when the signal is aborted.
 */
export async function checkStore(
  configured: StoreConfig,
  options: StoreOptions,
  signal: AbortSignal,
): Promise<readonly StoreFinding[]> {
  const config: StoreConfig = { ...configured, clientEncryption: undefined }
  const findings: StoreFinding[] = []
  const isNew = config.kind === 'directory' && !(await exists(config.directory))
  const id = `check-${randomUUID()}`
  const keys = new Set<string>()
  const opened: ObjectStore[] = []
  try {
    for (let count = 0; count < 2; count++) opened.push(await openStore(config, { ...options, pageKeysMax }))
  } catch (error) {
    findings.push(found('open', error, permission('s3:ListBucket')(config.kind), 0))
    return findings
  }
  const [store, other] = opened as [ObjectStore, ObjectStore]
  const key = (name: string): string => `${id}/${name}`
  const create: Site['create'] = async (by, name, body, createOptions) => {
    keys.add(key(name))
    await by.create(key(name), body, signal, createOptions)
  }
  try {
    const all = configured.clientEncryption === undefined ? checks : [...checks, keyCheck(configured)]
    await runAll(all, { config, options, store, other, key, create, signal }, findings)
  } finally {
    findings.push(await cleanUp(store, keys, config, { id, isNew }))
    for (const each of opened) await each.close()
  }
  return findings
}

async function runAll(all: readonly Check[], site: Site, findings: StoreFinding[]): Promise<void> {
  for (const { name, run, remedy, skipped } of all) {
    const reached = findings.every(({ check, outcome }) => check !== 'list' || outcome === 'passed')
    const why = reached ? skipped?.(site.config) : 'the store does not answer as it should'
    if (why !== undefined) {
      findings.push({ ...nothing, check: name, outcome: 'skipped', sentence: why })
      continue
    }
    const startMillis = performance.now()
    const millis = (): number => Math.round(performance.now() - startMillis)
    try {
      findings.push({ ...nothing, check: name, outcome: 'passed', sentence: await run(site), millis: millis() })
    } catch (error) {
      site.signal.throwIfAborted()
      findings.push(found(name, error, remedy(site.config.kind), millis()))
    }
  }
}

const nothing = { remedy: undefined, failureCode: undefined, millis: 0 }

function found(check: string, error: unknown, remedy: string, millis: number): StoreFinding {
  if (!(error instanceof Failure)) throw error
  return { check, outcome: 'failed', sentence: error.message, remedy, failureCode: error.code, millis }
}

/** By the names that were used, not by a listing, which may be what does not work. */
async function cleanUp(
  store: ObjectStore,
  keys: ReadonlySet<string>,
  config: StoreConfig,
  at: { readonly id: string; readonly isNew: boolean },
): Promise<StoreFinding> {
  const signal = AbortSignal.timeout(cleanUpMillisMax)
  let failure: unknown
  for (const key of keys) await store.remove(key, signal).catch((error: unknown) => (failure ??= error))
  if (config.kind === 'directory' && failure === undefined) {
    await fs.rm(path.join(config.directory, 'objects', at.id), { recursive: true, force: true })
    if (at.isNew) await removeEmpty(config.directory)
  }
  if (failure === undefined)
    return { ...nothing, check: 'clean-up', outcome: 'passed', sentence: 'nothing is left behind that can be seen' }
  const remedy = `remove what begins with "${at.id}/" by hand; then as for "remove"`
  return found('clean-up', failure instanceof Failure ? failure : unfit(String(failure)), remedy, 0)
}

/** A directory that this check has made. */
async function removeEmpty(directory: string): Promise<void> {
  for (const each of [path.join(directory, 'objects'), path.join(directory, 'staging'), directory])
    await fs.rmdir(each).catch(() => undefined)
}

async function exists(file: string): Promise<boolean> {
  return await fs.stat(file).then(
    () => true,
    () => false,
  )
}

async function race(site: Site, name: string): Promise<void> {
  const bodies = Array.from({ length: racersMax }, (_, racer) => Buffer.alloc(2_000 + racer, racer + 1))
  const outcomes = await Promise.allSettled(
    bodies.map((body, racer) => site.create(racer % 2 === 0 ? site.store : site.other, name, body)),
  )
  const others = outcomes.flatMap(outcome => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []))
  const unexpected = others.find(reason => !failedWith(reason, 'ALREADY_EXISTS'))
  if (unexpected !== undefined) throw unexpected
  const winners = outcomes.flatMap((outcome, racer) => (outcome.status === 'fulfilled' ? [racer] : []))
  if (winners.length !== 1)
    throw unfit(`${winners.length} of ${racersMax} that created one object at once were told that they did`)
  await requireBody(site, name, bodies[winners[0] ?? 0] ?? Buffer.alloc(0))
}

/** More than two pages, with names whose order tells bytes from words, created in another order. */
async function checkListing(site: Site): Promise<string> {
  const { other, key, signal } = site
  const names = ['A', 'a-', 'a.b', 'a/B', 'a/b-/z', 'a/b/c', 'a/bb', 'a0', 'a=', 'a_', 'b/1', 'b/10', 'b/2']
  const wanted = names.map(name => key(`list/${name}`)).sort()
  for (const name of names.toReversed()) {
    await site.create(site.store, `list/${name}`, Buffer.from(name))
    const seen = await keysOf(other.list(key(`list/${name}`), undefined, signal))
    if (!seen.includes(key(`list/${name}`))) throw unfit('an object that was just created is not listed')
  }
  const all = await keysOf(other.list(key('list/'), undefined, signal))
  requireSame(all, wanted, 'a listing')
  const middle = wanted[6] ?? ''
  requireSame(await keysOf(other.list(key('list/'), middle, signal)), wanted.slice(7), 'a listing after a key')
  const below = wanted.filter(each => each.startsWith(key('list/a/b')))
  requireSame(await keysOf(other.list(key('list/a/b'), undefined, signal)), below, 'a listing of a prefix')
  return 'listings are complete, in byte order, over several pages, and show what was just created'
}

function requireSame(found: readonly string[], wanted: readonly string[], what: string): void {
  const missing = wanted.filter(each => !found.includes(each))
  if (missing.length > 0) throw unfit(`${what} lacks ${missing.length} of ${wanted.length} objects that exist`)
  if (found.length !== wanted.length) throw unfit(`${what} has ${found.length - wanted.length} keys too many`)
  if (found.some((each, index) => each !== wanted[index])) throw unfit(`${what} is not in the order of bytes`)
}

async function requireBody({ other, key, signal }: Site, name: string, body: Uint8Array): Promise<void> {
  const found = await other.readRange(key(name), { startBytes: 0, endBytes: body.length }, signal)
  if (!Buffer.from(found).equals(body)) throw unfit('an object does not hold what it was created with')
}

async function requireFailure(
  { other, key, signal }: Site,
  wanted: { readonly key: string; readonly endBytes: number },
  code: 'NOT_FOUND' | 'OBJECT_CORRUPT',
  what: string,
): Promise<void> {
  const range = { startBytes: 0, endBytes: wanted.endBytes }
  const outcome = await other.readRange(key(wanted.key), range, signal).then(
    () => undefined,
    (error: unknown) => error,
  )
  if (outcome === undefined) throw unfit(`${what} could be read`)
  if (!failedWith(outcome, code)) throw outcome
}

async function keysOf(listing: AsyncIterable<ListedObject>): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of listing) keys.push(key)
  return keys
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function unfit(sentence: string): Failure {
  return new Failure('CONFIG_INVALID', sentence)
}

function permission(needed: string): Check['remedy'] {
  return kind =>
    kind === 's3'
      ? `check bucket, region, endpoint and credentials, and allow the role ${needed}`
      : 'check that the directory is there, mounted, has room, and belongs to the user of the daemon'
}

function conditional(kind: StoreConfig['kind']): string {
  return kind === 's3'
    ? 'use a server that honours If-None-Match: * on PutObject for racing writers, too (AWS S3, recent MinIO, Ceph RGW): two appliances could both own a VPG on this one'
    : 'use a file system with hard links that are made for one of many at once (not every network file system): two appliances could both own a VPG on this one'
}
