import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { openVolumeFile, openVolumeFileToRead } from '../../src/disk/disk.ts'

const run = promisify(execFile)

t.test('what cannot be a disk is refused in words', t => {
  const directory = t.testdir({ empty: '', odd: 'x'.repeat(513) })
  const refused = (name: string, words: RegExp): unknown =>
    t.throws(() => openVolumeFile(path.join(directory, name)), { code: 'CONFIG_INVALID', message: words })
  refused('missing', /there is no such file or device/)
  refused('empty', /0 bytes/)
  refused('odd', /513 bytes/)
  refused('.', /cannot be opened|neither a file nor a block device/)
  t.throws(() => openVolumeFile('/dev/null'), { code: 'CONFIG_INVALID', message: /neither a file nor a block device/ })
  t.end()
})

t.test('a file that is not claimed may be opened twice', async t => {
  const file = path.join(t.testdir({ disk: 'x'.repeat(512) }), 'disk')
  const first = openVolumeFile(file)
  const second = openVolumeFile(file)
  t.same([first.sizeBytes, second.sizeBytes], [512, 512])
  await Promise.all([first.close(), second.close()])
})

t.test('a file of no blocks is believed to be empty only where the file system counts all that it holds', async t => {
  const directory = t.testdir({ written: 'x'.repeat(512) })
  fs.writeFileSync(path.join(directory, 'sparse'), '')
  fs.truncateSync(path.join(directory, 'sparse'), 1024 * 1024)
  const isOneHole = async (file: string): Promise<boolean> => {
    const opened = openVolumeFileToRead(file)
    await opened.close()
    return opened.isOneHole
  }
  const counts = [0xef53, 0x58465342, 0x01021994].includes(fs.statfsSync(directory).type)
  t.equal(await isOneHole(path.join(directory, 'sparse')), counts)
  t.equal(await isOneHole(path.join(directory, 'written')), false)
  // A page of text that is said to have no blocks.
  const ofKernel = ['/sys/kernel/uevent_seqnum', '/sys/kernel/profiling'].find(file => fs.existsSync(file))
  if (ofKernel === undefined) return t.comment('no /sys here')
  t.equal(fs.statSync(ofKernel).blocks, 0)
  t.equal(await isOneHole(ofKernel), false)
})

t.test('a block device that somebody holds is refused, and is to be had when he has let go', async t => {
  const file = path.join(t.testdir({ disk: 'x'.repeat(1024 * 1024) }), 'disk')
  const device = await run('losetup', ['--find', '--show', file]).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  )
  if (device === undefined) return t.pass('no loop device is to be had here')
  t.teardown(() => run('losetup', ['--detach', device]))
  const first = openVolumeFile(device)
  t.equal(first.sizeBytes, 1024 * 1024)
  t.throws(() => openVolumeFile(device), { code: 'CONFIG_INVALID', message: /in use: mounted/ })
  await first.close()
  await openVolumeFile(device).close()
})
