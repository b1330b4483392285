import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { blockDeviceWrites, type KernelFiles } from '../../src/disk/block-device.ts'

// A tree as the kernel's: the directory of each device below its disk's, and links by number.

const device = (major: number, minor: number): number => major * 256 + minor

interface Told {
  readonly boot?: string
  readonly written?: number
  readonly discarded?: number
  readonly ofPartition?: number
  readonly iostats?: string
  /** Undefined: the kernel has none. */
  readonly diskseq?: string | undefined
  readonly name?: string
}

function stat(written: number, discarded: number): string {
  return ` 10 0 80 1 20 0 ${written} 2 0 3 3 4 0 ${discarded} 5 6 7\n`
}

function kernel(directory: string, told: Told): KernelFiles {
  const { boot = 'b1', written = 8, discarded = 0, ofPartition = 8, iostats = '1', name = 'sda' } = told
  const { diskseq } = { diskseq: '5', ...told }
  const [sys, proc] = [path.join(directory, 'sys'), path.join(directory, 'proc')]
  const disk = path.join(sys, 'devices', name)
  const partition = path.join(disk, `${name}1`)
  for (const made of [partition, path.join(disk, 'queue'), path.join(sys, 'dev', 'block')])
    fs.mkdirSync(made, { recursive: true })
  fs.mkdirSync(path.join(proc, 'sys', 'kernel', 'random'), { recursive: true })
  fs.writeFileSync(path.join(proc, 'sys', 'kernel', 'random', 'boot_id'), `${boot}\n`)
  fs.writeFileSync(path.join(disk, 'stat'), stat(written, discarded))
  if (diskseq !== undefined) fs.writeFileSync(path.join(disk, 'diskseq'), `${diskseq}\n`)
  fs.writeFileSync(path.join(disk, 'queue', 'iostats'), `${iostats}\n`)
  fs.writeFileSync(path.join(partition, 'partition'), '1\n')
  fs.writeFileSync(path.join(partition, 'stat'), stat(ofPartition, 0))
  fs.symlinkSync(`../../devices/${name}`, path.join(sys, 'dev', 'block', '8:0'))
  fs.symlinkSync(`../../devices/${name}/${name}1`, path.join(sys, 'dev', 'block', '8:1'))
  return { sys, proc }
}

t.test('what was written to a block device is told by its counts, in one boot and one attachment', async t => {
  const writesOf = (told: Told, minor = 0): string => blockDeviceWrites(device(8, minor), kernel(t.testdir(), told))
  const before = writesOf({})
  t.not(before, '')
  t.equal(writesOf({}), before)
  for (const change of [{ boot: 'b2' }, { diskseq: '6' }, { written: 16 }, { discarded: 8 }])
    t.not(writesOf(change), before, JSON.stringify(change))
  t.not(writesOf({ written: 16 }, 1), writesOf({}, 1), 'a partition is written to through its disk, too')
})

t.test('a kernel that does not count says nothing', async t => {
  const writesOf = (told: Told): string => blockDeviceWrites(device(8, 0), kernel(t.testdir(), told))
  t.equal(writesOf({ iostats: '0' }), '', 'the counts stand still')
  t.equal(writesOf({ written: 0 }), '', 'a driver that does not count')
  t.equal(blockDeviceWrites(device(9, 0), kernel(t.testdir(), {})), '', 'no such device')
})

t.test('where attachments have no numbers, what was attached to something else does not look unchanged', async t => {
  const writesOf = (name: string, diskseq?: string): string[] =>
    [0, 1].map(minor => blockDeviceWrites(device(8, minor), kernel(t.testdir(), { name, diskseq })))
  for (const name of ['loop0', 'nbd12']) {
    t.same(writesOf(name), ['', ''], name)
    t.notOk(writesOf(name, '5').includes(''), `${name}, with numbers`)
  }
  for (const name of ['sda', 'dm-0', 'nvme0n1']) t.notOk(writesOf(name).includes(''), name)
})
