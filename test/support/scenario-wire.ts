import * as net from 'node:net'
import type { Test } from 'tap'

/** The link between an agent and its VRA, which can be cut: what was under way is lost, and nobody connects until it is mended. */
export class Wire {
  readonly port: number
  readonly #server: net.Server
  readonly #targetPort: number
  readonly #ends = new Set<net.Socket>()
  #isCut = false

  private constructor(server: net.Server, targetPort: number) {
    this.#server = server
    this.#targetPort = targetPort
    this.port = (server.address() as net.AddressInfo).port
    server.on('connection', near => this.#join(near))
  }

  static async open(t: Test, targetPort: number): Promise<Wire> {
    const server = net.createServer()
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const wire = new Wire(server, targetPort)
    t.teardown(() => wire.#close())
    return wire
  }

  cut(): void {
    this.#isCut = true
    for (const end of this.#ends) end.destroy()
  }

  /** Connections stay, and nothing comes through them any more, in either direction. New ones are as ever. */
  silence(): void {
    for (const end of this.#ends) end.unpipe().pause()
  }

  mend(): void {
    this.#isCut = false
  }

  #join(near: net.Socket): void {
    if (this.#isCut) {
      near.destroy()
      return
    }
    const far = net.connect({ host: '127.0.0.1', port: this.#targetPort })
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#ends.add(from)
      from.setNoDelay(true)
      from.on('error', () => undefined)
      from.on('close', () => {
        this.#ends.delete(from)
        to.destroy()
      })
      from.pipe(to)
    }
  }

  #close(): void {
    this.cut()
    this.#server.close()
  }
}
