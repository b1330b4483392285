import { fork, spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { NbdListen } from '../../src/nbd/nbd.ts'
import { Site } from '../support/agent-site.ts'
import { eventually, missing, nbdUri, runTool } from '../support/nbd-tools.ts'

// Everything that touches the mounted disk is another process, with a time limit: a process that waits for a disk which it serves
// itself waits for ever.

/** A reason to skip where a disk cannot be mounted here. */
function cannotMount(): string | false {
  if (process.getuid?.() !== 0) return 'mounting takes root'
  if (!fs.existsSync('/dev/fuse') || !fs.existsSync('/dev/loop-control')) return 'no /dev/fuse or /dev/loop-control'
  return missing('nbdfuse', 'losetup', 'mkfs.ext4', 'e2fsck', 'mount', 'timeout')
}

const MiB = 1024 * 1024

const fillAndCheck = `
set -e
cd "$1"
for i in $(seq 40); do head -c $((i * 7777)) /dev/urandom > file-$i; done
sha256sum file-* > sums
for i in $(seq 3 5 40); do rm file-$i; mkdir dir-$i; cp file-$((i + 1)) dir-$i/copy; done
sync -f sums
echo 3 > /proc/sys/vm/drop_caches || true
sha256sum --quiet --ignore-missing -c sums
`

t.test('a real ext4 on an agent’s disk is whole, there and at the VRA', { skip: cannotMount() }, async t => {
  const directory = t.testdir({ fuse: { disk: '' }, mnt: {} })
  const site = await Site.create(directory, ['a'], 64 * MiB)
  const agent = fork(fileURLToPath(new URL('../support/agent-process.js', import.meta.url)), {
    env: { ...process.env, AGENT_CONFIG: JSON.stringify(site.config()) },
  })
  const agentEnded = new Promise(resolve => agent.once('exit', resolve))
  const address = await new Promise<NbdListen>(resolve => agent.once('message', resolve as never))
  const fuseFile = path.join(directory, 'fuse', 'disk')
  const mountPoint = path.join(directory, 'mnt')
  const fuse = spawn('nbdfuse', [fuseFile, nbdUri(address, 'a')], { stdio: 'ignore' })
  const fuseEnded = new Promise(resolve => fuse.once('exit', resolve))
  const isMounted = (at: string): boolean => fs.readFileSync('/proc/mounts', 'utf8').includes(` ${at} `)
  const run = (...command: string[]): ReturnType<typeof runTool> => runTool('timeout', '-k', '1', '110', ...command)
  let loop: string | undefined
  let mountedHere = false
  try {
    await eventually('nbdfuse is mounted', () => isMounted(fuseFile) || fuse.exitCode !== null)
    const attached = await run('losetup', '--find', '--show', '--direct-io=on', fuseFile)
    if (attached.status !== 0) return t.comment(`no loop device to be had here: ${attached.output}`)
    loop = attached.output.trim()
    const made = await run('mkfs.ext4', '-q', '-F', loop)
    t.equal(made.status, 0, made.output)
    const mounted = await run('mount', loop, mountPoint)
    mountedHere = mounted.status === 0
    t.ok(mountedHere, mounted.output)
    const filled = await run('sh', '-c', fillAndCheck, 'sh', mountPoint)
    t.equal(filled.status, 0, filled.output)
  } finally {
    if (isMounted(mountPoint)) await run('umount', mountPoint)
    if (loop !== undefined) await run('losetup', '-d', loop)
    for (let tries = 0; tries < 20 && isMounted(fuseFile); tries++) await run('umount', fuseFile)
    if (fuse.exitCode === null) fuse.kill()
    await fuseEnded
    agent.send('stop')
    await agentEnded
    await site.vra.kill()
  }
  if (!mountedHere) return
  t.same(site.vra.faults, [])
  t.same(site.differences(), [], 'the stream made the same disk')
  const checked = await run('e2fsck', '-fn', site.pathOf('a'))
  t.equal(checked.status, 0, checked.output)
})
