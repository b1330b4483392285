import { lstatSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { GiB, KiB, MiB } from '../../src/base/units.ts'
import { realDisk, type Disk } from '../../src/disk/disk.ts'
import {
  exportRaw,
  openWritingThread,
  pieceWriterOn,
  type ExportRequest,
  type OpenPieceWriter,
} from '../../src/image/image.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { TestTimeline } from '../support/mirror-timeline.ts'

const volumes = [
  { number: 1, sizeBytes: 8 * MiB + 512, included: true },
  { number: 2, sizeBytes: 64 * KiB, included: false },
]

interface Exported {
  readonly request: ExportRequest
  readonly timeline: TestTimeline
  readonly expected: Uint8Array
  readonly progress: [number, number][]
}

function partialsIn(directory: string): string[] {
  return readdirSync(directory)
    .filter(name => name.endsWith('.partial'))
    .sort()
}

/** A volume of which some is in the base, some in a delta, some in segments, some in the log. */
async function prepare(directory: string): Promise<Exported> {
  const history = new History(seeded(21), [volumes[0]!], 1)
  const timeline = new TestTimeline(history, path.join(directory, 'scratch'))
  const limits = { packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 2 ** 30, partitionSizeBytes: 2 ** 20 }
  for (let round = 0; round < 3; round++) {
    for (let count = 0; count < 6; count++) history.write()
    timeline.checkpoint()
    if (round < 2) await timeline.fold(limits)
    else history.seal('some')
  }
  const checkpoint = timeline.retained.at(-1)!
  const progress: [number, number][] = []
  const request: ExportRequest = {
    image: await timeline.open(timeline.plan({ ...checkpoint, volumes })),
    volume: 1,
    file: path.join(directory, 'volume.raw'),
    existing: 'refuse',
    disk: realDisk,
    openWriter: openWritingThread,
    onProgress: (doneBytes, totalBytes) => progress.push([doneBytes, totalBytes]),
    signal: new AbortController().signal,
  }
  return { request, timeline, expected: history.contents.get(checkpoint.ordinal)!.get(1)!, progress }
}

t.test('the file is the volume, sparse where that is zeros, and nothing is beside it', async t => {
  const others = { 'volume.raw.partial': 'a file of the user’s', 'volume.raw.old.01234567.partial': 'another’s' }
  const left = { 'volume.raw.01234567.partial': 'left by an export that was killed' }
  const directory = path.resolve(t.testdir({ ...others, ...left }))
  const { request, expected, progress } = await prepare(directory)
  const { sizeBytes, writtenSizeBytes } = await exportRaw(request)
  t.equal(Buffer.compare(readFileSync(request.file), expected), 0)
  t.equal(sizeBytes, expected.length)
  t.ok(writtenSizeBytes < expected.length / 2, `${writtenSizeBytes} bytes were written`)
  t.ok(statSync(request.file).blocks * 512 < expected.length / 2, 'holes stay holes')
  t.same(partialsIn(directory), Object.keys(others).sort(), 'the leftover is gone, and nothing else is')
  const [doneBytes, totalBytes] = progress.at(-1)!
  t.equal(doneBytes, totalBytes, 'progress ends at the whole')
})

t.test('a file that exists is replaced only when that is asked for', async t => {
  const directory = path.resolve(t.testdir({ 'volume.raw': 'precious' }))
  const { request, expected } = await prepare(directory)
  await t.rejects(exportRaw(request), { code: 'ALREADY_EXISTS' })
  t.equal(readFileSync(request.file, 'utf8'), 'precious')
  await exportRaw({ ...request, existing: 'replace' })
  t.equal(Buffer.compare(readFileSync(request.file), expected), 0)
})

t.test('what is there and is no file stays, whether it may be replaced or not', async t => {
  const directory = path.resolve(t.testdir())
  const { request } = await prepare(directory)
  symlinkSync('/dev/null', request.file) // a rename would take the link away, as it would the device's own name
  for (const existing of ['refuse', 'replace'] as const)
    await t.rejects(exportRaw({ ...request, existing }), { code: 'REQUEST_INVALID' }, existing)
  t.ok(lstatSync(request.file).isSymbolicLink())
  const file = path.join(directory, 'folder')
  mkdirSync(file)
  await t.rejects(exportRaw({ ...request, file, existing: 'replace' }), { code: 'REQUEST_INVALID' })
  t.strictSame(readdirSync(directory), ['folder', 'volume.raw'])
})

t.test('an export that is cancelled leaves nothing', async t => {
  const directory = path.resolve(t.testdir())
  const { request } = await prepare(directory)
  const abort = new AbortController()
  const onProgress = (): void => abort.abort(new Failure('CLOSING', 'enough'))
  await t.rejects(exportRaw({ ...request, onProgress, signal: abort.signal }), { code: 'CLOSING' })
  t.strictSame(readdirSync(directory), [])
})

/** A disk of which the n-th call fails as a full one does; counts its calls. */
function failingDisk(failingCall: number): { disk: Disk; callCount: () => number } {
  let calls = 0
  const step = <T>(work: () => T): T => {
    if (calls++ === failingCall) throw Object.assign(new Error('full'), { code: 'ENOSPC' })
    return work()
  }
  const disk: Disk = {
    ...realDisk,
    open: (file, mode) => {
      const open = step(() => realDisk.open(file, mode))
      return {
        read: (target, offsetBytes) => open.read(target, offsetBytes),
        write: (pieces, offsetBytes) => step(() => open.write(pieces, offsetBytes)),
        sync: () => step(() => undefined), // these files survive the test's machine no better
        truncate: sizeBytes => step(() => open.truncate(sizeBytes)),
        sizeBytes: () => open.sizeBytes(),
        close: () => open.close(),
      }
    },
    rename: (from, to) => step(() => realDisk.rename(from, to)),
    link: (from, to) => step(() => realDisk.link(from, to)),
    syncDirectory: () => undefined,
  }
  return { disk, callCount: () => calls }
}

t.test('whatever call to the disk fails, there is the whole file or none', async t => {
  const directory = path.resolve(t.testdir())
  const { request } = await prepare(directory)
  const rehearsal = failingDisk(-1)
  const on = (disk: Disk): Pick<ExportRequest, 'disk' | 'openWriter'> => ({ disk, openWriter: pieceWriterOn(disk) })
  await exportRaw({ ...request, existing: 'replace', ...on(rehearsal.disk) })
  realDisk.remove(request.file)
  t.ok(rehearsal.callCount() > 10, `${rehearsal.callCount()} calls`)
  for (let call = 0; call < rehearsal.callCount(); call++) {
    await t.rejects(exportRaw({ ...request, ...on(failingDisk(call).disk) }), { code: 'DISK_FAILED' }, `call ${call}`)
    t.strictSame(readdirSync(directory), [], `call ${call}`)
  }
})

t.test('damage ends the export by name, and what was there before stays', async t => {
  const directory = path.resolve(t.testdir())
  const { request, timeline } = await prepare(directory)
  const [key, bytes] = [...timeline.store.objects].at(-1)!
  bytes[100]! ^= 1
  writeFileSync(request.file, 'before')
  await t.rejects(exportRaw({ ...request, existing: 'replace' }), { code: 'OBJECT_CORRUPT', details: { key } })
  t.equal(readFileSync(request.file, 'utf8'), 'before')
  t.strictSame(readdirSync(directory), ['volume.raw'])
})

t.test('what cannot be meant is refused', async t => {
  const directory = path.resolve(t.testdir())
  const { request } = await prepare(directory)
  const file = path.join(directory, 'missing', 'volume.raw')
  await t.rejects(exportRaw({ ...request, file }), { code: 'REQUEST_INVALID' })
  await t.rejects(exportRaw({ ...request, volume: 9 }), { code: 'UNKNOWN_VOLUME' }, 'no such volume')
  await t.rejects(exportRaw({ ...request, volume: 2 }), { code: 'UNKNOWN_VOLUME' }, 'a volume without a checkpoint')
  t.strictSame(readdirSync(directory), [])
})

t.test('two exports to one file: the second is refused, and the first is whole', async t => {
  const directory = path.resolve(t.testdir())
  const { request, expected } = await prepare(directory)
  const scatter = request.image.scatter.bind(request.image)
  let second: unknown
  const image = Object.create(request.image, {
    scatter: {
      value: async (...given: Parameters<typeof scatter>) => {
        second = await exportRaw({ ...request, existing: 'replace' }).catch((error: unknown) => error)
        await scatter(...given)
      },
    },
    volumes: { value: request.image.volumes },
  }) as typeof request.image
  await exportRaw({ ...request, image, existing: 'replace' })
  t.match(second, { code: 'BUSY' })
  t.equal(Buffer.compare(readFileSync(request.file), expected), 0)
  await exportRaw({ ...request, existing: 'replace' })
  t.pass('and then the name is free again')
})

t.test('a file that appears at the last moment is not replaced unless that is asked for', async t => {
  const directory = path.resolve(t.testdir())
  const { request } = await prepare(directory)
  const disk: Disk = {
    ...realDisk,
    exists: file => {
      const found = realDisk.exists(file)
      if (partialsIn(directory).length > 0) writeFileSync(file, 'somebody else’s')
      return found
    },
  }
  await t.rejects(exportRaw({ ...request, disk }), { code: 'ALREADY_EXISTS' })
  t.equal(readFileSync(request.file, 'utf8'), 'somebody else’s')
  t.same(partialsIn(directory), [])
})

/** Of each span the lowest offset that was written, and what became durable when. */
function watched(disk = failingDisk(-1).disk) {
  const steps: string[] = []
  const offsets: number[] = []
  const openWriter: OpenPieceWriter = async file => {
    const writer = await pieceWriterOn(disk)(file)
    return {
      add: (offsetBytes, bytes) => {
        offsets.push(offsetBytes)
        writer.add(offsetBytes, bytes)
      },
      finish: async () => {
        await writer.finish()
        steps.push('on disk')
      },
      abandon: () => writer.abandon(),
    }
  }
  const rename: Disk['rename'] = (from, to) => {
    disk.rename(from, to)
    if (to.endsWith('.progress')) steps.push('noted')
  }
  return { steps, offsets, openWriter, disk: { ...disk, rename } }
}

const inSpans = { existing: 'resume', spanSizeBytesMin: MiB } as const

t.test('an export that is to be resumed goes on behind what was noted, and notes only what is on disk', async t => {
  const directory = path.resolve(t.testdir())
  const { request, expected } = await prepare(directory)
  const killed = new AbortController()
  const first = watched()
  const onProgress = (): void => {
    if (first.steps.length >= 6) killed.abort(new Failure('CLOSING', 'killed'))
  }
  await t.rejects(exportRaw({ ...request, ...inSpans, ...first, onProgress, signal: killed.signal }), {
    code: 'CLOSING',
  })
  t.strictSame(first.steps, Array<string[]>(3).fill(['on disk', 'noted']).flat())
  t.strictSame(readdirSync(directory), ['volume.raw.partial', 'volume.raw.progress'])
  const { doneBytes } = JSON.parse(readFileSync(path.join(directory, 'volume.raw.progress'), 'utf8')) as {
    doneBytes: number
  }
  t.equal(doneBytes, 3 * MiB)
  const second = watched()
  await exportRaw({ ...request, ...inSpans, ...second })
  t.ok(Math.min(...second.offsets) >= doneBytes, `it wrote from ${Math.min(...second.offsets)} on`)
  t.equal(Buffer.compare(readFileSync(request.file), expected), 0)
  t.strictSame(readdirSync(directory), ['volume.raw'])
})

t.test('whatever call to the disk an export fails at that is to be resumed, the next one makes it whole', async t => {
  const directory = path.resolve(t.testdir())
  const { request, expected } = await prepare(directory)
  const on = (disk: Disk): Pick<ExportRequest, 'disk' | 'openWriter'> => ({ disk, openWriter: pieceWriterOn(disk) })
  const [rehearsal, spanSizeBytesMin] = [failingDisk(-1), 4 * MiB]
  await exportRaw({ ...request, ...inSpans, ...on(rehearsal.disk), spanSizeBytesMin })
  for (let call = 0; call < rehearsal.callCount(); call++) {
    realDisk.remove(request.file)
    await t.rejects(exportRaw({ ...request, ...inSpans, ...on(failingDisk(call).disk), spanSizeBytesMin }), {
      code: 'DISK_FAILED',
    })
    await exportRaw({ ...request, ...inSpans, ...on(failingDisk(-1).disk), spanSizeBytesMin })
    if (Buffer.compare(readFileSync(request.file), expected) !== 0) t.fail(`call ${call}: it has other bytes`)
    if (readdirSync(directory).join() !== 'volume.raw') t.fail(`call ${call}: ${readdirSync(directory).join()} is left`)
  }
  t.ok(rehearsal.callCount() > 30, `${rehearsal.callCount()} calls`)
})

t.test('of a small volume, too, no more than a part is written once more', async t => {
  const directory = path.resolve(t.testdir())
  const { request } = await prepare(directory)
  const sizeBytes = 2 * GiB
  const spans: [number, number][] = []
  const large = Object.create(request.image, {
    volumes: { value: [{ number: 1, sizeBytes, included: true }] },
    nextData: { value: (_: number, { startBytes }: { startBytes: number }) => Promise.resolve(startBytes) },
    scatter: {
      value: (_: number, span: { startBytes: number; endBytes: number }) => {
        spans.push([span.startBytes, span.endBytes])
        return Promise.resolve()
      },
    },
  }) as typeof request.image
  const { spanSizeBytesMin: _, ...asUsual } = inSpans
  const { steps, ...on } = watched()
  await exportRaw({ ...request, ...asUsual, ...on, image: large })
  const half = 512 * MiB
  t.strictSame(
    spans,
    [0, 1, 2, 3].map(index => [index * half, (index + 1) * half]),
  )
  t.equal(steps.filter(step => step === 'noted').length, 4, 'each is noted')
})

t.test('a volume of zeros is on disk, too, before it has its name', async t => {
  const directory = path.resolve(t.testdir())
  const { request, expected } = await prepare(directory)
  const steps: string[] = []
  const { disk, openWriter } = watched({
    ...realDisk,
    open: (file, mode) => {
      const open = realDisk.open(file, mode)
      const sync = open.sync.bind(open)
      open.sync = () => {
        sync()
        steps.push(`on disk: ${path.basename(file)}`)
      }
      return open
    },
    link: (from, to) => {
      realDisk.link(from, to)
      steps.push(`named: ${path.basename(to)}`)
    },
  })
  const zeros = Object.create(request.image, {
    nextData: { value: () => Promise.resolve(expected.length) },
    volumes: { value: request.image.volumes },
  }) as typeof request.image
  await exportRaw({ ...request, ...inSpans, disk, openWriter, image: zeros })
  t.strictSame(steps, ['on disk: volume.raw.partial', 'named: volume.raw'])
  t.ok(readFileSync(request.file).equals(Buffer.alloc(expected.length)))
})

t.test('a note of another image, or of a file that was put in the place of its own, counts for nothing', async t => {
  const directory = path.resolve(t.testdir())
  const { request, expected } = await prepare(directory)
  const [partial, progress] = [`${request.file}.partial`, `${request.file}.progress`]
  const noted = async (change: (note: Record<string, unknown>) => object): Promise<void> => {
    const killed = new AbortController()
    const { steps, ...watching } = watched()
    const onProgress = (): void => (steps.length > 8 ? killed.abort(new Failure('CLOSING', 'killed')) : undefined)
    await t.rejects(exportRaw({ ...request, ...inSpans, ...watching, onProgress, signal: killed.signal }))
    const note = JSON.parse(readFileSync(progress, 'utf8')) as Record<string, unknown>
    writeFileSync(progress, JSON.stringify({ ...note, ...change(note) }))
    writeFileSync(partial, Buffer.alloc(expected.length, 9)) // of somebody else
  }
  for (const change of [() => ({ image: '9/1' }), () => ({ formatVersion: 2 }), () => ({ partial: 'another' })]) {
    await noted(change)
    await exportRaw({ ...request, ...inSpans, ...watched() })
    t.equal(Buffer.compare(readFileSync(request.file), expected), 0)
    realDisk.remove(request.file)
  }
  await t.rejects(exportRaw({ ...request, ...inSpans, volume: 9 }), { code: 'UNKNOWN_VOLUME' })
})
