import { z } from 'zod'
import { reactionTo, type FailureCode } from '../base/failure.ts'
import {
  checkpointIntervalMillisDefault,
  checkpointIntervalMillisMax,
  checkpointIntervalMillisMin,
  commitPolicyMillisDefault,
  commitPolicyMillisMax,
  densitiesMax,
  drillCheckMillisDefault,
  drillCheckMillisMax,
  drillIntervalMillisMax,
  drillIntervalMillisMin,
  drillOutputSizeBytesMax,
  historyMillisMax,
  historyMillisMin,
  journalLimitSizeBytesMin,
  nameSizeCharactersMax,
  pageSizeMax,
  standbyIntervalMillisMax,
  standbyIntervalMillisMin,
  streamsPerVpgMax,
  tagKeepMillisMax,
  volumeSizeBytesMax,
  volumesPerVpgMax,
} from '../base/limits.ts'
import { sectorSizeBytes } from '../base/units.ts'
import { kmsKeyArnPattern } from '../timeline/definition.ts'
import { faultOf } from '../timeline/densities.ts'
import { isTagName } from './reference.ts'
import type * as service from './service.ts'

// The JSON of the API. Requests are checked against these; the OpenAPI document is made of them. That the answers' schemas say what the seam's
// types say is checked when this file is compiled, see `answers`.

const count = z.int().nonnegative()
const micros = count.meta({ description: 'Microseconds since 1970.' })
const list = <T extends z.ZodType>(entry: T) => z.array(entry).readonly()
const name = z
  .string()
  .max(nameSizeCharactersMax)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'must be letters, digits, ".", "_", "-", beginning with a letter or digit')
const reference = z.string().min(1).max(128).meta({
  description: '"latest", an id ("3.1204"), a tag, or a time: ISO 8601 (UTC where no zone is given) or "10m ago".',
})
const tag = z.string().refine(isTagName, 'must begin with a letter, then letters, digits, ".", "_", "-"; not "latest"')

const historyMillis = z
  .int()
  .min(historyMillisMin)
  .max(historyMillisMax)
  .meta({ description: 'How far back every checkpoint is kept, in milliseconds; instead of `retention`.' })
const density = z.object({ everyMillis: z.int().nonnegative(), forMillis: z.int().positive() })
const retention = z
  .array(z.strictObject(density.shape))
  .min(1)
  .max(densitiesMax)
  .superRefine((densities, context) => {
    const fault = faultOf(densities)
    if (fault !== undefined) context.addIssue({ code: 'custom', message: fault })
  })
  .meta({
    description:
      'How densely checkpoints are kept, from young to old: up to the age `forMillis` one in `everyMillis`, 0 for every one. The first is every one.',
  })
const oneOfTheTwo = (asked: { readonly historyMillis?: unknown; readonly retention?: unknown }): boolean =>
  asked.historyMillis === undefined || asked.retention === undefined
const notBoth = 'give `historyMillis` or `retention`, not both'
const checkpointIntervalMillis = z
  .int()
  .min(checkpointIntervalMillisMin)
  .max(checkpointIntervalMillisMax)
  .meta({ description: 'Between two checkpoints, in milliseconds.' })

const journalLimit = (what: string) =>
  z
    .union([
      z.int().min(journalLimitSizeBytesMin),
      z.literal(0),
      z.string().regex(/^([1-9]|[1-9][0-9]|100)%$/, 'must be a number of bytes, or from "1%" to "100%"'),
    ])
    .meta({ description: `${what} Bytes, or a share ("20%") of the disk of a store that is a directory; 0 for none.` })
const journalWarnSizeBytes = journalLimit('What the history may take in the store before an alert says so.')
const journalLimitSizeBytes = journalLimit('What the history may take in the store before its oldest checkpoints go.')

const volumeSizeBytes = z.int().positive().max(volumeSizeBytesMax).multipleOf(sectorSizeBytes)
const syncRateBytesPerSecond = z.int().nonnegative().meta({
  description: 'What agents read of their disks for a synchronisation at most, in bytes a second; 0 for no limit.',
})

const vm = name.optional().meta({ description: "The machine that it is a disk of; its agent's where it is not said." })

const hostFile = z
  .string()
  .max(4096)
  .refine(file => file.startsWith('/') && !file.includes('\0'), "must be an absolute path on the daemon's host")

const targetKind = z.enum(['nbd', 'raw', 'aws'])
const json: z.ZodType<service.Json> = z.lazy(() =>
  z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(json), z.record(z.string(), json)]),
)

const targetSettings = json
  .default({})
  .meta({ description: "The target's own: of `raw` {directory}, on the daemon's host." })

const kmsKeyArn = z
  .string()
  .regex(kmsKeyArnPattern, 'must be the ARN of a key of KMS: "arn:aws:kms:REGION:ACCOUNT:key/ID", not an alias')

const snapshotKeys = z.strictObject({
  all: kmsKeyArn.optional(),
  volumes: z.record(z.string(), kmsKeyArn).readonly(),
})

const drillSchedule = z
  .strictObject({
    everyMillis: z.int().min(drillIntervalMillisMin).max(drillIntervalMillisMax).optional(),
    minuteOfDay: z.int().min(0).max(1439).optional().meta({ description: 'Of each day, in UTC.' }),
    check: name.meta({ description: "One of `drillChecks` of the daemon's configuration." }),
    target: targetKind.default('nbd'),
    settings: targetSettings,
  })
  .refine(
    ({ everyMillis, minuteOfDay }) => (everyMillis === undefined) !== (minuteOfDay === undefined),
    'give everyMillis or minuteOfDay',
  )

export const requests = {
  CreateVpgRequest: z
    .strictObject({
      name,
      volumes: z
        .array(
          z.strictObject({
            name,
            sizeBytes: volumeSizeBytes,
            agent: name.optional().meta({ description: 'Who writes it; need not be said where there is one agent.' }),
            vm,
          }),
        )
        .min(1)
        .max(volumesPerVpgMax)
        .refine(volumes => new Set(volumes.map(volume => volume.name)).size === volumes.length, 'names a volume twice'),
      agents: z
        .array(name)
        .min(1)
        .max(streamsPerVpgMax)
        .refine(agents => new Set(agents).size === agents.length, 'names an agent twice'),
      historyMillis: historyMillis.optional(),
      retention: retention.optional(),
      checkpointIntervalMillis: checkpointIntervalMillis.default(checkpointIntervalMillisDefault),
      journalWarnSizeBytes: journalWarnSizeBytes.optional(),
      journalLimitSizeBytes: journalLimitSizeBytes.optional(),
    })
    .refine(oneOfTheTwo, notBoth),
  ChangeVpgRequest: z
    .strictObject({
      historyMillis: historyMillis.optional(),
      retention: retention.optional(),
      checkpointIntervalMillis: checkpointIntervalMillis.optional(),
      syncRateBytesPerSecond: syncRateBytesPerSecond.optional(),
      journalWarnSizeBytes: journalWarnSizeBytes.optional(),
      journalLimitSizeBytes: journalLimitSizeBytes.optional(),
      syncMayPassLimit: z.boolean().optional().meta({
        description:
          "False: a synchronisation that the journal's limit has no room for waits. True: it goes on over the limit.",
      }),
      paused: z.boolean().optional().meta({ description: 'Agents send nothing; they note what is written meanwhile.' }),
      drillSchedule: drillSchedule.nullable().optional().meta({ description: 'When it is drilled; null: no more.' }),
      standbyIntervalMillis: z
        .union([z.int().min(standbyIntervalMillisMin).max(standbyIntervalMillisMax), z.literal(0)])
        .optional()
        .meta({
          description:
            'Snapshots of all volumes are kept in AWS, and brought up to a newer checkpoint as often, so that a recovery there puts only what has changed since; 0 for none.',
        }),
      snapshotKeys: snapshotKeys.optional().meta({
        description:
          'ARNs of the keys of KMS with which snapshots of its volumes in AWS are encrypted, in place of those that were named before; a standby chain of another key begins anew when it is advanced.',
      }),
    })
    .refine(change => Object.keys(change).length > 0, 'changes nothing')
    .refine(oneOfTheTwo, notBoth),
  AddVolumeRequest: z.strictObject({
    name,
    sizeBytes: volumeSizeBytes,
    agent: name.optional().meta({ description: 'Who writes it; a new name is a new agent.' }),
    vm,
  }),
  GrowVolumeRequest: z.strictObject({ sizeBytes: volumeSizeBytes }),
  SyncVpgRequest: z.strictObject({
    kind: z.enum(['full', 'delta']).meta({ description: 'Every block is sent, or those whose hashes differ.' }),
    volumes: z.array(name).min(1).max(volumesPerVpgMax).optional(),
  }),
  TagRequest: z.strictObject({
    tag,
    checkpoint: reference.optional(),
    keepMillis: z.int().positive().max(tagKeepMillisMax).optional().meta({
      description:
        'How long it is kept from now on, of the time that the VPG is protected; missing: until it is untagged.',
    }),
  }),
  ExportRequest: z.strictObject({
    vpg: name,
    volume: name,
    checkpoint: reference,
    file: hostFile,
    overwrite: z.boolean().default(false),
  }),
  MountRequest: z.strictObject({ vpg: name, checkpoint: reference, volume: name.optional() }),
  RecoveryRequest: z.strictObject({
    vpg: name,
    kind: z.enum(['test', 'failover', 'move', 'clone']),
    checkpoint: reference.default('latest'),
    vms: z.array(name).max(volumesPerVpgMax).optional().meta({ description: 'Machines; all where neither is named.' }),
    volumes: z
      .array(name)
      .max(volumesPerVpgMax)
      .optional()
      .meta({ description: 'Volumes; all where neither is named.' }),
    target: targetKind,
    settings: targetSettings,
    commitPolicy: z
      .strictObject({
        kind: z.enum(['none', 'commit', 'rollback']),
        afterMillis: z.int().positive().max(commitPolicyMillisMax).default(commitPolicyMillisDefault),
      })
      .default({ kind: 'none', afterMillis: commitPolicyMillisDefault })
      .meta({ description: 'What happens so long after it is ready when nobody has said anything.' }),
  }),
  DrillRequest: z.strictObject({
    vpg: name,
    checkpoint: reference.default('latest'),
    target: targetKind.default('nbd'),
    settings: targetSettings,
    check: z
      .union([
        z.strictObject({ configured: name }),
        z.strictObject({
          command: z.string().min(1).max(256),
          timeoutMillis: z.int().positive().max(drillCheckMillisMax).default(drillCheckMillisDefault),
        }),
      ])
      .meta({
        description:
          'The daemon runs a `configured` one. A `command` is what the client says that it runs itself; what came of it is told within the time-out.',
      }),
  }),
  DrillReport: z.strictObject({
    outcome: z.enum(['passed', 'failed', 'timed-out']),
    exitStatus: z.int().nonnegative().max(255).optional(),
    output: z.string().max(drillOutputSizeBytesMax).optional(),
    checkMillis: z.number().nonnegative().optional(),
  }),
  PreseedRequest: z.strictObject({ vpg: name, volume: name, file: hostFile }),
  VerifyRequest: z.strictObject({ what: z.enum(['journal', 'mirror']), vpg: name.optional() }),
} as const

const position = z.object({ generation: count, sequence: count })
const failure = z
  .object({
    code: z.enum([...(Object.keys(reactionTo) as [FailureCode]), 'INTERNAL_ERROR']),
    sentence: z.string().meta({ description: 'For a person: what happened, and what to do about it.' }),
    details: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]).optional()).readonly(),
  })
  .meta({ description: 'Why it was refused, or failed.' })
const failureCode = z.enum(Object.keys(reactionTo) as [FailureCode])

const jobState = z.enum(['running', 'done', 'failed', 'cancelled'])

const checkpointFacts = z.object({
  checkpoint: z.string(),
  timestampMicros: micros,
  tags: list(z.string()),
  recoverable: z.boolean(),
  volumes: list(z.object({ name: z.string(), sizeBytes: count, included: z.boolean() })),
})

const requestCount = z.object({ count, sizeBytes: count })
const storeRequests = z
  .object({
    sinceMicros: micros,
    puts: z.object({ segments: requestCount, deltas: requestCount, base: requestCount, manifests: requestCount }),
    gets: requestCount,
    listCount: count,
    rawSizeBytes: count.meta({ description: 'Guest bytes in the segments put, uncompressed.' }),
  })
  .meta({ description: 'What was asked of the object store, every attempt of it.' })
const formSize = z.object({
  form: z.enum(['segments', 'deltas', 'base', 'superseded', 'manifests']),
  objectCount: count,
  sizeBytes: count,
  indexSizeBytes: count.meta({ description: 'Of these bytes, those that say where the others are.' }),
})

const mirror = z.object({
  isUnread: z.boolean().meta({
    description:
      'True while the history was not read since the start: sums of it are 0, and its oldest checkpoint is not told.',
  }),
  segmentCount: count,
  segmentSizeBytes: count,
  deltaCount: count,
  deltaSizeBytes: count,
  regionCount: count,
  baseSizeBytes: count,
  garbageCount: count,
  unsealedSizeBytes: count,
  unfoldedRawSizeBytes: count,
  historyMillis: count.meta({ description: 'How far back checkpoints go that are in the store.' }),
  historySizeBytes: count.meta({ description: 'Stored bytes of the history beyond the newest mirror.' }),
  agedEarlySinceMicros: micros.optional().meta({ description: "While the journal's limit cuts the history short." }),
  forms: list(formSize).meta({ description: 'What it takes in the store, without garbage.' }),
  requests: storeRequests,
  scrub: z
    .object({
      verifiedAtMicros: micros.optional().meta({ description: 'When all of it was verified last.' }),
      damagedCount: count.meta({ description: 'Objects that are damaged, as far as is known.' }),
      damaged: list(
        z.object({
          key: z.string(),
          checkpointCount: count,
          firstOrdinal: count.optional(),
          lastOrdinal: count.optional(),
          laterOnes: z.boolean(),
        }),
      ).meta({ description: 'The first of them that are still needed, and the checkpoints that read them.' }),
      damagedCheckpointCount: count.meta({ description: 'Checkpoints that cannot be read whole for that.' }),
      passSinceMicros: micros.optional(),
      passCheckedCount: count,
      passCheckedSizeBytes: count,
      checkedSizeBytes: count,
    })
    .optional()
    .meta({ description: "How far the verification of the VPG's objects in the background is." }),
  locks: z
    .object({
      lockedUntilMicros: micros
        .optional()
        .meta({ description: 'All that the VPG needs cannot be destroyed before, whoever tries.' }),
      failure: z.string().optional().meta({ description: 'Why locks cannot be renewed.' }),
    })
    .optional()
    .meta({ description: 'Where the store locks objects (store.objectLock).' }),
  storeFailure: z.string().optional(),
})

const agentFacts = z.object({
  agent: z.string(),
  stream: count,
  state: z.enum(['connected', 'disconnected', 'needs-sync']),
  reason: z.string().optional(),
  lacksVolumes: z.boolean(),
  address: z.string().optional(),
  software: z.string().optional(),
  connectedAtMicros: micros.optional(),
  disconnectedAtMicros: micros.optional(),
  peerAddress: z.string().optional(),
  queuedBytes: count,
  lagMillis: z.number().optional().meta({ description: 'Age of the oldest write that may be missing here.' }),
  backlogEtaMillis: z.number().optional(),
  durable: position,
  offloaded: position,
})

const refusal = z.object({
  vpg: z.string().optional(),
  agent: z.string().optional(),
  address: z.string(),
  code: failureCode,
  sentence: z.string(),
  count,
  firstTimestampMicros: micros,
  lastTimestampMicros: micros,
})

const volumeFacts = z.object({
  number: count,
  name: z.string(),
  sizeBytes: count,
  agent: z.string(),
  vm: z.string().meta({ description: 'The machine that it is a disk of.' }),
  dirtyBytes: count,
  lagMillis: z.number().optional(),
  backlogBytes: count,
  backlogEtaMillis: z.number().optional(),
  sync: z
    .object({
      kind: z.enum(['initial', 'full', 'delta', 'bitmap']),
      reason: z.string(),
      heldBecause: z.string().optional(),
      sinceMicros: micros,
      totalBytes: count,
      doneBytes: count,
      sentBytes: count,
      rateBytesPerSecond: z.number(),
      etaMillis: z.number().optional(),
    })
    .optional(),
  preseed: z
    .object({ state: z.enum(['under-way', 'ended']), file: z.string(), doneBytes: count })
    .optional()
    .meta({ description: 'The image that was handed over for its mirror.' }),
})

const commitPolicy = z.object({ kind: z.enum(['none', 'commit', 'rollback']), afterMillis: count })
const recoveryKind = z.enum(['test', 'failover', 'move', 'clone'])
const recoveryFacts = z.object({
  id: z.string(),
  vpg: z.string(),
  kind: recoveryKind,
  state: z.enum(['draining', 'preparing', 'ready', 'committing', 'committed', 'removing', 'removed']),
  target: targetKind,
  settings: json,
  checkpoint: z.string().optional(),
  checkpointTimestampMicros: micros.optional(),
  vms: list(
    z.object({
      name: z.string(),
      volumes: list(
        z.object({
          name: z.string(),
          sizeBytes: count,
          doneBytes: count.optional(),
          totalBytes: count.optional(),
          etaMillis: z.number().optional(),
        }),
      ),
    }),
  ),
  things: list(z.object({ vm: z.string(), volume: z.string().optional(), kind: z.string(), place: z.string() })).meta({
    description: 'Where what was recovered can be had.',
  }),
  doneBytes: count,
  totalBytes: count,
  etaMillis: z.number().optional(),
  commitPolicy,
  policyAtMicros: micros.optional().meta({ description: 'When the commit policy takes effect.' }),
  isPolicyPutOff: z.boolean().optional().meta({
    description: 'The VRA was not running when its time came, or soon after: it takes effect later than was asked for.',
  }),
  createdAtMicros: micros,
  readyAtMicros: micros.optional(),
  endedAtMicros: micros.optional(),
  rtoMillis: z.number().optional().meta({ description: 'From the decision to when it could be used.' }),
  trouble: z.string().optional().meta({ description: 'Why it does not get on at this moment; it is tried again.' }),
  failure: failure.optional(),
  drill: z
    .object({
      by: z.enum(['schedule', 'person']),
      check: z.string(),
      checkedBy: z.enum(['daemon', 'client']),
      outcome: z
        .enum(['passed', 'failed', 'timed-out', 'not-recovered', 'gave-way', 'stopped', 'interrupted'])
        .optional(),
      exitStatus: count.optional(),
      output: z.string().optional().meta({ description: 'The end of what the check said.' }),
      checkMillis: z.number().optional(),
    })
    .optional()
    .meta({ description: 'Of a test that is a drill.' }),
})
const drillStatus = z.object({
  schedule: z
    .object({
      everyMillis: count.optional(),
      minuteOfDay: count.optional(),
      check: z.string(),
      target: targetKind,
      settings: json,
      setAtMicros: micros,
    })
    .optional(),
  nextAtMicros: micros.optional(),
  waitsBecause: z.string().optional().meta({ description: 'Why what is due is not begun; it is tried again.' }),
  last: recoveryFacts.optional(),
  proven: z
    .object({
      drill: z.string(),
      checkpoint: z.string(),
      timestampMicros: micros,
      provenAtMicros: micros,
      rtoMillis: z.number(),
    })
    .optional()
    .meta({ description: 'The newest checkpoint of which a drill has shown that it can be recovered.' }),
})
const recoveryPlan = z.object({
  vpg: z.string(),
  kind: recoveryKind,
  target: targetKind,
  settings: json,
  checkpoint: z.string(),
  checkpointTimestampMicros: micros,
  ageMillis: z.number(),
  tags: list(z.string()),
  vms: list(
    z.object({
      name: z.string(),
      volumes: list(z.object({ name: z.string(), sizeBytes: count, dataSizeBytes: count })),
    }),
  ),
  sizeBytes: count,
  copySizeBytes: count.meta({ description: 'Before the machines can be used, at most.' }),
  expectedMillis: z.number(),
  commitPolicy,
  remarks: list(z.string()),
})

const vpgStatus = z.object({
  id: z.string(),
  name: z.string(),
  incarnation: count,
  epoch: count,
  state: z.enum([
    'protected',
    'syncing',
    'paused',
    'waiting-for-agent',
    'needs-sync',
    'journal-full',
    'damaged',
    'fenced',
  ]),
  stateReason: z.string().optional(),
  createdAtMicros: micros,
  historyMillis: count,
  retention: list(density),
  checkpointIntervalMillis: count,
  syncRateBytesPerSecond: count,
  journalWarnSizeBytes: count,
  journalLimitSizeBytes: count,
  syncMayPassLimit: z.boolean(),
  snapshotKeys,
  paused: z.boolean(),
  quiescedBy: z.string().optional(),
  volumes: list(volumeFacts),
  coordinator: z.string().optional(),
  noCheckpointsBecause: z.string().optional(),
  noCheckpointsSinceMicros: micros.optional(),
  agents: list(agentFacts),
  refusals: list(refusal),
  rpoMillis: z.number().optional().meta({ description: 'Age of the newest recoverable checkpoint of all volumes.' }),
  lagMillis: z.number().optional().meta({ description: 'Age of the oldest write that may be missing here.' }),
  backlogBytes: count.meta({ description: 'Queued at agents, or to be looked at by synchronisations.' }),
  backlogEtaMillis: z.number().optional(),
  latestCheckpoint: checkpointFacts.optional(),
  oldestCheckpoint: checkpointFacts.optional(),
  checkpointCount: count,
  tags: list(
    z.object({
      checkpoint: z.string(),
      tag: z.string(),
      taggedAtMicros: micros,
      keptForMillis: count.optional().meta({ description: 'Missing: until it is untagged.' }),
    }),
  ),
  holes: list(z.object({ fromCheckpoint: z.string(), reason: z.string() })),
  recoveries: list(recoveryFacts),
  standby: z
    .object({
      intervalMillis: count,
      state: z.enum(['waiting', 'advancing', 'suspended', 'ending']),
      ageMillis: z.number().optional().meta({ description: 'Of the oldest; missing while a volume has none.' }),
      copies: list(
        z.object({
          volume: z.string(),
          place: z.string(),
          checkpoint: z.string(),
          checkpointTimestampMicros: micros,
          putSizeBytes: count.meta({ description: 'For this copy.' }),
          isWhole: z.boolean().meta({ description: 'It was not put upon the one before it.' }),
        }),
      ),
      putSizeBytes: count.meta({ description: 'Since the daemon was started.' }),
      advanceCount: count,
      failureCount: count,
      trouble: z.string().optional(),
    })
    .optional()
    .meta({ description: 'Copies that are kept where it would be recovered.' }),
  lastRecovery: z.object({ readyAtMicros: micros, rtoMillis: z.number() }).optional(),
  drills: drillStatus,
  writesPerSecond: z.number(),
  bytesPerSecond: z.number(),
  writesTotal: count,
  bytesTotal: count,
  mirror,
})

const checkpointAt = z.object({ checkpoint: z.string(), timestampMicros: micros })
const price = z.number().nonnegative()

const vpgVersions = z.object({
  vpg: z.string(),
  versioning: z.enum(['kept', 'none', 'unknown']),
  expire: z.boolean().meta({ description: 'A lifecycle rule of the bucket removes noncurrent versions.' }),
  forms: list(z.object({ form: z.enum(['commits', 'pages', 'deltas', 'base']), count, sizeBytes: count })),
  markerCount: count,
  isWhole: z.boolean().meta({ description: 'False: there are more than were counted.' }),
  costPerMonth: z.number().nonnegative(),
  currency: z.string(),
})

const vpgTimeline = z.object({
  vpg: z.string(),
  nowMicros: micros,
  retention: list(density),
  checkpointIntervalMillis: count,
  checkpointCount: count.meta({ description: 'That can be recovered.' }),
  withdrawnCount: count,
  oldest: checkpointAt.optional(),
  newest: checkpointAt.optional(),
  historyMillis: z.number().nonnegative(),
  periods: list(
    z.object({
      fromAgeMillis: z.number().nonnegative(),
      toAgeMillis: z.number().nonnegative(),
      everyMillis: count.meta({ description: 'What the retention keeps there; 0 for every checkpoint.' }),
      checkpointCount: count,
      coverage: list(z.number()).meta({
        description: 'From young to old, over equal parts: the share that is as dense as it should be, 0 to 1.',
      }),
    }),
  ).meta({ description: 'Ages are counted from the newest checkpoint, on the history clock.' }),
  gaps: list(
    z.object({
      after: checkpointAt,
      before: checkpointAt,
      wallMillis: z.number().nonnegative(),
      historyMillis: z.number(),
      reason: z.string(),
    }),
  ),
  moreGaps: count,
  forms: list(formSize),
  garbageCount: count,
  requests: storeRequests,
  writeAmplification: z.number().optional().meta({ description: 'Bytes put for each guest byte.' }),
  putsPerGiB: z.number().optional(),
  cost: z
    .object({
      prices: z.object({
        currency: z.string(),
        storagePerGiBMonth: price,
        putsPerThousand: price,
        getsPerThousand: price,
        isDefault: z.boolean().meta({ description: 'Those of S3 Standard in us-east-1, as the program knows them.' }),
      }),
      storage: price,
      puts: price,
      lists: price,
      gets: price,
      total: price,
    })
    .meta({ description: 'For a month of 730 hours; requests go on as they did since requests.sinceMicros.' }),
})

const exportJob = z.object({
  id: z.string(),
  state: jobState,
  vpg: z.string(),
  volume: z.string(),
  checkpoint: z.string(),
  checkpointTimestampMicros: micros,
  file: z.string(),
  sizeBytes: count,
  doneBytes: count,
  dataBytes: count,
  startedAtMicros: micros,
  endedAtMicros: micros.optional(),
  failure: failure.optional(),
})

const mount = z.object({
  id: z.string(),
  vpg: z.string(),
  checkpoint: z.string(),
  checkpointTimestampMicros: micros,
  volumes: list(z.object({ name: z.string(), sizeBytes: count, uri: z.string() })),
  startedAtMicros: micros,
})

const diff = z.object({
  vpg: z.string(),
  volume: z.string(),
  from: z.string(),
  to: z.string(),
  sizeBytes: count,
  granularityBytes: count,
  extents: list(z.object({ offsetBytes: count, sizeBytes: count })),
})

const preseedJob = z.object({
  id: z.string(),
  state: jobState,
  vpg: z.string(),
  volume: z.string(),
  file: z.string(),
  sizeBytes: count,
  doneBytes: count,
  dataBytes: count,
  startedAtMicros: micros,
  endedAtMicros: micros.optional(),
  failure: failure.optional(),
})

const finding = z.object({
  vpg: z.string().optional(),
  place: z.string(),
  offsetBytes: count.optional(),
  sentence: z.string(),
})

const verifyJob = z.object({
  id: z.string(),
  what: z.enum(['journal', 'mirror']),
  vpg: z.string().optional(),
  state: jobState,
  checkedCount: count,
  checkedSizeBytes: count,
  totalSizeBytes: count.optional(),
  findings: list(finding),
  moreFindings: count,
  startedAtMicros: micros,
  endedAtMicros: micros.optional(),
  failure: failure.optional(),
})

const alert = z.object({ severity: z.enum(['critical', 'warning']), vpg: z.string().optional(), sentence: z.string() })

const vraStatus = z.object({
  software: z.string(),
  applianceId: z.string(),
  startedAtMicros: micros,
  nowMicros: micros,
  dataDirectory: z.string(),
  store: z.string(),
  queues: z
    .object({
      load: z
        .object({
          throttledCounts: z.record(z.enum(['create', 'read', 'list', 'remove', 'lock']), count),
          throttledAtMicros: micros.optional(),
          backedOffMillis: z.number(),
          underWayCount: count,
          waitingCount: count,
        })
        .optional()
        .meta({ description: 'Of a store that can put requests off: how often it did, and what waits for it.' }),
      unsealedRecordCount: count,
      unsealedRecordCountMax: count,
    })
    .optional(),
  storeFailing: z
    .object({ sinceMicros: count, sentence: z.string() })
    .optional()
    .meta({ description: 'While the object store does not answer: since when, and why.' }),
  listen: z.object({ host: z.string(), port: count, tls: z.boolean() }),
  ready: z.boolean(),
  alerts: list(alert),
  journal: z.object({
    logSizeBytes: count,
    logSizeBytesMax: count,
    logFileCount: count,
    diskFreeBytes: count,
    indexSizeBytes: count,
    full: z.string().optional(),
  }),
  ingest: z.object({
    sessionCount: count,
    writesPerSecond: z.number(),
    bytesPerSecond: z.number(),
    writesTotal: count,
    bytesTotal: count,
    ackMillisP50: z.number(),
    ackMillisP99: z.number(),
  }),
  refusals: list(refusal),
  vpgs: list(vpgStatus),
  exports: list(exportJob),
  cache: z
    .object({
      sizeBytes: count,
      sizeBytesMax: count,
      hitSizeBytes: count,
      missSizeBytes: count,
      evictedCount: count,
      failedCount: count.meta({
        description: 'Blocks that did not pass their checksum, or that the disk did not take.',
      }),
    })
    .optional()
    .meta({ description: 'On the local disk, of what images read from a bucket.' }),
})

/** A schema that allows every T, and knows each of its keys. */
type Describes<T, S extends z.ZodType> = [T] extends [z.output<S>]
  ? [keyof T] extends [keyof z.output<S>]
    ? S
    : never
  : never
function describes<T>() {
  return <S extends z.ZodType>(schema: S & Describes<T, S>): S => schema
}

export const answers = {
  VraStatus: describes<service.VraStatus>()(vraStatus),
  VpgStatus: describes<service.VpgStatus>()(vpgStatus),
  VpgList: describes<readonly service.VpgStatus[]>()(list(vpgStatus)),
  VpgTimeline: describes<service.VpgTimeline>()(vpgTimeline),
  VpgVersions: describes<service.VpgVersions>()(vpgVersions),
  Checkpoint: describes<service.CheckpointFacts>()(checkpointFacts),
  CheckpointList: describes<service.CheckpointList>()(
    z.object({ checkpoints: list(checkpointFacts), more: z.boolean() }),
  ),
  ExportJob: describes<service.ExportJob>()(exportJob),
  ExportJobList: describes<readonly service.ExportJob[]>()(list(exportJob)),
  Mount: describes<service.MountFacts>()(mount),
  MountList: describes<readonly service.MountFacts[]>()(list(mount)),
  Diff: describes<service.DiffFacts>()(diff),
  RecoveryPlan: describes<service.RecoveryPlan>()(recoveryPlan),
  Recovery: describes<service.RecoveryFacts>()(recoveryFacts),
  RecoveryList: describes<readonly service.RecoveryFacts[]>()(list(recoveryFacts)),
  PreseedJob: describes<service.PreseedJob>()(preseedJob),
  PreseedJobList: describes<readonly service.PreseedJob[]>()(list(preseedJob)),
  VerifyJob: describes<service.VerifyJob>()(verifyJob),
  VerifyJobList: describes<readonly service.VerifyJob[]>()(list(verifyJob)),
  DumpPage: describes<service.DumpPage>()(
    z.object({
      lines: list(z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).readonly()),
      next: z.string().optional(),
    }),
  ),
  Error: failure,
} as const

const limit = z.coerce.number().int().min(1).max(pageSizeMax).default(100)

export const queries = {
  diff: z.strictObject({ from: reference, to: reference }),
  deletion: z.strictObject({
    force: z.stringbool().optional().meta({
      description: 'Although standby copies of it, or what a recovery is removing, are in AWS: they are left there.',
    }),
  }),
  drills: z.strictObject({ vpg: name }),
  checkpoints: z.strictObject({
    limit,
    order: z.enum(['newest-first', 'oldest-first']).default('newest-first'),
    after: z.string().max(32).optional().meta({ description: 'A checkpoint id: strictly beyond it, in this order.' }),
    from: z.string().max(64).optional().meta({ description: 'A time: at or after it.' }),
    to: z.string().max(64).optional().meta({ description: 'A time: before it.' }),
    tagged: z.stringbool().optional().meta({ description: 'Only tagged ones.' }),
  }),
  dump: z.strictObject({ vpg: name.optional(), limit, after: z.string().max(1024).optional() }),
  none: z.strictObject({}),
} as const

export const params = {
  none: z.object({}),
  vpg: z.object({ vpg: name }),
  volume: z.object({ vpg: name, volume: name }),
  checkpoint: z.object({ vpg: name, checkpoint: reference }),
  tag: z.object({ vpg: name, tag: z.string().max(64) }),
  job: z.object({ id: z.string().max(64) }),
  decision: z.object({ id: z.string().max(64), decision: z.enum(['commit', 'rollback', 'stop']) }),
  what: z.object({ what: z.enum(['journal', 'mirror']) }),
} as const
