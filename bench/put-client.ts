import * as http from 'node:http'
import { KiB } from '../src/base/units.ts'

// The least that puts of blocks can cost here: bodies of 512 KiB by node's own HTTP, of which nothing is hashed or signed. node put-client.js ENDPOINT COUNT AT_ONCE prints
// what it took, as JSON.

export interface BarePuts {
  readonly seconds: number
  readonly cpuSeconds: number
}

const [endpoint = '', count = '0', atOnce = '1'] = process.argv.slice(2)
const block = Buffer.alloc(512 * KiB, 0x5a)
const agent = new http.Agent({ keepAlive: true, maxSockets: Number(atOnce) })

async function put(index: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const url = `${endpoint}/snapshots/snap-0123456789abcdef0/blocks/${index}`
    const headers = { 'content-length': block.length }
    const request = http.request(url, { agent, method: 'PUT', headers }, response => {
      response.resume().on('end', resolve)
    })
    request.on('error', reject)
    request.end(block)
  })
}

async function run(total: number): Promise<void> {
  let next = 0
  const putter = async (): Promise<void> => {
    while (next < total) await put(next++)
  }
  await Promise.all(Array.from({ length: Number(atOnce) }, putter))
}

await run(Number(atOnce)) // the sockets, and the compiler
const cpuBefore = process.cpuUsage()
const startMillis = performance.now()
await run(Number(count))
const { user, system } = process.cpuUsage(cpuBefore)
const puts: BarePuts = {
  seconds: (performance.now() - startMillis) / 1000,
  cpuSeconds: (user + system) / 1e6,
}
console.log(JSON.stringify(puts))
agent.destroy()
