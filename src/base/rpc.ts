import type { MessagePort, Transferable, Worker } from 'node:worker_threads'
import { Failure, failureFromRecord, failureToRecord, type FailureRecord } from './failure.ts'

// Calls between threads. A service is an object of methods that take one structured-cloneable argument and return a
// promise; its client on the other side has the same type. Notices go one way and are not answered.

export type RpcMethods<S> = {
  [K in keyof S]: S[K] extends (argument: infer A) => Promise<infer R> ? (argument: A) => Promise<R> : never
}

interface CallMessage {
  readonly type: 'call'
  readonly id: number
  readonly method: string
  readonly argument: unknown
}
interface ReplyMessage {
  readonly type: 'reply'
  readonly id: number
  readonly value?: unknown
  readonly failure?: FailureRecord
  readonly bug?: string
}
interface NoticeMessage {
  readonly type: 'notice'
  readonly name: string
  readonly value: unknown
}
type Message = CallMessage | ReplyMessage | NoticeMessage

type Port = Pick<MessagePort | Worker, 'postMessage' | 'on'>

/** Answers calls that arrive on `port` with the methods of `service`, and returns what posts notices to the caller. */
export function serveRpc<S extends object>(port: Port, service: RpcMethods<S>): (name: string, value: unknown) => void {
  const methods = service as Record<string, (argument: unknown) => Promise<unknown>>
  port.on('message', (message: Message) => {
    if (message.type !== 'call') return
    const method = methods[message.method]
    const reply = (outcome: Omit<ReplyMessage, 'type' | 'id'>): void =>
      port.postMessage({ type: 'reply', id: message.id, ...outcome } satisfies ReplyMessage)
    if (method === undefined) {
      reply({ bug: `no such method: ${message.method}` })
      return
    }
    Promise.resolve()
      .then(() => method.call(service, message.argument))
      .then(
        value => reply({ value }),
        (error: unknown) => {
          if (error instanceof Failure) reply({ failure: failureToRecord(error) })
          else reply({ bug: error instanceof Error ? (error.stack ?? error.message) : String(error) })
        },
      )
  })
  return (name, value) => port.postMessage({ type: 'notice', name, value } satisfies NoticeMessage)
}

/**
 * A client of the service at the other end of `port`. A Failure there is a Failure here, same code and details; any
 * other error there is a bug and rejects with its stack. When the other end exits, calls under way fail PEER_LOST.
 */
export class RpcClient<S extends object> {
  readonly #port: Port
  readonly #waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  #nextId = 1
  #closed = false

  constructor(port: Port, onNotice: (name: string, value: unknown) => void = () => undefined) {
    this.#port = port
    port.on('message', (message: Message) => {
      if (message.type === 'notice') onNotice(message.name, message.value)
      else if (message.type === 'reply') this.#settle(message)
    })
    const lost = (): void => this.#lose()
    port.on('exit' as 'close', lost)
    port.on('close', lost)
  }

  call<K extends keyof S & string>(
    method: K,
    argument: S[K] extends (argument: infer A) => Promise<unknown> ? A : never,
    transfer: readonly Transferable[] = [],
  ): S[K] extends (argument: never) => Promise<infer R> ? Promise<R> : never {
    const answer = new Promise<unknown>((resolve, reject) => {
      if (this.#closed) {
        reject(new Failure('PEER_LOST', `the thread that serves "${method}" has ended`))
        return
      }
      const id = this.#nextId++
      this.#waiting.set(id, { resolve, reject })
      this.#port.postMessage({ type: 'call', id, method, argument } satisfies CallMessage, transfer as Transferable[])
    })
    return answer as S[K] extends (argument: never) => Promise<infer R> ? Promise<R> : never
  }

  #settle(message: ReplyMessage): void {
    const waiting = this.#waiting.get(message.id)
    if (waiting === undefined) return
    this.#waiting.delete(message.id)
    if (message.failure !== undefined) waiting.reject(failureFromRecord(message.failure))
    else if (message.bug !== undefined) waiting.reject(new Error(message.bug))
    else waiting.resolve(message.value)
  }

  #lose(): void {
    this.#closed = true
    for (const { reject } of this.#waiting.values())
      reject(new Failure('PEER_LOST', 'the thread that was asked has ended'))
    this.#waiting.clear()
  }
}
