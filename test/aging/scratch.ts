import t, { type Test } from 'tap'
import { KiB, MiB } from '../../src/base/units.ts'
import type { AgingNotices } from '../../src/aging/service.ts'
import { realDisk, type Disk, type DiskFile } from '../../src/disk/disk.ts'
import { AgingModel, streams, type ModelCheckpoint } from '../support/aging-model.ts'
import { strays } from '../support/aging-strays.ts'
import { systemError } from '../support/name-changes.ts'
import { randomFrom } from '../support/segment-records.ts'

// A fold of more than fits its memory goes through a scratch file. Invariants, whatever the disk does to that: what it returns is never believed where it is
// not what was written, nothing piles up in the store, somebody hears of it, and it is not tried without end.

type ScratchFaults = Partial<Pick<DiskFile, 'read' | 'write'>>

/** The real disk, whose scratch files do what `faults` says. */
function diskWith(faults: (file: DiskFile) => ScratchFaults): Disk {
  return {
    ...realDisk,
    open: (name, mode) => {
      const file = realDisk.open(name, mode)
      if (!name.endsWith('.scratch')) return file
      const own: DiskFile = {
        read: (target, offsetBytes) => file.read(target, offsetBytes),
        write: (pieces, offsetBytes) => file.write(pieces, offsetBytes),
        sync: () => file.sync(),
        sizeBytes: () => file.sizeBytes(),
        truncate: sizeBytes => file.truncate(sizeBytes),
        close: () => file.close(),
      }
      return { ...own, ...faults(file) }
    },
  }
}

/** A VPG of two volumes, of which a fold is due that does not fit the memory. */
async function site(t: Pick<Test, 'testdir'>, disk: Disk) {
  const model = new AgingModel(randomFrom(21), t.testdir(), 60_000)
  const limits = { foldSizeBytesMin: 36 * MiB, foldSizeBytesMax: 64 * MiB, segmentSizeBytesTarget: 4 * MiB }
  await model.restart(() => 'works', { ...model.config, ...limits }, { disk })
  await model.worker.createVpg(model.definition)
  for (const stream of streams)
    for (let piece = 0; piece < 40; piece++) model.writeOver(stream, piece * 512 * KiB, 512 * KiB)
  return { model, newest: model.checkpoint() }
}

async function hours(model: AgingModel, count: number): Promise<void> {
  for (let minute = 0; minute < 60 * count; minute++) {
    await model.age()
    model.clock.advance(60_000)
  }
}

function stoppedBecause(model: AgingModel): (string | undefined)[] {
  const told = model.notices.filter(({ name }) => name === 'mergingStopped')
  return told.map(({ notice }) => (notice as AgingNotices['mergingStopped']).sentence)
}

async function checkFolded(t: Test, model: AgingModel, newest: ModelCheckpoint): Promise<void> {
  const plan = await model.open(newest)
  t.equal(plan.state.deltas.length, 1, 'it is folded')
  t.equal(await model.difference(plan), undefined, 'and shows what was written')
  await model.close(plan)
  t.strictSame(await strays(model), [])
}

t.test('what a scratch file returns otherwise than it was written is in no delta', async t => {
  let isFlipped = false
  const flipping = (file: DiskFile): ScratchFaults => ({
    read: (target, offsetBytes) => {
      const count = file.read(target, offsetBytes)
      if (!isFlipped) target[512] = target[512]! ^ 1
      isFlipped = true
      return count
    },
  })
  const { model, newest } = await site(t, diskWith(flipping))
  await hours(model, 1)
  t.ok(isFlipped)
  await checkFolded(t, model, newest)
  t.match(stoppedBecause(model), [/returns other bytes than were written to it/, undefined])
})

for (const [what, fault] of [
  ['has no room', 'ENOSPC'],
  ['cannot be read', 'EIO'],
] as const) {
  t.test(`a scratch file that ${what} is told of once, is tried ever more seldom, and leaves nothing`, async t => {
    let isBroken = true
    let tries = 0
    const fail = (): never => {
      throw systemError(fault, 'scratch')
    }
    const { model, newest } = await site(
      t,
      diskWith(file => {
        tries++
        // It is read for the second volume when the pack of the first is in the store.
        const isLate = (): boolean => model.store.created.some(key => key.startsWith(`${model.vpg}/delta/`))
        if (!isBroken) return {}
        if (fault === 'ENOSPC') return { write: fail }
        return { read: (target, offsetBytes) => (isLate() ? fail() : file.read(target, offsetBytes)) }
      }),
    )
    await hours(model, 1)
    t.ok(tries > 5 && tries < 20, `${tries} tries in an hour`)
    t.match(stoppedBecause(model), [new RegExp(`cannot be used \\(${fault}\\)`)])
    t.equal(stoppedBecause(model).length, 1)
    t.strictSame(await strays(model), [])
    isBroken = false
    await hours(model, 1)
    t.equal(stoppedBecause(model).at(-1), undefined, 'it goes on')
    await checkFolded(t, model, newest)
  })
}
