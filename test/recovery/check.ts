import * as fs from 'node:fs'
import t from 'tap'
import { systemClock, type Clock } from '../../src/base/clock.ts'
import { drillOutputSizeBytesMax } from '../../src/base/limits.ts'
import { checkEnvironment, runCheck } from '../../src/recovery/check.ts'

// Real commands. None of them is waited for longer than it takes.

t.jobs = 4

const never = new AbortController().signal
const environment = { PATH: process.env['PATH'] ?? '' }
const patient = { environment, clock: systemClock, timeoutMillis: 100_000 }

t.test('it has passed where it ends with 0; what it says is kept, and told as it comes', async t => {
  const told: Buffer[] = []
  const command = 'echo sound; echo "$VRA_NBD_root" >&2'
  const own = { ...environment, VRA_NBD_root: 'nbd://x' }
  const run = { ...patient, command, environment: own, told: (chunk: Buffer) => void told.push(chunk) }
  const passed = await runCheck(run, never)
  t.match(passed, { outcome: 'passed', exitStatus: 0 })
  t.strictSame(passed.output?.split('\n').sort(), ['', 'nbd://x', 'sound'])
  t.equal(Buffer.concat(told).toString().length, passed.output?.length)
  t.match(await runCheck({ ...patient, command: 'echo bad blocks; exit 4' }, never), {
    ...{ outcome: 'failed', exitStatus: 4, output: 'bad blocks\n' },
  })
  t.match(await runCheck({ ...patient, command: 'kill -9 $$' }, never), { outcome: 'failed', exitStatus: undefined })
})

t.test('the end of what it says is kept, and steers no terminal', async t => {
  const command = `i=0; while [ $i -lt 3000 ]; do echo "line $i of many"; i=$((i+1)); done; printf '\\033[2Jlast'`
  const { output = '' } = await runCheck({ ...patient, command }, never)
  t.ok(Buffer.byteLength(output) <= drillOutputSizeBytesMax)
  t.match(output, /line 2999 of many\n \[2Jlast$/)
})

/** What the command writes of its process ids is read back: of none of them may there be a process. */
function survivors(file: string): string[] {
  const pids = fs.readFileSync(file, 'utf8').trim().split('\n')
  return pids.filter(pid => {
    // A zombie that nobody has waited for yet runs no more.
    const stat = fs.existsSync(`/proc/${pid}/stat`) ? fs.readFileSync(`/proc/${pid}/stat`, 'utf8') : ''
    return stat !== '' && !/\) [ZX] /.test(stat)
  })
}

t.test('one that takes too long is ended with all that it has started, whatever it ignores', async t => {
  const file = `${t.testdir()}/pids`
  const command = `trap '' TERM; (trap '' TERM; exec sleep 1000) & echo $! >${file}; echo $$ >>${file}; kill -TERM $$; wait; sleep 1000`
  // Time passes when both have started; then whoever is told to end is waited for no longer.
  const haveStarted = (): boolean =>
    fs.existsSync(file) && fs.readFileSync(file, 'utf8').trim().split('\n').length === 2
  const late = async (): Promise<void> => {
    while (!haveStarted()) await new Promise(resolve => setTimeout(resolve, 5))
  }
  let sleepCount = 0
  const sleep: Clock['sleep'] = (millis, signal) => (++sleepCount <= 2 ? late() : systemClock.sleep(millis, signal))
  const clock = { ...systemClock, sleep }
  const result = await runCheck({ ...patient, command, clock }, never)
  t.match(result, { outcome: 'timed-out' })
  t.strictSame(survivors(file), [])
})

t.test('what it leaves running ends with it, and does not hold it up', async t => {
  const file = `${t.testdir()}/pids`
  const result = await runCheck({ ...patient, command: `sleep 1000 & echo $! >${file}` }, never)
  t.match(result, { outcome: 'passed' })
  t.strictSame(survivors(file), [])
})

t.test('whoever stops it ends it', async t => {
  const stop = new AbortController()
  const told = (): void => stop.abort(new Error('stopped'))
  await t.rejects(runCheck({ ...patient, command: 'echo on; sleep 1000', told }, stop.signal), { message: 'stopped' })
  await t.rejects(runCheck({ ...patient, command: 'echo on' }, stop.signal), { message: 'stopped' })
})

t.test('the environment says where everything is', async t => {
  const things = [
    { vm: 'app1', volume: undefined, kind: 'ec2-instance', place: 'i-1' },
    { vm: 'app1', volume: 'root-1', kind: 'ebs-volume', place: 'vol-1' },
  ]
  const recovered = { id: 'r-1', vpg: 'web', target: 'aws', checkpoint: '3.7', checkpointTimestampMicros: 1e15, things }
  t.match(checkEnvironment(recovered), {
    ...{ VRA_EC2_INSTANCE_app1: 'i-1', VRA_EBS_VOLUME_root_1: 'vol-1', VRA_CHECKPOINT: '3.7', VRA_TARGET: 'aws' },
    ...{ VRA_VPG: 'web', VRA_RECOVERY: 'r-1', VRA_CHECKPOINT_TIME: '2001-09-09T01:46:40.000Z' },
    VRA_THINGS: JSON.stringify(things),
  })
})
