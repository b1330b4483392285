import { Failure, failureFromRecord, reactionTo, type FailureRecord } from '../base/failure.ts'
import type * as service from './service.ts'

/**
 * The daemon's control API from another process: the seam over HTTP. A failure there is the same Failure here; a daemon that cannot be reached is
 * PEER_LOST.
 */
export class ControlClient implements service.VraControl {
  readonly #url: string
  readonly #signal: AbortSignal | undefined

  /** The signal ends whatever is under way. Fails REQUEST_INVALID where the URL is none of HTTP. */
  constructor(url: string, signal?: AbortSignal) {
    if (!/^https?:\/\/./.test(url))
      throw new Failure('REQUEST_INVALID', `"${url}" is no address of a daemon: write it as http://127.0.0.1:7421`)
    this.#url = url.replace(/\/+$/, '')
    this.#signal = signal
  }

  status(): Promise<service.VraStatus> {
    return this.#request('GET', '/v1/status')
  }

  listVpgs(): Promise<readonly service.VpgStatus[]> {
    return this.#request('GET', '/v1/vpgs')
  }

  showVpg(name: string): Promise<service.VpgStatus> {
    return this.#request('GET', path`/v1/vpgs/${name}`)
  }

  createVpg(request: service.CreateVpgRequest): Promise<service.VpgStatus> {
    return this.#request('POST', '/v1/vpgs', request)
  }

  deleteVpg(name: string, { isForced } = { isForced: false }): Promise<void> {
    return this.#request('DELETE', `${path`/v1/vpgs/${name}`}${isForced ? '?force=true' : ''}`)
  }

  changeVpg(name: string, request: service.ChangeVpgRequest): Promise<service.VpgStatus> {
    return this.#request('PATCH', path`/v1/vpgs/${name}`, request)
  }

  addVolume(vpg: string, request: service.AddVolumeRequest): Promise<service.VpgStatus> {
    return this.#request('POST', path`/v1/vpgs/${vpg}/volumes`, request)
  }

  removeVolume(vpg: string, volume: string): Promise<service.VpgStatus> {
    return this.#request('DELETE', path`/v1/vpgs/${vpg}/volumes/${volume}`)
  }

  growVolume(vpg: string, volume: string, request: service.GrowVolumeRequest): Promise<service.VpgStatus> {
    return this.#request('PATCH', path`/v1/vpgs/${vpg}/volumes/${volume}`, request)
  }

  requestSync(vpg: string, request: service.SyncVpgRequest): Promise<service.VpgStatus> {
    return this.#request('POST', path`/v1/vpgs/${vpg}/syncs`, request)
  }

  timeline(vpg: string): Promise<service.VpgTimeline> {
    return this.#request('GET', path`/v1/vpgs/${vpg}/timeline`)
  }

  versions(vpg: string): Promise<service.VpgVersions> {
    return this.#request('GET', path`/v1/vpgs/${vpg}/versions`)
  }

  listCheckpoints(query: service.CheckpointListQuery): Promise<service.CheckpointList> {
    const { vpg, limit, order, after, fromTimestampMicros, toTimestampMicros, tagged } = query
    const search = searchOf({ limit, order, after, from: fromTimestampMicros, to: toTimestampMicros, tagged })
    return this.#request('GET', path`/v1/vpgs/${vpg}/checkpoints` + search)
  }

  findCheckpoint(vpg: string, reference: string): Promise<service.CheckpointFacts> {
    return this.#request('GET', path`/v1/vpgs/${vpg}/checkpoints/${reference}`)
  }

  tagCheckpoint({ vpg, ...request }: service.TagRequest): Promise<service.CheckpointFacts> {
    return this.#request('POST', path`/v1/vpgs/${vpg}/tags`, request)
  }

  untagCheckpoint(vpg: string, tag: string): Promise<void> {
    return this.#request('DELETE', path`/v1/vpgs/${vpg}/tags/${tag}`)
  }

  startExport(request: service.ExportRequest): Promise<service.ExportJob> {
    return this.#request('POST', '/v1/exports', request)
  }

  exports(): Promise<readonly service.ExportJob[]> {
    return this.#request('GET', '/v1/exports')
  }

  export(id: string): Promise<service.ExportJob> {
    return this.#request('GET', path`/v1/exports/${id}`)
  }

  cancelExport(id: string): Promise<service.ExportJob> {
    return this.#request('DELETE', path`/v1/exports/${id}`)
  }

  startMount(request: service.MountRequest): Promise<service.MountFacts> {
    return this.#request('POST', '/v1/mounts', request)
  }

  mounts(): Promise<readonly service.MountFacts[]> {
    return this.#request('GET', '/v1/mounts')
  }

  endMount(id: string): Promise<void> {
    return this.#request('DELETE', path`/v1/mounts/${id}`)
  }

  diff({ vpg, volume, from, to }: service.DiffQuery): Promise<service.DiffFacts> {
    return this.#request('GET', path`/v1/vpgs/${vpg}/volumes/${volume}/diff` + searchOf({ from, to }))
  }

  planRecovery(request: service.RecoveryRequest): Promise<service.RecoveryPlan> {
    return this.#request('POST', '/v1/recoveries/plan', request)
  }

  startRecovery(request: service.RecoveryRequest): Promise<service.RecoveryFacts> {
    return this.#request('POST', '/v1/recoveries', request)
  }

  recoveries(): Promise<readonly service.RecoveryFacts[]> {
    return this.#request('GET', '/v1/recoveries')
  }

  recovery(id: string): Promise<service.RecoveryFacts> {
    return this.#request('GET', path`/v1/recoveries/${id}`)
  }

  decideRecovery(id: string, decision: service.RecoveryDecision): Promise<service.RecoveryFacts> {
    return this.#request('POST', path`/v1/recoveries/${id}/${decision}`)
  }

  startDrill(request: service.DrillRequest): Promise<service.RecoveryFacts> {
    return this.#request('POST', '/v1/drills', request)
  }

  drills(vpg: string): Promise<readonly service.RecoveryFacts[]> {
    return this.#request('GET', '/v1/drills' + searchOf({ vpg }))
  }

  reportDrill(id: string, report: service.DrillReport): Promise<service.RecoveryFacts> {
    return this.#request('POST', path`/v1/drills/${id}/report`, report)
  }

  startPreseed(request: service.PreseedRequest): Promise<service.PreseedJob> {
    return this.#request('POST', '/v1/preseeds', request)
  }

  preseeds(): Promise<readonly service.PreseedJob[]> {
    return this.#request('GET', '/v1/preseeds')
  }

  preseed(id: string): Promise<service.PreseedJob> {
    return this.#request('GET', path`/v1/preseeds/${id}`)
  }

  cancelPreseed(id: string): Promise<service.PreseedJob> {
    return this.#request('DELETE', path`/v1/preseeds/${id}`)
  }

  startVerify(request: service.VerifyRequest): Promise<service.VerifyJob> {
    return this.#request('POST', '/v1/verifies', request)
  }

  verifies(): Promise<readonly service.VerifyJob[]> {
    return this.#request('GET', '/v1/verifies')
  }

  verify(id: string): Promise<service.VerifyJob> {
    return this.#request('GET', path`/v1/verifies/${id}`)
  }

  cancelVerify(id: string): Promise<service.VerifyJob> {
    return this.#request('DELETE', path`/v1/verifies/${id}`)
  }

  dump({ what, ...query }: service.DumpRequest): Promise<service.DumpPage> {
    return this.#request('GET', path`/v1/dumps/${what}` + searchOf({ ...query }))
  }

  /** The OpenAPI document. */
  openapi(): Promise<unknown> {
    return this.#request('GET', '/openapi.json')
  }

  /** A kept connection may have been closed by the daemon meanwhile, so what only reads is asked a second time. */
  async #fetch(method: string, target: string, init: RequestInit): Promise<Response> {
    const ask = (): Promise<Response> => fetch(this.#url + target, { method, ...init })
    return method === 'GET' ? ask().catch(ask) : ask()
  }

  async #request<T>(method: string, target: string, body?: unknown): Promise<T> {
    let response: Response
    let text: string
    try {
      response = await this.#fetch(method, target, {
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
        ...(this.#signal === undefined ? {} : { signal: this.#signal }),
      })
      text = await response.text()
    } catch (error) {
      if (this.#signal?.aborted === true) throw new Failure('CLOSING', 'stopped as asked', {}, { cause: error })
      const sentence = `the daemon does not answer at ${this.#url}: is it running (vra serve), and is --url right?`
      throw new Failure('PEER_LOST', sentence, { url: this.#url }, { cause: error })
    }
    if (response.ok) return (text === '' ? undefined : JSON.parse(text)) as T
    throw failureOf(text, response.status, this.#url)
  }
}

/** The daemon's own Failure; something else that listens there answers in no words of ours. */
function failureOf(text: string, httpStatus: number, url: string): Error {
  const record = recordOf(text)
  if (record?.code === 'INTERNAL_ERROR') return new Error(record.sentence)
  if (record !== undefined) return failureFromRecord(record as FailureRecord)
  return new Failure('PEER_LOST', `${url} answered ${httpStatus}, and not as a VRA does: ${text.slice(0, 200)}`, {
    httpStatus,
  })
}

function recordOf(text: string): service.ErrorBody | undefined {
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body !== 'object' || body === null || !('code' in body) || !('sentence' in body)) return undefined
    if (typeof body.code !== 'string' || typeof body.sentence !== 'string') return undefined
    if (!Object.hasOwn(reactionTo, body.code) && body.code !== 'INTERNAL_ERROR') return undefined
    return { details: {}, ...body } as service.ErrorBody
  } catch {
    return undefined
  }
}

function path(pieces: TemplateStringsArray, ...names: string[]): string {
  return pieces.reduce((text, piece, index) => text + encodeURIComponent(names[index - 1] ?? '') + piece)
}

function searchOf(query: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value))
  const text = search.toString()
  return text === '' ? '' : `?${text}`
}
