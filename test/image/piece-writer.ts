import { readFileSync, statSync, unlinkSync } from 'node:fs'
import * as path from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { exportBufferSizeBytes } from '../../src/base/limits.ts'
import { KiB, sectorSizeBytes } from '../../src/base/units.ts'
import { realDisk, type Disk } from '../../src/disk/disk.ts'
import { openWritingThread, pieceWriterOn, type OpenPieceWriter } from '../../src/image/image.ts'
import { writingThreadOf } from '../../src/image/writing-thread.ts'
import { seeded } from '../support/mirror-history.ts'

function emptyFile(directory: string): string {
  const file = path.join(directory, 'volume.raw.partial')
  realDisk.open(file, 'create').close()
  return file
}

function pieceOf(value: number, sizeBytes = sectorSizeBytes): Uint8Array {
  return new Uint8Array(sizeBytes).fill(value)
}

t.test('pieces leave by place, and those that touch in one write', async t => {
  const writes: [number, number][] = []
  const disk: Disk = {
    ...realDisk,
    open: (file, mode) => {
      const open = realDisk.open(file, mode)
      return {
        read: (target, offsetBytes) => open.read(target, offsetBytes),
        write: (pieces, offsetBytes) => {
          writes.push([offsetBytes, pieces.reduce((sum, piece) => sum + piece.length, 0)])
          open.write(pieces, offsetBytes)
        },
        sync: () => open.sync(),
        truncate: sizeBytes => open.truncate(sizeBytes),
        sizeBytes: () => open.sizeBytes(),
        close: () => open.close(),
      }
    },
  }
  const file = emptyFile(path.resolve(t.testdir()))
  const writer = await pieceWriterOn(disk)(file)
  for (const sector of [9, 2, 1, 5, 3, 6]) writer.add(sector * sectorSizeBytes, pieceOf(sector))
  await writer.finish()
  const inSectors = writes.map(([offsetBytes, sizeBytes]) => [
    offsetBytes / sectorSizeBytes,
    sizeBytes / sectorSizeBytes,
  ])
  t.strictSame(inSectors, [
    [1, 3],
    [5, 2],
    [9, 1],
  ])
  const values = [0, 1, 2, 3, 0, 5, 6, 0, 0, 9]
  t.equal(Buffer.compare(readFileSync(file), Buffer.concat(values.map(value => pieceOf(value)))), 0)
})

const writers: Readonly<Record<string, OpenPieceWriter>> = {
  thread: openWritingThread,
  caller: pieceWriterOn(realDisk),
}

for (const [name, openWriter] of Object.entries(writers)) {
  t.test(`${name}: many buffers of pieces of any size, in any order, are the file`, async t => {
    const file = emptyFile(path.resolve(t.testdir()))
    const random = seeded(7)
    // The last piece is larger than all buffers together; tens of thousands of small ones fill a buffer by their count.
    const sizes = Array.from({ length: 70_000 }, (_, index) => (index % 1000 === 0 ? 64 * KiB : sectorSizeBytes))
    sizes.push(5 * exportBufferSizeBytes + sectorSizeBytes)
    let totalSizeBytes = 0
    const pieces = sizes.map((sizeBytes, index) => {
      const piece = { offsetBytes: totalSizeBytes, sizeBytes, value: (index % 255) + 1 }
      totalSizeBytes += sizeBytes
      return piece
    })
    const expected = Buffer.alloc(totalSizeBytes)
    for (const { offsetBytes, sizeBytes, value } of pieces) expected.fill(value, offsetBytes, offsetBytes + sizeBytes)
    for (let index = pieces.length - 1; index > 0; index--) {
      const other = random(index + 1)
      ;[pieces[index], pieces[other]] = [pieces[other]!, pieces[index]!]
    }
    const writer = await openWriter(file)
    for (const { offsetBytes, sizeBytes, value } of pieces) writer.add(offsetBytes, pieceOf(value, sizeBytes))
    await writer.finish()
    await writer.abandon()
    t.equal(Buffer.compare(readFileSync(file), expected), 0)
  })

  t.test(`${name}: what the disk says ends the writing, by its code`, async t => {
    const writer = await openWriter('/dev/full')
    const addMany = async (): Promise<void> => {
      const piece = pieceOf(1, exportBufferSizeBytes)
      for (let count = 0; count < 40; count++) writer.add(2 * count * exportBufferSizeBytes, piece)
      await writer.finish()
    }
    await t.rejects(addMany(), { code: 'ENOSPC' })
    await writer.abandon()
  })

  t.test(`${name}: what is abandoned is written no further`, async t => {
    const file = emptyFile(path.resolve(t.testdir()))
    const writer = await openWriter(file)
    writer.add(0, pieceOf(1))
    await writer.abandon()
    await writer.abandon()
    t.equal(statSync(file).size, 0)
  })
}

t.test('a thread that dies before it begins is told of, and nobody waits for it', async t => {
  const file = emptyFile(
    path.resolve(t.testdir({ 'dies.mjs': 'process.exit(3)', 'fails.mjs': 'throw new Error("no memory")' })),
  )
  const programAt = (name: string): URL => pathToFileURL(path.join(path.dirname(file), name))
  await t.rejects(writingThreadOf(programAt('dies.mjs'))(file), { message: /could not begin/ })
  const failing = writingThreadOf(programAt('fails.mjs'))(file)
  await t.rejects(failing, { message: /could not begin/, cause: { message: 'no memory' } })
})

t.test('the last buffer of short exports is on disk, whenever their ends come', async t => {
  const directory = path.resolve(t.testdir())
  const random = seeded(11)
  for (let round = 0; round < 10; round++) {
    const file = emptyFile(directory)
    const writer = await openWritingThread(file)
    const last = random(256)
    const count = random(3) // of full buffers before the last: most ends come while one is being written
    for (let index = 0; index < count; index++) writer.add(0, pieceOf(7, exportBufferSizeBytes))
    for (let sector = 0; sector < 4; sector++) writer.add(sector * sectorSizeBytes, pieceOf(last))
    await writer.finish()
    const found = readFileSync(file).subarray(0, 4 * sectorSizeBytes)
    if (!found.every(byte => byte === last)) t.fail(`round ${round} of ${count} buffers lacks its last`)
    unlinkSync(file)
  }
  t.pass()
})
