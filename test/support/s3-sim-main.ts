import { mkdirSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { S3Simulator } from './s3-sim.ts'

// The simulator as a process of its own, for measurements:
//   node dist/test/support/s3-sim-main.js --port 0 --directory DIR|memory [--latency MILLIS] [--unchecked] [--until-stdin-ends]
// prints its port on the first line and serves until SIGTERM, or with --until-stdin-ends until its parent is gone. The bucket is "bucket", in any region; the
// access key is "test", with any secret. What is in it is forgotten when the process ends.

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    directory: { type: 'string', default: 'memory' },
    latency: { type: 'string', default: '0' },
    unchecked: { type: 'boolean', default: false },
    'until-stdin-ends': { type: 'boolean', default: false },
  },
})
if (values.directory !== 'memory') mkdirSync(values.directory, { recursive: true })
const simulator = await S3Simulator.start({
  port: Number(values.port),
  latencyMillis: Number(values.latency),
  digestsAreChecked: !values.unchecked,
  bodies: values.directory === 'memory' ? 'memory' : { directory: values.directory },
})
console.log(new URL(simulator.endpoint).port)
process.on('SIGTERM', () => process.exit(0))
if (values['until-stdin-ends']) process.stdin.on('end', () => process.exit(0)).resume()
