import t from 'tap'
import { MiB } from '../../src/base/units.ts'
import type { WriteMark } from '../../src/agent/dirty-map.ts'
import { NumberingHold } from '../../src/agent/numbering-gate.ts'
import { Volume, type VolumeTap } from '../../src/agent/volume.ts'
import { faultyVolumeFiles } from '../support/agent-faulty-files.ts'
import { turn } from '../support/agent-world.ts'
import { FaultyDisk } from '../support/faulty-disk.ts'

// The order of a write: lock, mark, disk, gate, number, answer.

const file = '/var/disk/a.raw'

function openVolume(mark: Promise<void> | undefined, syncs: () => Promise<void> = () => Promise.resolve()) {
  const disk = new FaultyDisk()
  disk.open(file, 'create').write([Buffer.alloc(1 * MiB)], 0)
  const gate = new NumberingHold()
  const told: string[] = []
  const tap: VolumeTap = {
    isQuiesced: false,
    begin: (): WriteMark => {
      told.push('mark')
      return { durable: mark, firstRegion: 0, lastRegion: 0 }
    },
    changed: () => void told.push('number'),
    writeFailed: () => void told.push('failed'),
    flushFailed: () => undefined,
    end: () => void told.push('end'),
  }
  const volume = new Volume('a', { ...faultyVolumeFiles(disk)(file), sync: syncs }, file, tap, gate)
  return { volume, gate, told, byteAt: (offsetBytes: number) => disk.contents(file)[offsetBytes] }
}

async function turns(count: number): Promise<void> {
  for (let index = 0; index < count; index++) await turn()
}

t.test('nothing of a write is on the disk before its mark is durable', async t => {
  let markDurable = (): void => undefined
  const mark = new Promise<void>(resolve => (markDurable = resolve))
  const { volume, told, byteAt } = openVolume(mark)
  const writing = volume.write(4096, Buffer.alloc(512, 9), { fua: false })
  await turns(10)
  t.equal(byteAt(4096), 0)
  t.same(told, ['mark'])
  markDurable()
  await writing
  t.equal(byteAt(4096), 9)
  t.same(told, ['mark', 'number', 'end'])
})

t.test('a mark that cannot be made fails the write, which has not begun', async t => {
  const { volume, told, byteAt } = openVolume(Promise.reject(new Error('EIO')))
  await t.rejects(volume.write(4096, Buffer.alloc(512, 9), { fua: false }), /EIO/)
  t.equal(byteAt(4096), 0)
  t.same(told, ['mark', 'end'])
})

t.test(
  'while numbering is held the disk has the write, and neither number nor answer is given; reads elsewhere go on',
  async t => {
    const { volume, gate, told, byteAt } = openVolume(undefined)
    gate.hold()
    let answered = false
    const writing = volume.write(4096, Buffer.alloc(512, 9), { fua: false }).then(() => (answered = true))
    let taken = false
    const syncing = volume.readSettled({ offsetBytes: 8192, lengthBytes: 512 }, Buffer.alloc(512), () => (taken = true))
    await turns(10)
    t.equal(byteAt(4096), 9)
    t.same([answered, taken, told], [false, false, ['mark']])
    await volume.read(16384, Buffer.alloc(512))
    gate.release()
    await Promise.all([writing, syncing])
    t.same([answered, taken, told], [true, true, ['mark', 'number', 'end']])
  },
)

t.test('a sync block is read when the write of its range has its number, and not between', async t => {
  const { volume, told } = openVolume(undefined)
  const target = Buffer.alloc(1024)
  const writing = volume.write(4096, Buffer.alloc(512, 9), { fua: false })
  const syncing = volume.readSettled({ offsetBytes: 4096, lengthBytes: 1024 }, target, () => void told.push('sync'))
  const later = volume.write(4608, Buffer.alloc(512, 7), { fua: false })
  await Promise.all([writing, syncing, later])
  t.same(
    told.filter(each => each !== 'mark' && each !== 'end'),
    ['number', 'sync', 'number'],
  )
  t.same([target[0], target[512]], [9, 0])
})

t.test('a guest whose writes a sync of the agent has lost hears of it from its next flush', async t => {
  let isFailing = true
  const { volume } = openVolume(undefined, () => (isFailing ? Promise.reject(new Error('EIO')) : Promise.resolve()))
  await t.rejects(volume.sync(), /EIO/)
  isFailing = false
  // The kernel has told it once: to another sync it says that all is well.
  await Promise.all([t.rejects(volume.flush(), /EIO/), t.rejects(volume.flush(), /EIO/)])
  await volume.flush()
  isFailing = true
  await Promise.all([t.rejects(volume.flush(), /EIO/), t.rejects(volume.flush(), /EIO/)])
  isFailing = false
  await volume.flush()
})

t.test('what a held write has put on the disk is read when it has its number, not before', async t => {
  const { volume, gate, told } = openVolume(undefined)
  gate.hold()
  const writing = volume.write(4096, Buffer.alloc(512, 9), { fua: false })
  await turns(10)
  const target = Buffer.alloc(1024)
  let isRead = false
  const reading = volume.read(4096 - 512, target).then(() => (isRead = true))
  const beside = Buffer.alloc(512)
  await volume.read(8192, beside)
  await turns(10)
  t.notOk(isRead, 'a host that read it would act on what no checkpoint has')
  t.same(told, ['mark'])
  gate.release()
  await Promise.all([writing, reading])
  t.equal(target[512], 9)
  t.ok(told.includes('number'))
})

t.test(
  'a read does not wait for a synchronisation that reads the same place, nor for a write that waits for its turn',
  async t => {
    const { volume, gate } = openVolume(undefined)
    gate.hold()
    const syncing = volume.readSettled({ offsetBytes: 0, lengthBytes: 4096 }, Buffer.alloc(4096), () => undefined)
    const writing = volume.write(0, Buffer.alloc(512, 9), { fua: false })
    await turns(10)
    const target = Buffer.alloc(512)
    await volume.read(0, target)
    t.equal(target[0], 0, 'the write has not begun')
    gate.release()
    await Promise.all([syncing, writing])
  },
)
