import { z } from 'zod'
import { cacheSizeBytesDefault, drillCheckMillisDefault, drillCheckMillisMax } from '../base/limits.ts'
import { deltaShareMax, foldSizeBytesMax, foldSizeBytesMinDefault, logFileSizeBytes } from '../base/limits.ts'
import { scrubBytesPerSecondDefault, scrubIntervalMillisDefault } from '../base/limits.ts'
import {
  putsAtOnceMaxDefault,
  putsPerSecondMaxDefault,
  segmentAgeMillisMax,
  segmentSizeBytesTarget,
} from '../base/limits.ts'
import { GiB, KiB, MiB, TiB } from '../base/units.ts'
import { described, file, host, isLoopback, millis, name, port, price, related, share, sizeBytes } from './fields.ts'

const hourMillis = 3_600_000

/** S3 Standard in us-east-1. */
export const pricesDefault = {
  currency: 'USD',
  storagePerGiBMonth: 0.023,
  putsPerThousand: 0.005,
  getsPerThousand: 0.0004,
} as const

export const tlsSchema = z.strictObject({
  certificateFile: described(file(), 'Own certificate, PEM.', '/etc/vra/tls/own.crt'),
  privateKeyFile: described(file(), 'Its private key, PEM; readable by the daemon only.', '/etc/vra/tls/own.key'),
  authorityFile: described(file(), 'The authority that peers must be certified by, PEM.', '/etc/vra/tls/authority.crt'),
})

export const logSchema = z
  .strictObject({
    level: described(
      z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']),
      'The least serious lines to write.',
    ).default('info'),
    format: described(z.enum(['pretty', 'json']), 'pretty for people, json (one object a line) for machines.').default(
      'pretty',
    ),
  })
  .prefault({})

/** The HTTP API of a daemon. It has no authentication of its own. */
export function controlSchema(
  portDefault: number,
  what = { serves: 'the HTTP API, the status page and /metrics listen', risk: "may export disks as the daemon's user" },
) {
  return related(
    z.strictObject({
      host: described(host(), `Where ${what.serves}.`).default('127.0.0.1'),
      port: described(port(), 'Its port.').default(portDefault),
      allowBeyondLoopback: described(
        z.boolean(),
        `The API has no authentication: whoever reaches it ${what.risk}.`,
      ).default(false),
    }),
    {
      key: 'host',
      message:
        'is beyond loopback, and the API has no authentication; put something in front of it, or set allowBeyondLoopback: true',
      holds: control => control.allowBeyondLoopback || isLoopback(control.host),
    },
  ).prefault({})
}

const kmsKey = (what: string) =>
  described(
    z.string().regex(/^[\w:/+=,.@-]{1,2048}$/, 'must be the id, ARN or alias of a KMS key'),
    what,
    'arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab',
  )

const url = () => z.url({ protocol: /^https?$/, error: 'must be an http or https URL' })

/** Objects are encrypted on this host, before the store sees them. */
const clientEncryption = () =>
  described(
    z.discriminatedUnion('key', [
      z.strictObject({
        key: described(z.literal('file'), 'file or kms: what wraps the keys that encrypt.'),
        keyFile: described(
          file(),
          '32 random bytes, as they are or as hexadecimal digits or Base64. Keep a copy elsewhere: without it nothing in the store can be read.',
          '/etc/vra/store.key',
        ),
      }),
      z.strictObject({
        key: described(
          z.literal('kms'),
          'A symmetric key of AWS KMS; the role needs kms:GenerateDataKey and kms:Decrypt on it.',
        ),
        kmsKeyId: kmsKey('Which. Without it nothing in the store can be read.'),
        region: described(
          z.string().regex(/^[a-z0-9-]{1,64}$/, 'must be a region, such as eu-central-1'),
          'Its region.',
        ).default('us-east-1'),
        endpoint: described(
          url(),
          "For other servers of KMS's protocol; AWS's own without it.",
          'https://kms.example.org',
        ).optional(),
      }),
    ]),
    'Encrypts objects here, AES-256-GCM with a key for each VPG, before they leave this host. For a store that is empty yet.',
  ).optional()

const directoryStoreSchema = z.strictObject({
  kind: described(z.literal('directory'), 'directory or s3.'),
  directory: described(
    file(),
    'Where its objects are; <dataDirectory>/store by default.',
    './vra-data/store',
  ).optional(),
  clientEncryption: clientEncryption(),
})

const s3StoreSchema = z.strictObject({
  kind: described(
    z.literal('s3'),
    "Credentials come from the AWS SDK's default chain (instance role, environment, profile).",
  ),
  bucket: described(
    z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/, 'must be the name of a bucket'),
    'An existing bucket. Conditional writes (If-None-Match: *) must work.',
    'my-recovery-bucket',
  ),
  prefix: described(
    z
      .string()
      .regex(
        /^([A-Za-z0-9._=-]+\/)*([A-Za-z0-9._=-]+\/?)?$/,
        'must be path segments of letters, digits, ".", "_", "=", "-"',
      ),
    'All keys start with this.',
    'vra/',
  ).default(''),
  region: described(
    z.string().regex(/^[a-z0-9-]{1,64}$/, 'must be a region, such as eu-central-1'),
    "The bucket's region.",
  ).default('us-east-1'),
  endpoint: described(
    z.url({ protocol: /^https?$/, error: 'must be an http or https URL' }),
    "For S3-compatible servers; AWS's own without it.",
    'https://s3.example.org',
  ).optional(),
  forcePathStyle: described(
    z.boolean(),
    'Bucket in the path, not in the host name: for S3-compatible servers.',
  ).default(false),
  checksums: described(
    z.enum(['when-supported', 'when-required']),
    'when-required for S3-compatible servers that refuse the newer checksum headers.',
  ).default('when-supported'),
  requestTimeoutMillis: described(
    millis({ min: 1_000, max: 600_000 }),
    'A request on whose connection nothing moves for this long is tried again.',
  ).default(30_000),
  serverSideEncryption: described(
    z.enum(['bucket-default', 's3', 'kms']),
    'Asked for with every object: s3 (SSE-S3) or kms (SSE-KMS, with a bucket key); bucket-default leaves it to the bucket.',
  ).default('bucket-default'),
  kmsKeyId: described(
    z.string().regex(/^[\w:/+=,.@-]{1,2048}$/, 'must be the id, ARN or alias of a KMS key'),
    "With kms: the key; the account's own for S3 without it. The role needs kms:GenerateDataKey and kms:Decrypt on it.",
    'arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab',
  ).optional(),
  objectLock: described(
    z.enum(['governance', 'compliance']),
    'Locks every object for the length of the history and some days, by S3 Object Lock in this mode, and renews that while it is needed. The bucket must have it enabled.',
    'compliance',
  ).optional(),
  clientEncryption: clientEncryption(),
})

const awsEndpoint = (of: string) =>
  described(
    z.url({ protocol: /^https?$/, error: 'must be an http or https URL' }),
    `Of ${of}; AWS's own without it.`,
    'https://vpce-0123.ebs.eu-central-1.vpce.amazonaws.com',
  ).optional()

const tagKey = (of: string, fallback: string) =>
  described(
    z.string().regex(/^(?!aws:)[\w .:/=+@-]{1,127}$/, 'must be the key of a tag'),
    `Key of the owner's tag on ${of}.`,
  ).default(fallback)

const awsSchema = z.strictObject({
  region: described(
    z.string().regex(/^[a-z0-9-]{1,64}$/, 'must be a region, such as eu-central-1'),
    'Where machines are recovered; the bucket should be there, too.',
    'eu-central-1',
  ),
  siteId: described(
    z.string().regex(/^[\w .:/=+@-]{1,255}$/, 'must be the value of a tag'),
    "The owner's site id: the value of the owner's tags, by which `vra aws policy` limits what the VRA may touch.",
    'site-1',
  ),
  endpoints: z
    .strictObject({
      ebs: awsEndpoint('the EBS direct APIs'),
      ec2: awsEndpoint('EC2'),
      quotas: awsEndpoint('Service Quotas, which is not asked where only others are set'),
    })
    .prefault({}),
  tagKeys: z
    .strictObject({
      ec2: tagKey('instances, their interfaces, and images', 'ZERTO_EC2_RESOURCE'),
      ebs: tagKey('volumes and snapshots', 'ZERTO_EBS_RESOURCE'),
      vpc: tagKey('security groups', 'ZERTO_VPC_RESOURCE'),
      s3: tagKey('the bucket', 'ZERTO_S3_RESOURCE'),
    })
    .prefault({}),
  putsPerSecondMax: described(
    z.int('must be a whole number').min(1, 'must be at least 1').max(10_000, 'must be at most 10000'),
    "Blocks of 512 KiB put a second at most, over all volumes; fewer where the account's quota is known to be lower.",
  ).default(putsPerSecondMaxDefault),
  putsAtOnceMax: described(
    z.int('must be a whole number').min(1, 'must be at least 1').max(512, 'must be at most 512'),
    'Puts under way at once; each has a connection.',
  ).default(putsAtOnceMaxDefault),
  putThreads: described(
    z.int('must be a whole number').min(1, 'must be at least 1').max(16, 'must be at most 16'),
    'Threads that hash and put, each of which takes a core for some 900 blocks a second.',
  ).default(2),
  requestTimeoutMillis: described(
    millis({ min: 1_000, max: 600_000 }),
    'A request to AWS without an answer for this long is tried again.',
  ).default(20_000),
})

export const vraSchema = z.strictObject({
  dataDirectory: described(
    file(),
    'Journal, index and (by default) the object store. Wants a disk of its own with a good fdatasync.',
  ).default('./vra-data'),
  listen: related(
    z.strictObject({
      host: described(host(), 'Where agents connect. Beyond loopback this needs tls.').default('127.0.0.1'),
      port: described(port(), 'Its port.').default(7420),
      tls: described(
        tlsSchema,
        'TLS 1.3 with client certificates; an agent is who its certificate says. See `vra certs`.',
      ).optional(),
      allowPlaintextBeyondLoopback: described(
        z.boolean(),
        'Plain TCP from other hosts, where anybody can then pose as any agent.',
      ).default(false),
    }),
    {
      key: 'host',
      message: 'is beyond loopback without tls; configure listen.tls, or set allowPlaintextBeyondLoopback: true',
      holds: listen => listen.tls !== undefined || listen.allowPlaintextBeyondLoopback || isLoopback(listen.host),
    },
  ).prefault({}),
  control: controlSchema(7421),
  store: described(
    z.discriminatedUnion('kind', [directoryStoreSchema, s3StoreSchema]),
    'Where segments and the mirror live: the truth, once they are there.',
  ).prefault({ kind: 'directory' }),
  journal: z
    .strictObject({
      logSizeBytesMax: described(
        sizeBytes({ min: 4 * logFileSizeBytes, max: 16 * TiB }),
        'The commit log at most; above it acknowledgements stop until aging has made room.',
      ).default(8 * GiB),
    })
    .prefault({}),
  aging: z
    .strictObject({
      segmentSizeBytesTarget: described(
        sizeBytes({ min: 64 * KiB, max: 512 * MiB }),
        'A segment is sealed and put into the store at this size...',
      ).default(segmentSizeBytesTarget),
      segmentAgeMillisMax: described(
        millis({ min: 200, max: hourMillis }),
        '...or this long after its first write.',
      ).default(segmentAgeMillisMax),
      foldSizeBytesMin: described(
        sizeBytes({ min: 256 * KiB, max: foldSizeBytesMax }),
        'Segments are folded into a delta when at least this much waits (live bytes / 128, where that is more).',
      ).default(foldSizeBytesMinDefault),
      deltaShareMax: described(
        share({ min: 0.05, max: 4 }),
        'Base regions are rewritten while deltas hold more than this share of the live bytes.',
      ).default(deltaShareMax),
      garbageGraceMillis: described(
        millis({ min: 0, max: 365 * 24 * hourMillis }),
        'Objects that nothing needs any more are deleted after this.',
      ).default(24 * hourMillis),
      scrubBytesPerSecond: described(
        sizeBytes({ min: 0, max: 16 * GiB }),
        'What is read of the store in a second to verify in the background what is there; 0: nothing is.',
      ).default(scrubBytesPerSecondDefault),
      scrubIntervalMillis: described(
        millis({ min: 60_000, max: 365 * 24 * hourMillis }),
        'When all of a VPG was verified, it is again after this.',
      ).default(scrubIntervalMillisDefault),
      logSizeBytesPressure: described(
        sizeBytes({ min: 2 * logFileSizeBytes, max: 16 * TiB }),
        'Above this much log, segments are sealed early to free its files.',
      ).default(2 * GiB),
    })
    .prefault({}),
  live: related(
    z.strictObject({
      host: described(host(), 'Where disks of recoveries and mounts are served over NBD, when there are any.').default(
        '127.0.0.1',
      ),
      port: described(port(), 'Its port.').default(10810),
      allowBeyondLoopback: described(
        z.boolean(),
        'There is no authentication: whoever reaches it reads and writes recovered disks.',
      ).default(false),
      scratchDirectory: described(
        file(),
        'What is written to them, of recoveries that name no directory; <dataDirectory>/live by default. Spools, which only make reads faster, lie in <dataDirectory>/scratch.',
        './vra-data/live',
      ).optional(),
      scratchSizeBytesMax: described(
        sizeBytes({ min: MiB, max: 16 * TiB }),
        'What is written to the disks of one recovery may take so much, unless that says otherwise.',
      ).default(64 * GiB),
      cacheSizeBytes: described(
        sizeBytes({ min: 16 * MiB, max: 64 * GiB }),
        'Memory of each recovery and mount for what it has read.',
      ).default(128 * MiB),
    }),
    {
      key: 'host',
      message: 'is beyond loopback, and there is no authentication; set allowBeyondLoopback: true if that is meant',
      holds: live => live.allowBeyondLoopback || isLoopback(live.host),
    },
  ).prefault({}),
  cache: z
    .strictObject({
      sizeBytesMax: described(
        sizeBytes({ min: 0, max: 16 * TiB }),
        'Of what images read from a bucket so much is kept in the data directory, to be read again; 0: nothing.',
      ).default(cacheSizeBytesDefault),
    })
    .prefault({}),
  prices: z
    .strictObject({
      currency: described(
        z.string().regex(/^[A-Z]{3}$/, 'must be three capital letters, such as EUR'),
        'What the prices are in.',
      ).default(pricesDefault.currency),
      storagePerGiBMonth: described(
        price(),
        'One GiB in the store for a month; the defaults are those of S3 Standard in us-east-1.',
      ).default(pricesDefault.storagePerGiBMonth),
      putsPerThousand: described(price(), 'A thousand PUT or LIST requests.').default(pricesDefault.putsPerThousand),
      getsPerThousand: described(price(), 'A thousand GET requests.').default(pricesDefault.getsPerThousand),
    })
    .prefault({}),
  aws: described(
    awsSchema,
    "Recovery to AWS. Credentials come from the AWS SDK's default chain (instance role, environment, profile).",
  ).optional(),
  drillChecks: described(
    z
      .array(
        z.strictObject({
          name: described(name(), 'What `vra drill` calls it.', 'fsck'),
          command: described(
            z.string().min(1, 'must be a command').max(4096, 'must have at most 4096 characters'),
            "For /bin/sh, as the daemon's user. Where things are is in its environment: VRA_FILE_root, VRA_NBD_root, VRA_EC2_INSTANCE_app1.",
            '\'e2fsck -p "$VRA_FILE_root"; e2fsck -fn "$VRA_FILE_root"\'',
          ),
          timeoutMillis: described(
            millis({ min: 1, max: drillCheckMillisMax }),
            'When it takes longer it is ended, and the drill has not passed.',
          ).default(drillCheckMillisDefault),
        }),
      )
      .max(100, 'must be at most 100')
      .superRefine((checks, context) => {
        const names = checks.map(check => check.name)
        const twice = names.find((name, index) => names.indexOf(name) < index)
        if (twice !== undefined) context.addIssue(`names "${twice}" twice`)
      }),
    'Commands that look at what a drill has recovered: it has passed where they end with 0. The API names them, and cannot say what they are.',
  ).optional(),
  log: logSchema,
})

export type TlsConfig = z.output<typeof tlsSchema>

/** Paths are absolute; sizes in bytes; every relation between the values holds. */
export interface VraConfig extends Omit<z.output<typeof vraSchema>, 'store'> {
  readonly store: VraStoreConfig
  /** Of the command line alone: a file would say it at every start. VPGs of other appliances are taken over. */
  readonly adopt?: boolean
}

/** Fits StoreConfig of the store folder. */
export type VraStoreConfig = (
  | { readonly kind: 'directory'; readonly directory: string }
  | (Omit<z.output<typeof s3StoreSchema>, 'endpoint' | 'kmsKeyId' | 'clientEncryption'> & {
      readonly endpoint: string | undefined
      readonly kmsKeyId: string | undefined
    })
) & { readonly clientEncryption?: VraEncryptionConfig | undefined }

export type VraEncryptionConfig =
  | { readonly key: 'file'; readonly keyFile: string }
  | { readonly key: 'kms'; readonly kmsKeyId: string; readonly region: string; readonly endpoint: string | undefined }
