import { execFileSync, spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import { runVra } from '../support/scenario-role.ts'
import { Scenario } from '../support/scenario-site.ts'
import { foreignConversation } from '../support/wire-foreign-client.ts'

// A client that shares no line with this program, against the real daemon: everything that the specification promises to it.

const protoDirectory = path.resolve(import.meta.dirname, '../../../proto')

function works(command: string, ...argv: string[]): boolean {
  try {
    execFileSync(command, argv, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const python = ['python3', '/usr/bin/python3'].find(candidate => works(candidate, '-c', 'import google.protobuf'))
const missing = !works('protoc', '--version')
  ? 'protoc is not installed'
  : python === undefined && 'the protobuf package of Python is not installed'

/** The client's facts, put together; `onWaiting` is called when it waits for a request of the VRA. */
async function converse(argv: readonly string[], onWaiting: () => void): Promise<Record<string, unknown>> {
  const client = spawn(python ?? 'python3', argv, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 300_000 })
  let said = ''
  client.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const ended = new Promise<number | null>(resolve => client.once('close', resolve))
  let facts: Record<string, unknown> = {}
  for await (const line of createInterface({ input: client.stdout })) {
    const fact = JSON.parse(line) as Record<string, unknown>
    if (fact['waiting'] === true) onWaiting()
    facts = { ...facts, ...fact }
  }
  const status = await ended
  if (status !== 0) throw new Error(`the client ended with ${status} after ${JSON.stringify(facts)}: ${said}`)
  return facts
}

async function holds(t: Test, scenario: Scenario, certs?: string): Promise<void> {
  await scenario.createVpg({ agentId: 'foreign', vpg: 'raw', volumes: { root: 1 * MiB } })
  const references = scenario.file('references')
  const generated = scenario.file('generated')
  for (const directory of [references, generated]) fs.mkdirSync(directory)
  execFileSync('protoc', [`--python_out=${generated}`, `--proto_path=${protoDirectory}`, 'vra.proto'])
  const program = path.join(generated, 'client.py')
  fs.writeFileSync(program, foreignConversation)
  const argv = [program, String(scenario.agentsPort), references, ...(certs === undefined ? [] : [certs])]
  let tagging: Promise<unknown> | undefined
  const facts = await converse(argv, () => (tagging = scenario.control.tagCheckpoint({ vpg: 'raw', tag: 'asked-for' })))
  t.strictSame(facts, {
    unknownVpg: 'UNKNOWN_VPG',
    stranger: 'IDENTITY_REFUSED',
    otherSize: 'UNKNOWN_VOLUME',
    durable: true,
    resumedAt: true,
    duplicatesDropped: true,
    gap: 'SEQUENCE_GAP',
    straddle: 'SEQUENCE_GAP',
    checksum: 'FRAME_INVALID',
    pastTheEnd: 'OUT_OF_BOUNDS',
    neverSent: 'SYNC_REQUIRED',
    nothingStored: true,
    superseded: 'SESSION_SUPERSEDED',
    olderNumber: 'SESSION_SUPERSEDED',
    creditRose: true,
    waiting: true,
    counters: 4,
  })
  t.match(await tagging, { checkpoint: '1.4', tags: ['asked-for'] }, 'it answered the request for a checkpoint')
  const list = await scenario.control.listCheckpoints({ vpg: 'raw', limit: 100, order: 'oldest-first' })
  t.strictSame(
    list.checkpoints.map(({ checkpoint, recoverable }) => [checkpoint, recoverable]),
    ['1.1', '1.2', '1.3', '1.4'].map(id => [id, true]),
    'its markers are checkpoints',
  )
  for (const { checkpoint } of list.checkpoints) {
    const reference = path.join(references, checkpoint.split('.')[1] ?? '')
    t.equal(await scenario.differenceAt('raw', 'root', checkpoint, reference), undefined, `${checkpoint} is its model`)
  }
  t.same((await scenario.vpg('raw')).holes, [], 'every payload of its decompresses')
}

t.test('over plain TCP', { skip: missing }, async t => {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  await holds(t, scenario)
})

t.test('over TLS, with a certificate of `vra certs`', { skip: missing }, async t => {
  const scenario = await Scenario.make(t)
  const certs = path.join(scenario.directory, 'certs')
  for (const argv of [['init'], ['issue', 'server', 'vra', '--host', '127.0.0.1'], ['issue', 'client', 'foreign']]) {
    const made = await runVra(['certs', ...argv, '--directory', certs])
    t.equal(made.status, 0, made.stderr)
  }
  scenario.writeVraConfig({
    listen: `tls: { certificateFile: ${certs}/vra.crt, privateKeyFile: ${certs}/vra.key, authorityFile: ${certs}/authority.crt }`,
  })
  await scenario.startVra()
  await holds(t, scenario, certs)
})
