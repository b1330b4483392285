import type { FastifyInstance, FastifySchema } from 'fastify'
import { z } from 'zod'
import { Failure } from '../base/failure.ts'
import { validated } from './errors.ts'
import { parseInstant } from './reference.ts'
import { answers, params, queries, requests } from './schemas.ts'
import type { DrillScheduleRequest, RecoveryRequest, VraControl } from './service.ts'

/** The names of schemas are those of the OpenAPI document's components. */
export const components = { ...requests, ...answers }

interface Route<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  readonly url: string
  readonly id: string
  readonly summary: string
  readonly tag: 'daemon' | 'vpgs' | 'checkpoints' | 'recoveries' | 'exports' | 'mounts' | 'preseeds' | 'verification'
  readonly params?: P
  readonly query?: Q
  readonly body?: B
  readonly bodyName?: keyof typeof requests
  readonly status: 200 | 201 | 202 | 204
  readonly answer?: keyof typeof answers
  readonly run: (input: { params: z.output<P>; query: z.output<Q>; body: z.output<B> }) => Promise<unknown>
}

/** Everything under /v1. Each handler is one call of the seam. */
export function registerRoutes(server: FastifyInstance, vra: VraControl): void {
  const route = <
    P extends z.ZodType = typeof params.none,
    Q extends z.ZodType = typeof queries.none,
    B extends z.ZodType = typeof queries.none,
  >(
    entry: Route<P, Q, B>,
  ): void => registerRoute(server, entry)

  route({
    ...{ method: 'GET', url: '/v1/status', id: 'getStatus', tag: 'daemon', status: 200, answer: 'VraStatus' },
    summary: 'The daemon, its VPGs, agents and exports, and what a person should know now',
    run: () => vra.status(),
  })
  route({
    ...{ method: 'GET', url: '/v1/vpgs', id: 'listVpgs', tag: 'vpgs', status: 200, answer: 'VpgList' },
    summary: 'Every VPG',
    run: () => vra.listVpgs(),
  })
  route({
    ...{ method: 'POST', url: '/v1/vpgs', id: 'createVpg', tag: 'vpgs', status: 201, answer: 'VpgStatus' },
    summary: 'Begins to accept the streams of a VPG',
    body: requests.CreateVpgRequest,
    bodyName: 'CreateVpgRequest',
    run: ({ body: { name, agents, checkpointIntervalMillis, volumes, ...optional } }) =>
      vra.createVpg({
        ...{ name, agents, checkpointIntervalMillis },
        ...withoutUndefined(optional),
        volumes: volumes.map(({ name, sizeBytes, agent, vm }) => ({
          ...{ name, sizeBytes },
          ...withoutUndefined({ agent, vm }),
        })),
      }),
  })
  route({
    ...{ method: 'GET', url: '/v1/vpgs/:vpg', id: 'showVpg', tag: 'vpgs', status: 200, answer: 'VpgStatus' },
    summary: 'One VPG',
    params: params.vpg,
    run: ({ params: { vpg } }) => vra.showVpg(vpg),
  })
  route({
    ...{ method: 'PATCH', url: '/v1/vpgs/:vpg', id: 'changeVpg', tag: 'vpgs', status: 200, answer: 'VpgStatus' },
    summary:
      'Changes its history, how densely it is kept, checkpoint interval, journal limits, rate of synchronisations, drills, or pauses it',
    params: params.vpg,
    body: requests.ChangeVpgRequest,
    bodyName: 'ChangeVpgRequest',
    run: ({ params: { vpg }, body: { drillSchedule, ...body } }) =>
      vra.changeVpg(vpg, {
        ...withoutUndefined(body),
        ...(drillSchedule === undefined
          ? {}
          : { drillSchedule: drillSchedule === null ? null : scheduleOf(drillSchedule) }),
      }),
  })
  route({
    ...{ method: 'DELETE', url: '/v1/vpgs/:vpg', id: 'deleteVpg', tag: 'vpgs', status: 204 },
    summary: 'Ends protection; its checkpoints, journal and mirror go',
    params: params.vpg,
    query: queries.deletion,
    run: ({ params: { vpg }, query: { force } }) => vra.deleteVpg(vpg, { isForced: force ?? false }),
  })
  registerVolumeRoutes(route, vra)
  registerCheckpointRoutes(route, vra)
  registerMountRoutes(route, vra)
  registerRecoveryRoutes(route, vra)
  registerDrillRoutes(route, vra)
  registerJobRoutes(route, vra)
  registerPreseedRoutes(route, vra)
}

function scheduleOf(asked: z.output<typeof requests.ChangeVpgRequest>['drillSchedule'] & object): DrillScheduleRequest {
  const { everyMillis, minuteOfDay, ...how } = asked
  return { ...how, ...withoutUndefined({ everyMillis, minuteOfDay }) }
}

type Register = <
  P extends z.ZodType = typeof params.none,
  Q extends z.ZodType = typeof queries.none,
  B extends z.ZodType = typeof queries.none,
>(
  entry: Route<P, Q, B>,
) => void

function registerVolumeRoutes(route: Register, vra: VraControl): void {
  const volumes = '/v1/vpgs/:vpg/volumes'
  route({
    ...{ method: 'POST', url: volumes, id: 'addVolume', tag: 'vpgs', status: 201, answer: 'VpgStatus' },
    summary: 'Protects one volume more',
    params: params.vpg,
    body: requests.AddVolumeRequest,
    bodyName: 'AddVolumeRequest',
    run: ({ params: { vpg }, body: { name, sizeBytes, agent, vm } }) =>
      vra.addVolume(vpg, { name, sizeBytes, ...withoutUndefined({ agent, vm }) }),
  })
  route({
    ...{ method: 'PATCH', url: `${volumes}/:volume`, id: 'growVolume', tag: 'vpgs', status: 200, answer: 'VpgStatus' },
    summary: 'Makes it larger; older checkpoints keep the size that it had',
    params: params.volume,
    body: requests.GrowVolumeRequest,
    bodyName: 'GrowVolumeRequest',
    run: ({ params: { vpg, volume }, body }) => vra.growVolume(vpg, volume, body),
  })
  route({
    ...{
      method: 'DELETE',
      url: `${volumes}/:volume`,
      id: 'removeVolume',
      tag: 'vpgs',
      status: 200,
      answer: 'VpgStatus',
    },
    summary: 'Ends its protection; older checkpoints keep it',
    params: params.volume,
    run: ({ params: { vpg, volume } }) => vra.removeVolume(vpg, volume),
  })
  route({
    ...{ method: 'POST', url: '/v1/vpgs/:vpg/syncs', id: 'requestSync', tag: 'vpgs', status: 202, answer: 'VpgStatus' },
    summary: 'Asks the connected agents to synchronise volumes',
    params: params.vpg,
    body: requests.SyncVpgRequest,
    bodyName: 'SyncVpgRequest',
    run: ({ params: { vpg }, body: { kind, volumes: names } }) =>
      vra.requestSync(vpg, { kind, ...withoutUndefined({ volumes: names }) }),
  })
}

function registerCheckpointRoutes(route: Register, vra: VraControl): void {
  route({
    ...{ method: 'GET', url: '/v1/vpgs/:vpg/timeline', id: 'showTimeline', tag: 'checkpoints' },
    ...{ status: 200, answer: 'VpgTimeline' },
    summary:
      'What can be recovered how densely, with the gaps, what it takes in the store by form, and what that costs',
    params: params.vpg,
    run: ({ params: { vpg } }) => vra.timeline(vpg),
  })
  route({
    ...{ method: 'GET', url: '/v1/vpgs/:vpg/versions', id: 'showVersions', tag: 'checkpoints' },
    ...{ status: 200, answer: 'VpgVersions' },
    summary:
      'What of removed objects a bucket with versions still keeps, and what that costs; lists it, which takes minutes where there is much',
    params: params.vpg,
    run: ({ params: { vpg } }) => vra.versions(vpg),
  })
  route({
    ...{
      method: 'GET',
      url: '/v1/vpgs/:vpg/checkpoints',
      id: 'listCheckpoints',
      tag: 'checkpoints',
      status: 200,
      answer: 'CheckpointList',
    },
    summary: 'A page of checkpoints; pass the last one of it as `after` for the next page',
    params: params.vpg,
    query: queries.checkpoints,
    run: ({ params: { vpg }, query: { limit, order, after, from, to, tagged } }) => {
      const times = { fromTimestampMicros: instantOf('from', from), toTimestampMicros: instantOf('to', to) }
      return vra.listCheckpoints({ vpg, limit, order, ...withoutUndefined({ after, tagged, ...times }) })
    },
  })
  route({
    ...{
      method: 'GET',
      url: '/v1/vpgs/:vpg/checkpoints/:checkpoint',
      id: 'findCheckpoint',
      tag: 'checkpoints',
      status: 200,
      answer: 'Checkpoint',
    },
    summary: 'The checkpoint that "latest", an id, a tag or a time means',
    params: params.checkpoint,
    run: ({ params: { vpg, checkpoint } }) => vra.findCheckpoint(vpg, checkpoint),
  })
  route({
    ...{
      method: 'POST',
      url: '/v1/vpgs/:vpg/tags',
      id: 'tagCheckpoint',
      tag: 'checkpoints',
      status: 201,
      answer: 'Checkpoint',
    },
    summary: 'Tags a checkpoint, or makes one now and tags it; a tagged one is kept as long as it is told to',
    params: params.vpg,
    body: requests.TagRequest,
    bodyName: 'TagRequest',
    run: ({ params: { vpg }, body: { tag, checkpoint, keepMillis } }) =>
      vra.tagCheckpoint({ vpg, tag, ...withoutUndefined({ checkpoint, keepMillis }) }),
  })
  route({
    ...{ method: 'DELETE', url: '/v1/vpgs/:vpg/tags/:tag', id: 'untagCheckpoint', tag: 'checkpoints', status: 204 },
    summary: "Takes the tag away; the checkpoint is kept as long as its VPG's history keeps it",
    params: params.tag,
    run: ({ params: { vpg, tag } }) => vra.untagCheckpoint(vpg, tag),
  })
}

function registerMountRoutes(route: Register, vra: VraControl): void {
  route({
    ...{ method: 'POST', url: '/v1/mounts', id: 'startMount', tag: 'mounts', status: 201, answer: 'Mount' },
    summary: 'Serves volumes as of a checkpoint read-only over NBD; nothing is copied',
    body: requests.MountRequest,
    bodyName: 'MountRequest',
    run: ({ body: { vpg, checkpoint, volume } }) =>
      vra.startMount({ vpg, checkpoint, ...withoutUndefined({ volume }) }),
  })
  route({
    ...{ method: 'GET', url: '/v1/mounts', id: 'listMounts', tag: 'mounts', status: 200, answer: 'MountList' },
    summary: 'What is served read-only now, newest first',
    run: () => vra.mounts(),
  })
  route({
    ...{ method: 'DELETE', url: '/v1/mounts/:id', id: 'endMount', tag: 'mounts', status: 204 },
    summary: 'Cuts off its clients, and leaves nothing of it',
    params: params.job,
    run: ({ params: { id } }) => vra.endMount(id),
  })
  route({
    ...{ method: 'GET', url: '/v1/vpgs/:vpg/volumes/:volume/diff', id: 'diffVolume', tag: 'checkpoints' },
    ...{ status: 200, answer: 'Diff' },
    summary: 'Where a volume was written between two checkpoints, by the indexes; a superset of what differs',
    params: params.volume,
    query: queries.diff,
    run: ({ params: { vpg, volume }, query: { from, to } }) => vra.diff({ vpg, volume, from, to }),
  })
}

function registerRecoveryRoutes(route: Register, vra: VraControl): void {
  const all = '/v1/recoveries'
  const tag = 'recoveries' as const
  const asked = ({ vms, volumes, ...body }: z.output<typeof requests.RecoveryRequest>): RecoveryRequest => ({
    ...body,
    ...withoutUndefined({ vms, volumes }),
  })
  route({
    ...{ method: 'POST', url: `${all}/plan`, id: 'planRecovery', tag, status: 200, answer: 'RecoveryPlan' },
    summary: 'What a recovery would do: checkpoint, volumes, bytes, time, remarks. Changes nothing',
    body: requests.RecoveryRequest,
    bodyName: 'RecoveryRequest',
    run: ({ body }) => vra.planRecovery(asked(body)),
  })
  route({
    ...{ method: 'POST', url: all, id: 'startRecovery', tag, status: 202, answer: 'Recovery' },
    summary: 'Recovers machines of a VPG as of a checkpoint: as a test, a failover, a move, a clone',
    body: requests.RecoveryRequest,
    bodyName: 'RecoveryRequest',
    run: ({ body }) => vra.startRecovery(asked(body)),
  })
  route({
    ...{ method: 'GET', url: all, id: 'listRecoveries', tag, status: 200, answer: 'RecoveryList' },
    summary: 'Recoveries under way and the last that have ended, newest first',
    run: () => vra.recoveries(),
  })
  route({
    ...{ method: 'GET', url: `${all}/:id`, id: 'showRecovery', tag, status: 200, answer: 'Recovery' },
    summary: 'One recovery, how far it is, and where what it recovered can be had',
    params: params.job,
    run: ({ params: { id } }) => vra.recovery(id),
  })
  route({
    ...{ method: 'POST', url: `${all}/:id/:decision`, id: 'decideRecovery', tag, status: 202, answer: 'Recovery' },
    summary:
      'Commits a failover or move, rolls it back, or stops a test or clone, or the service of committed disks; durable when it is answered',
    params: params.decision,
    run: ({ params: { id, decision } }) => vra.decideRecovery(id, decision),
  })
}

function registerDrillRoutes(route: Register, vra: VraControl): void {
  const all = '/v1/drills'
  const tag = 'recoveries' as const
  route({
    ...{ method: 'POST', url: all, id: 'startDrill', tag, status: 202, answer: 'Recovery' },
    summary: 'Recovers a checkpoint as a test, has it checked, and removes it again',
    body: requests.DrillRequest,
    bodyName: 'DrillRequest',
    run: ({ body }) => vra.startDrill(body),
  })
  route({
    ...{ method: 'GET', url: all, id: 'listDrills', tag, status: 200, answer: 'RecoveryList' },
    summary: 'Drills of a VPG, newest first: the one under way, and the last that have ended',
    query: queries.drills,
    run: ({ query: { vpg } }) => vra.drills(vpg),
  })
  route({
    ...{ method: 'POST', url: `${all}/:id/report`, id: 'reportDrill', tag, status: 202, answer: 'Recovery' },
    summary: 'What came of a check that the client ran',
    params: params.job,
    body: requests.DrillReport,
    bodyName: 'DrillReport',
    run: ({ params: { id }, body }) => vra.reportDrill(id, body),
  })
}

function registerJobRoutes(route: Register, vra: VraControl): void {
  route({
    ...{ method: 'POST', url: '/v1/exports', id: 'startExport', tag: 'exports', status: 202, answer: 'ExportJob' },
    summary: "Writes a volume as of a checkpoint into a sparse raw file on the daemon's host, as the daemon's user",
    body: requests.ExportRequest,
    bodyName: 'ExportRequest',
    run: ({ body }) => vra.startExport(body),
  })
  route({
    ...{ method: 'GET', url: '/v1/exports', id: 'listExports', tag: 'exports', status: 200, answer: 'ExportJobList' },
    summary: 'Running exports and the last finished ones, newest first',
    run: () => vra.exports(),
  })
  route({
    ...{ method: 'GET', url: '/v1/exports/:id', id: 'showExport', tag: 'exports', status: 200, answer: 'ExportJob' },
    summary: 'One export and how far it is',
    params: params.job,
    run: ({ params: { id } }) => vra.export(id),
  })
  route({
    ...{
      method: 'DELETE',
      url: '/v1/exports/:id',
      id: 'cancelExport',
      tag: 'exports',
      status: 200,
      answer: 'ExportJob',
    },
    summary: 'Stops it and removes its partial file',
    params: params.job,
    run: ({ params: { id } }) => vra.cancelExport(id),
  })
  route({
    ...{
      method: 'POST',
      url: '/v1/verifies',
      id: 'startVerify',
      tag: 'verification',
      status: 202,
      answer: 'VerifyJob',
    },
    summary: 'Reads and checks every byte of the journal or the mirror',
    body: requests.VerifyRequest,
    bodyName: 'VerifyRequest',
    run: ({ body: { what, vpg } }) => vra.startVerify({ what, ...withoutUndefined({ vpg }) }),
  })
  route({
    ...{
      method: 'GET',
      url: '/v1/verifies',
      id: 'listVerifies',
      tag: 'verification',
      status: 200,
      answer: 'VerifyJobList',
    },
    summary: 'Running verifications and the last finished ones, newest first',
    run: () => vra.verifies(),
  })
  route({
    ...{
      method: 'GET',
      url: '/v1/verifies/:id',
      id: 'showVerify',
      tag: 'verification',
      status: 200,
      answer: 'VerifyJob',
    },
    summary: 'One verification, how far it is and what it found',
    params: params.job,
    run: ({ params: { id } }) => vra.verify(id),
  })
  route({
    ...{
      method: 'DELETE',
      url: '/v1/verifies/:id',
      id: 'cancelVerify',
      tag: 'verification',
      status: 200,
      answer: 'VerifyJob',
    },
    summary: 'Stops it',
    params: params.job,
    run: ({ params: { id } }) => vra.cancelVerify(id),
  })
  route({
    ...{ method: 'GET', url: '/v1/dumps/:what', id: 'dump', tag: 'verification', status: 200, answer: 'DumpPage' },
    summary: 'What is where: records of the journal, or objects of the mirror, a page of them',
    params: params.what,
    query: queries.dump,
    run: ({ params: { what }, query: { limit, vpg, after } }) =>
      vra.dump({ what, limit, ...withoutUndefined({ vpg, after }) }),
  })
}

function registerPreseedRoutes(route: Register, vra: VraControl): void {
  const [all, one] = ['/v1/preseeds', '/v1/preseeds/:id']
  route({
    ...{ method: 'POST', url: all, id: 'startPreseed', tag: 'preseeds', status: 202, answer: 'PreseedJob' },
    summary: "Takes a raw image on the daemon's host as the beginning of a volume's mirror",
    body: requests.PreseedRequest,
    bodyName: 'PreseedRequest',
    run: ({ body }) => vra.startPreseed(body),
  })
  route({
    ...{ method: 'GET', url: all, id: 'listPreseeds', tag: 'preseeds', status: 200, answer: 'PreseedJobList' },
    summary: 'Images that are being read and the last that were, newest first',
    run: () => vra.preseeds(),
  })
  route({
    ...{ method: 'GET', url: one, id: 'showPreseed', tag: 'preseeds', status: 200, answer: 'PreseedJob' },
    summary: 'One of them and how far it is',
    params: params.job,
    run: ({ params: { id } }) => vra.preseed(id),
  })
  route({
    ...{ method: 'DELETE', url: one, id: 'cancelPreseed', tag: 'preseeds', status: 200, answer: 'PreseedJob' },
    summary: 'Stops it; what was read stays, and is compared',
    params: params.job,
    run: ({ params: { id } }) => vra.cancelPreseed(id),
  })
}

function registerRoute<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>(
  server: FastifyInstance,
  entry: Route<P, Q, B>,
): void {
  const { params: pathSchema = params.none, query = queries.none, body = queries.none } = entry
  server.route({
    method: entry.method,
    url: entry.url,
    schema: documentation(entry),
    handler: async (request, reply) => {
      const input = {
        params: validated(pathSchema, request.params, 'path') as z.output<P>,
        query: validated(query, request.query, 'query') as z.output<Q>,
        body: validated(body, request.body, 'request') as z.output<B>,
      }
      const answer = await entry.run(input)
      return reply.code(entry.status).send(answer)
    },
  })
}

/** What the OpenAPI document says of a route; checking is done with the schemas themselves, not with this. */
function documentation<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>(
  entry: Route<P, Q, B>,
): FastifySchema {
  const success =
    entry.answer === undefined ? { description: 'Done.', type: 'null' } : answerOf('As asked.', entry.answer)
  return {
    operationId: entry.id,
    summary: entry.summary,
    tags: [entry.tag],
    ...(entry.params === undefined ? {} : { params: jsonSchema(entry.params) }),
    ...(entry.query === undefined ? {} : { querystring: jsonSchema(entry.query) }),
    ...(entry.bodyName === undefined ? {} : { body: { $ref: `${entry.bodyName}#` } }),
    response: {
      [entry.status]: success,
      '4xx': answerOf('Refused: the request, or what it names, is wrong.', 'Error'),
      '5xx': answerOf('Not now (503, see Retry-After), or damage, or a fault of the daemon.', 'Error'),
    },
  }
}

function answerOf(description: string, name: keyof typeof answers): object {
  return { description, content: { 'application/json': { schema: { $ref: `${name}#` } } } }
}

export function jsonSchema(schema: z.ZodType): object {
  const {
    $schema: _,
    additionalProperties: __,
    ...rest
  } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  return rest
}

function instantOf(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const micros = /^\d{16,17}$/.test(text) ? Number(text) : parseInstant(text, Date.now() * 1000)
  if (micros === undefined)
    throw new Failure('REQUEST_INVALID', `${name} is not a time: give ISO 8601 or text like "2h ago"`, { [name]: text })
  return micros
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** Without the keys whose value is undefined: absent and undefined are not the same to the seam. */
function withoutUndefined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as Defined<T>
}
