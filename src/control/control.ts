import { Failure } from '../base/failure.ts'
import type { VraControl } from './service.ts'

export interface ControlApiOptions {
  readonly host: string
  readonly port: number
  readonly vra: VraControl
  /** The Prometheus text, made when it is asked for. */
  readonly metrics: () => Promise<string>
  /** Told of requests that failed in a way that nobody expected: a bug. */
  readonly onBug: (error: Error, request: { readonly method: string; readonly url: string }) => void
}

export class ControlApi {
  readonly url: string

  private constructor(url: string) {
    this.url = url
  }

  static async open(options: ControlApiOptions): Promise<ControlApi> {
    throw new Failure('BUSY', `the control API cannot listen on ${options.host} yet`)
  }

  async close(): Promise<void> {}
}
