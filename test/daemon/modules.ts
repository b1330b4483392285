import { execFileSync } from 'node:child_process'
import t from 'tap'

// What a start waits for. The SDK of AWS takes most of a second of processor time to load; the threads that speak to AWS load
// it, and the one that acknowledges does not. The HTTP API is loaded beside the threads' opening.

const entry = new URL('../../src/daemon/vra.js', import.meta.url)

t.test('the thread that acknowledges begins without the SDK of AWS and without the HTTP API', async t => {
  const script = `
    import nodeModule from 'node:module'
    await import(${JSON.stringify(entry.href)})
    console.log(JSON.stringify(Object.keys(nodeModule._cache)))`
  const { NODE_OPTIONS: _, ...env } = process.env
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', script], { env, encoding: 'utf8' })
  const loaded = JSON.parse(output) as string[]
  const has = (name: RegExp): string[] => loaded.filter(file => name.test(file))
  t.ok(has(/[\\/]lz4[\\/]/).length > 0, 'what is loaded is seen')
  t.same(has(/[\\/](@aws-sdk|@smithy|fastify)[\\/]/), [])
})
