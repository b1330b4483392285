import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { NbdServer } from '../../src/nbd/nbd.ts'
import { MemoryExport } from '../support/nbd-memory-export.ts'
import { fioLacksNbd, missing, nbdUri, runTool } from '../support/nbd-tools.ts'

// Real clients against the server. What they check is what users run.

const MiB = 1024 * 1024

async function serve(t: Test, ...exports: MemoryExport[]): Promise<NbdServer> {
  const server = await NbdServer.open({ listen: { host: '127.0.0.1', port: 0 }, exports })
  t.teardown(() => server.close())
  return server
}

t.test('nbdinfo sees every export with its size, flags and context', { skip: missing('nbdinfo') }, async t => {
  const server = await serve(
    t,
    new MemoryExport('one', 3 * MiB + 512),
    new MemoryExport('two', 2 ** 43, { readOnly: true }),
  )
  const listed = await runTool('nbdinfo', '--list', '--json', nbdUri(server.address(), ''))
  t.equal(listed.status, 0, listed.output)
  const exports = JSON.parse(listed.output)['exports'] as Record<string, unknown>[]
  t.match(exports, [
    {
      'export-name': 'one',
      'export-size': 3 * MiB + 512,
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_trim: true,
      can_zero: true,
      can_multi_conn: true,
      can_df: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
      contexts: ['base:allocation'],
    },
    { 'export-name': 'two', 'export-size': 2 ** 43, is_read_only: true, can_trim: false },
  ])
})

t.test('nbdcopy brings a disk in and out unchanged, over four connections', { skip: missing('nbdcopy') }, async t => {
  const directory = t.testdir()
  const [input, output] = [path.join(directory, 'in'), path.join(directory, 'out')]
  const bytes = Buffer.concat([randomBytes(5 * MiB + 512), Buffer.alloc(7 * MiB), randomBytes(3 * MiB)])
  fs.writeFileSync(input, bytes)
  const disk = new MemoryExport('disk', bytes.length)
  const server = await serve(t, disk)
  const uri = nbdUri(server.address(), 'disk')
  const into = await runTool('nbdcopy', '--flush', '--connections=4', input, uri)
  t.equal(into.status, 0, into.output)
  t.ok(disk.calls.includes('flush'))
  const out = await runTool('nbdcopy', '--connections=4', '--request-size=16777216', uri, output)
  t.equal(out.status, 0, out.output)
  t.ok(fs.readFileSync(output).equals(bytes), 'every byte is back')
  t.ok(disk.pages.size * 4096 < 9 * MiB, 'zeros took no space')
})

t.test('qemu-io writes with FUA, zeroes, discards and maps', { skip: missing('qemu-io', 'qemu-img') }, async t => {
  const disk = new MemoryExport('disk', 64 * MiB)
  const server = await serve(t, disk)
  const uri = nbdUri(server.address(), 'disk')
  const commands = [
    'write -f -P 0x11 0 1M',
    'write -P 0x22 1M 32M',
    'write -P 0x33 12345 777',
    'write -z -u 2M 64k',
    'write -z 4M 64k',
    'discard 8M 1M',
    'flush',
    'read -P 0x11 0 12345',
    'read -P 0x33 12345 777',
    'read -P 0 2M 64k',
    'read -P 0 4M 64k',
    'read -P 0 8M 1M',
    'read -P 0x22 9M 24M',
  ]
  const io = await runTool('qemu-io', '-t', 'none', '-f', 'raw', ...commands.flatMap(each => ['-c', each]), uri)
  t.equal(io.status, 0, io.output)
  t.notMatch(io.output, /failed|Pattern verification/i)
  for (const call of ['write-fua', 'zero', 'zero-no-hole', 'trim', 'flush']) t.ok(disk.calls.includes(call), call)
  const map = await runTool('qemu-img', 'map', '--output=json', '-f', 'raw', uri)
  t.equal(map.status, 0, map.output)
  const runs = JSON.parse(map.output) as { start: number; length: number; zero: boolean }[]
  const zeroBytes = runs.filter(run => run.zero).reduce((sum, run) => sum + run.length, 0)
  t.equal(zeroBytes, 64 * MiB - disk.pages.size * 4096, 'the map is the disk')
})

t.test('fio verifies what it wrote at random, 32 deep', { skip: missing('fio') || fioLacksNbd() }, async t => {
  const directory = t.testdir()
  const server = await serve(t, new MemoryExport('disk', 32 * MiB))
  const job = [
    '--name=v',
    '--ioengine=nbd',
    `--uri=${nbdUri(server.address(), 'disk')}`,
    '--size=32M',
    '--rw=randwrite',
  ]
  const verify = ['--bsrange=4k-256k', '--iodepth=32', '--verify=crc32c', '--do_verify=1', '--randseed=7', '--fsync=16']
  const run = await runTool('fio', ...job, ...verify, `--aux-path=${directory}`)
  t.equal(run.status, 0, run.output)
})
