import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import swagger from '@fastify/swagger'
import { fastify, type FastifyInstance, type FastifyRequest } from 'fastify'
import { Failure } from '../base/failure.ts'
import { noCompilers } from './compilers.ts'
import { answerToError } from './errors.ts'
import { contentSecurityPolicy, renderFacts, renderPage } from './page.ts'
import { components, jsonSchema, registerRoutes } from './routes.ts'
import type { VraControl } from './service.ts'

// The HTTP API, the status page and /metrics of one daemon.
//
// It has no authentication: who reaches it may read every status and write exports as the daemon's user. So it listens on loopback
// unless configured otherwise, and it refuses what a web page in a browser on the same host could make that browser send: requests under
// another host's name (DNS rebinding), requests from another origin, and bodies that are not declared as JSON.

export { AgentApi } from './agent-api.ts'
export { ControlClient } from './client.ts'
export { parseCheckpointReference, parseDuration, parseInstant, type CheckpointReference } from './reference.ts'

export interface ControlApiOptions {
  readonly host: string
  /** 0 takes any free port; see `url`. */
  readonly port: number
  readonly vra: VraControl
  /** The Prometheus text, made when it is asked for, and sent as it is made. */
  readonly metrics: () => AsyncIterable<string>
  /** Called when all is built and before the first request can come. */
  readonly beforeListening?: () => Promise<void>
  /** Told of requests that failed in a way that nobody expected: a bug. The request is answered with 500. */
  readonly onBug: (error: unknown, request: { readonly method: string; readonly url: string }) => void
}

const bodySizeBytesMax = 256 * 1024

export class ControlApi {
  /** Such as http://127.0.0.1:7421 */
  readonly url: string
  readonly #server: FastifyInstance

  private constructor(server: FastifyInstance, url: string) {
    this.#server = server
    this.url = url
  }

  /** Listens on return. A port that is taken is CONFIG_INVALID. */
  static async open(options: ControlApiOptions): Promise<ControlApi> {
    const server = await buildServer(options)
    await options.beforeListening?.()
    try {
      await server.listen({ host: options.host, port: options.port })
    } catch (error) {
      await server.close()
      const why = error instanceof Error ? error.message : String(error)
      const { host, port } = options
      throw new Failure('CONFIG_INVALID', `the control API cannot listen: ${why}`, { host, port }, { cause: error })
    }
    const { port } = server.server.address() as AddressInfo
    const host = options.host.includes(':') ? `[${options.host}]` : options.host
    return new ControlApi(server, `http://${host}:${port}`)
  }

  /** Answers what is under way, then closes every connection. */
  async close(): Promise<void> {
    await this.#server.close()
  }
}

async function buildServer(options: ControlApiOptions): Promise<FastifyInstance> {
  const server = fastify({
    logger: false,
    bodyLimit: bodySizeBytesMax,
    requestTimeout: 30_000,
    keepAliveTimeout: 10_000,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 256 },
    schemaController: noCompilers,
  })
  server.removeContentTypeParser('text/plain')
  server.addHook('onRequest', async request => refuseForeign(request, options.host))
  server.setErrorHandler((error, request, reply) => {
    const { httpStatus, retryAfterSeconds, body } = answerToError(error)
    if (body.code === 'INTERNAL_ERROR') options.onBug(error, { method: request.method, url: request.url })
    if (retryAfterSeconds !== undefined) void reply.header('retry-after', String(retryAfterSeconds))
    return reply.code(httpStatus).send(body)
  })
  server.setNotFoundHandler(request => {
    throw new Failure('NOT_FOUND', `there is no ${request.method} ${request.url.split('?')[0]} here; see /openapi.json`)
  })
  await documentApi(server)
  registerRoutes(server, options.vra)
  registerPlumbing(server, options)
  await server.ready()
  return server
}

async function documentApi(server: FastifyInstance): Promise<void> {
  for (const [name, schema] of Object.entries(components)) server.addSchema({ $id: name, ...jsonSchema(schema) })
  await server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'recovery-site VRA',
        version: '1',
        description:
          'Define what is protected, find checkpoints, get volumes back as of any of them. Times are microseconds since 1970, sizes bytes. ' +
          'There is no authentication: keep it on loopback, or behind something that knows your people.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, index) => String(json['$id'] ?? `schema-${index}`) },
  })
}

/** What is not part of the versioned API: the page, health, metrics, the API's own description. */
function registerPlumbing(server: FastifyInstance, { vra, metrics }: ControlApiOptions): void {
  const hidden = { schema: { hide: true } } as const
  server.get('/', hidden, async (_, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .header('content-security-policy', contentSecurityPolicy)
      .header('cache-control', 'no-store')
      .header('x-content-type-options', 'nosniff')
      .serializer(String)
      .send(renderPage(await vra.status())),
  )
  server.get('/facts', hidden, async (_, reply) =>
    reply
      .type('text/html; charset=utf-8')
      .header('cache-control', 'no-store')
      .serializer(String)
      .send(renderFacts(await vra.status())),
  )
  server.get('/metrics', hidden, async (_, reply) =>
    reply.type('text/plain; version=0.0.4; charset=utf-8').send(Readable.from(metrics())),
  )
  server.get('/openapi.json', hidden, async () => server.swagger())
  server.get('/healthz', hidden, async () => ({ alive: true }))
  server.get('/readyz', hidden, async (_, reply) => {
    const { ready, alerts } = await vra.status()
    return reply.code(ready ? 200 : 503).send({ ready, alerts })
  })
}

const localNames = ['localhost', '127.0.0.1', '[::1]']

/** See the head of this file. */
async function refuseForeign(request: FastifyRequest, listenHost: string): Promise<void> {
  const host = (request.headers.host ?? '').replace(/:\d+$/, '').toLowerCase()
  const loopback = listenHost === 'localhost' || listenHost === '::1' || listenHost.startsWith('127.')
  if (loopback && !localNames.includes(host) && host !== listenHost)
    throw new Failure('IDENTITY_REFUSED', `this API listens on loopback and answers no requests for "${host}"`, {
      host,
    })
  const { origin } = request.headers
  if (origin !== undefined && request.method !== 'GET' && origin !== `http://${request.headers.host}`)
    throw new Failure('IDENTITY_REFUSED', `requests from ${origin} are not taken`, { origin })
}
