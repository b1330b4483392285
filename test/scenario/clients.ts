import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { MiB } from '../../src/base/units.ts'
import { firstDifference } from '../../src/demo/compare.ts'
import { fioLacksNbd, missing, nbdUri, runTool } from '../support/nbd-tools.ts'
import { cannotMount, mustRun, run, ServedDisk, unmount } from '../support/scenario-mount.ts'
import { Scenario, type AgentSite } from '../support/scenario-site.ts'

// Real clients write through a real agent to a real VRA, and what comes back is what they wrote.

const sizeBytes = 64 * MiB

async function protectedDisk(t: Test): Promise<{ scenario: Scenario; agent: AgentSite; uri: string }> {
  const scenario = await Scenario.make(t)
  await scenario.startVra()
  const agent = await scenario.placeAgent({ agentId: 'host', vpg: 'web', volumes: { root: sizeBytes } })
  await scenario.createVpg(agent.plan)
  await agent.start()
  await scenario.untilConnected('web')
  return { scenario, agent, uri: nbdUri({ host: '127.0.0.1', port: agent.nbdPort }, 'root') }
}

async function tool(t: Test, program: string, ...args: readonly string[]): Promise<string> {
  const { status, output } = await runTool(program, ...args)
  t.equal(status, 0, `${program} ${args[0]}: ${output.slice(-500)}`)
  return output
}

t.test(
  'nbdinfo sees the disk, nbdcopy fills it and copies it back',
  { skip: missing('nbdinfo', 'nbdcopy') },
  async t => {
    const { scenario, agent, uri } = await protectedDisk(t)
    t.match(JSON.parse(await tool(t, 'nbdinfo', '--json', uri)), {
      exports: [{ 'export-size': sizeBytes, is_read_only: false, can_flush: true, can_fua: true, can_trim: true }],
    })
    const source = scenario.file('source.img')
    // Data, holes and data that repeats.
    await mustRun('dd', 'if=/dev/urandom', `of=${source}`, 'bs=1M', 'count=20', 'status=none')
    await mustRun(
      'dd',
      'if=/usr/bin/node',
      `of=${source}`,
      'bs=1M',
      'count=16',
      'seek=30',
      'conv=notrunc',
      'status=none',
    ).catch(() => undefined)
    fs.truncateSync(source, sizeBytes)
    await tool(t, 'nbdcopy', '--flush', source, uri)
    await scenario.tag('web', 'copied')
    t.equal(await scenario.differenceAt('web', 'root', 'copied', source), undefined, 'the image is the source')
    const back = scenario.file('back.img')
    await tool(t, 'nbdcopy', uri, back)
    t.equal(await firstDifference(back, source), undefined, 'and so is the disk')
    t.equal((await scenario.vpg('web')).state, 'protected', 'the agent’s queue did not overflow')
    t.ok(agent.process?.isRunning)
  },
)

t.test('qemu-io: patterns, FUA, zeroes, discards, unaligned', { skip: missing('qemu-io') }, async t => {
  const { scenario, agent, uri } = await protectedDisk(t)
  const qemuIo = (...commands: string[]): Promise<string> =>
    tool(t, 'qemu-io', '-f', 'raw', ...commands.flatMap(command => ['-c', command]), uri)
  await qemuIo('write -P 0x11 0 8M', 'write -f -P 0x22 1M 512k', 'write -z 2M 1M', 'write -z -u 3M 512k', 'flush')
  await scenario.tag('web', 'first')
  const first = agent.reference('root')
  await qemuIo('discard 4M 2M', 'write -f -P 0x33 4095k 66k', 'write -P 0x44 63M 1M', 'write -P 0x55 7000 321', 'flush')
  await scenario.tag('web', 'second')
  t.equal(await scenario.differenceAt('web', 'root', 'first', first), undefined)
  t.equal(await scenario.differenceAt('web', 'root', 'second', agent.disk('root')), undefined)
  const image = await scenario.exported('web', 'root', 'second')
  const read = await tool(
    t,
    'qemu-io',
    '-r',
    '-f',
    'raw',
    ...['read -P 0x11 0 7000', 'read -P 0x55 7000 321', 'read -P 0x22 1M 512k', 'read -P 0 2M 1536k'].flatMap(c => [
      '-c',
      c,
    ]),
    ...['read -P 0x33 4095k 66k', 'read -P 0 4161k 1983k', 'read -P 0x11 6M 2M', 'read -P 0x44 63M 1M'].flatMap(c => [
      '-c',
      c,
    ]),
    image,
  )
  t.notMatch(read, /Pattern verification failed/, 'the image holds what was written, by an independent reader')
})

t.test(
  'fio writes with checksums of its own, and verifies them in the image',
  { skip: missing('fio') || fioLacksNbd() },
  async t => {
    const { scenario, agent, uri } = await protectedDisk(t)
    const job = (engine: readonly string[], ...more: readonly string[]): Promise<string> =>
      tool(
        t,
        'fio',
        '--name=load',
        ...engine,
        '--rw=randwrite',
        '--bsrange=4k-64k',
        `--size=${sizeBytes}`,
        '--io_size=48m',
        '--randseed=7',
        '--verify=crc32c',
        '--verify_fatal=1',
        `--aux-path=${scenario.directory}`,
        ...more,
      )
    await job(['--ioengine=nbd', `--uri=${uri}`], '--iodepth=16', '--fsync=32', '--do_verify=1')
    await scenario.tag('web', 'fio')
    t.equal(await scenario.differenceAt('web', 'root', 'fio', agent.disk('root')), undefined)
    const image = await scenario.exported('web', 'root', 'fio')
    await job(['--ioengine=psync', `--filename=${image}`], '--verify_only=1')
  },
)

const fill = `
set -e
cd "$1"
mkdir -p "$2"
for i in $(seq 30); do head -c $((i * 5501)) /dev/urandom > "$2/file-$i"; done
[ "$2" = one ] || rm -rf one/file-1*
( find . -type f ! -name sums ! -name sums.new -print0 | sort -z | xargs -0 sha256sum ) > sums.new
mv sums.new sums
sync -f sums
`

t.test(
  'a real ext4 through losetup: tagged, exported, checked, and its files read',
  {
    skip: cannotMount('nbdfuse', 'e2fsck', 'sha256sum') || (!fs.existsSync('/dev/fuse') && 'no /dev/fuse'),
  },
  async t => {
    const { scenario, uri } = await protectedDisk(t)
    const outside = fs.mkdtempSync(path.join(os.tmpdir(), 'vra-clients-'))
    const mountPoint = path.join(outside, 'mnt')
    fs.mkdirSync(mountPoint)
    const disk = await ServedDisk.open(path.join(outside, 'fuse'), uri)
    const sums = new Map<string, string>()
    try {
      const loop = await disk.attach()
      if (loop === undefined) return void t.pass('a loop device', { skip: 'none is to be had here' })
      await mustRun('mkfs.ext4', '-q', '-F', loop)
      await mustRun('mount', loop, mountPoint)
      for (const tag of ['one', 'two', 'three']) {
        await mustRun('sh', '-c', fill, 'sh', mountPoint, tag)
        sums.set(tag, fs.readFileSync(path.join(mountPoint, 'sums'), 'utf8'))
        await scenario.tag('web', tag)
      }
      await mustRun('sh', '-c', 'rm -r "$1"/*', 'sh', mountPoint)
      await unmount(mountPoint)
      await disk.close()
      for (const [tag, expected] of sums) {
        const image = await scenario.exported('web', 'root', tag)
        // A crash-consistent disk: its journal is replayed first, as a mount after a power cut does.
        const replayed = await run('e2fsck', '-fy', image)
        t.ok(replayed.status <= 1, `${tag}: ${replayed.output}`)
        const checked = await run('e2fsck', '-fn', image)
        t.equal(checked.status, 0, `${tag}: nothing is wrong with it: ${checked.output}`)
        await mustRun('mount', '-o', 'loop,ro', image, mountPoint)
        t.equal(fs.readFileSync(path.join(mountPoint, 'sums'), 'utf8'), expected, `${tag}: the list of files`)
        const compared = await run('sh', '-c', 'cd "$1" && sha256sum --quiet --strict -c sums', 'sh', mountPoint)
        t.equal(compared.status, 0, `${tag}: every file: ${compared.output}`)
        await unmount(mountPoint)
      }
    } finally {
      await unmount(mountPoint)
      await disk.close()
      fs.rmSync(outside, { recursive: true })
    }
  },
)
