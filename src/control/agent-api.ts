import type { AddressInfo } from 'node:net'
import { fastify, type FastifyInstance } from 'fastify'
import { Failure } from '../base/failure.ts'
import { noCompilers } from './compilers.ts'

export interface AgentApiOptions {
  readonly host: string
  /** 0 takes any free port; see `url`. */
  readonly port: number
  /** Plain data, as it goes into JSON. */
  readonly status: () => object
  readonly metrics: () => Promise<string>
}

/** What an agent tells on its own host, whether or not the VRA can be reached: GET /v1/status, /metrics and /healthz. It only tells. */
export class AgentApi {
  readonly url: string
  readonly #server: FastifyInstance

  private constructor(server: FastifyInstance, url: string) {
    this.#server = server
    this.url = url
  }

  /** Listens on return. A port that is taken is CONFIG_INVALID. */
  static async open({ host, port, status, metrics }: AgentApiOptions): Promise<AgentApi> {
    const server = fastify({
      logger: false,
      bodyLimit: 1024,
      requestTimeout: 30_000,
      forceCloseConnections: true,
      schemaController: noCompilers,
    })
    server.setNotFoundHandler((request, reply) => {
      const sentence = `there is no ${request.method} ${request.url.split('?')[0]} here; GET /v1/status, /metrics and /healthz are`
      return reply.code(404).send({ code: 'NOT_FOUND', sentence, details: {} })
    })
    server.get('/v1/status', async () => status())
    server.get('/metrics', async (_, reply) =>
      reply.type('text/plain; version=0.0.4; charset=utf-8').send(await metrics()),
    )
    server.get('/healthz', async () => ({ alive: true }))
    try {
      await server.listen({ host, port })
    } catch (error) {
      await server.close()
      const why = error instanceof Error ? error.message : String(error)
      throw new Failure(
        'CONFIG_INVALID',
        `the agent's status cannot be served: ${why} (control.port, --control-port)`,
        { host, port },
        { cause: error },
      )
    }
    const address = server.server.address() as AddressInfo
    return new AgentApi(server, `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`)
  }

  async close(): Promise<void> {
    await this.#server.close()
  }
}
