import type * as http from 'node:http'
import { AwsSim } from '../test/support/aws-sim/aws-sim.ts'

// The other side of puts, in a process of its own: the simulator of AWS, which may be told to take blocks without looking at them. Started by fork; a message
// in, an answer out.

/** 'checked': by the simulator. 'taken': whatever it is, it is there. */
export type PutMode = 'checked' | 'taken'

export type PutServerAsk = { readonly begin: PutMode } | 'counted'

/** Since the beginning. */
export interface PutsCounted {
  readonly count: number
  /** From the first answer to the last. */
  readonly seconds: number
  readonly cpuSeconds: number
  /** A snapshot was asked to be completed. */
  readonly isCompleted: boolean
}

const sim = await AwsSim.start({ putsPerSecondMax: 10_000 })
let mode: PutMode = 'checked'
let count = 0
let firstMillis = 0
let lastMillis = 0
let isCompleted = false
let cpuBefore = process.cpuUsage()

sim.beforeCall = (request, response) => {
  if (request.url?.includes('/completion/') === true) isCompleted = true
  if (request.method !== 'PUT') return false
  response.on('finish', () => {
    lastMillis = performance.now()
    if (count++ === 0) firstMillis = lastMillis
  })
  if (mode === 'checked') return false
  take(request, response)
  return true
}

function take(request: http.IncomingMessage, response: http.ServerResponse): void {
  const checksum = request.headers['x-amz-checksum'] ?? ''
  request.resume().on('end', () => {
    const headers = { 'x-amz-checksum': checksum, 'x-amz-checksum-algorithm': 'SHA256', 'content-length': 2 }
    response.writeHead(201, headers).end('{}')
  })
}

function counted(): PutsCounted {
  const { user, system } = process.cpuUsage(cpuBefore)
  const seconds = Math.max(0.001, (lastMillis - firstMillis) / 1000)
  return { count, seconds, cpuSeconds: (user + system) / 1e6, isCompleted }
}

process.on('message', (ask: PutServerAsk) => {
  if (ask !== 'counted') {
    mode = ask.begin
    count = 0
    isCompleted = false
    cpuBefore = process.cpuUsage()
  }
  process.send?.(counted())
})
process.send?.(sim.endpoint)
