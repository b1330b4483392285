import t, { type Test } from 'tap'
import { KiB } from '../../src/base/units.ts'
import type { OpenVolumeFile } from '../../src/disk/disk.ts'
import type { Image } from '../../src/image/image.ts'
import type { KeptDisk } from '../../src/live/kept-disk.ts'
import { LiveDisk } from '../../src/live/live-disk.ts'
import { identityOf } from '../../src/live/overlay-format.ts'
import { Overlay } from '../../src/live/overlay.ts'
import { ReadAhead } from '../../src/live/read-ahead.ts'
import { ScratchBudget } from '../../src/live/scratch-budget.ts'
import { faultyVolumeFiles } from '../support/agent-faulty-files.ts'
import { FaultyDisk, PowerCut } from '../support/faulty-disk.ts'
import { Random } from '../support/journal-random.ts'
import { DiskModel, killable } from '../support/live-model.ts'
import { History, seeded } from '../support/mirror-history.ts'
import { TestTimeline } from '../support/mirror-timeline.ts'

// Random requests, many at once, over a real image and a disk that loses what was not synced, against a plain array. Invariants:
//   a read gives what was answered before it, and of what runs beside it anything;
//   a kill loses nothing that was answered; a power cut nothing that was answered before a flush that was answered;
//   a sector is always one that was written, or the image's; extents that are no data read as zeros.

const sizeBytes = 500 * KiB
const volumes = [
  { number: 1, sizeBytes, included: true },
  { number: 2, sizeBytes, included: true },
]
const limits = { packRawSizeBytesMax: 2 ** 20, memorySizeBytesMax: 2 ** 30, partitionSizeBytes: 2 ** 20 }
const boots = ['11'.repeat(16), '22'.repeat(16)] as const

interface Opened {
  readonly disk: LiveDisk
  readonly overlay: Overlay
  kill(): void
  /** What it answers from then on reaches nobody. */
  isGone(): boolean
}

async function openedImage(t: Test, seed: number): Promise<{ image: Image; contents: Uint8Array }> {
  const history = new History(seeded(seed), volumes, 1)
  const timeline = new TestTimeline(history, t.testdir())
  for (let round = 0; round < 4; round++) {
    for (let count = 0; count < 4; count++) history.write()
    timeline.checkpoint()
    if (round < 2) await timeline.fold(limits)
    else if (round < 3) history.seal('all')
  }
  const checkpoint = timeline.retained.at(-1)!
  const image = await timeline.open(timeline.plan(checkpoint), 2 ** 20)
  return { image, contents: history.contents.get(checkpoint.ordinal)!.get(1)! }
}

const { signal } = new AbortController()

/** May fail, having written a part by `write`. */
type BeforeWrite = (path: string, bytes: Uint8Array, write: (part: Uint8Array) => Promise<void>) => Promise<void>

function writesSeen(openFile: OpenVolumeFile, beforeWrite: BeforeWrite): OpenVolumeFile {
  return file => {
    const opened = openFile(file)
    return {
      ...opened,
      write: async (bytes, offsetBytes) => {
        await beforeWrite(file, bytes, part => opened.write(part, offsetBytes))
        await opened.write(bytes, offsetBytes)
      },
    }
  }
}

async function open(
  faulty: FaultyDisk,
  image: Image,
  bootId: string,
  budget = new ScratchBudget(2 ** 30),
  beforeWrite: BeforeWrite = () => Promise.resolve(),
): Promise<Opened> {
  const files = killable(writesSeen(faultyVolumeFiles(faulty), beforeWrite))
  const overlay = await Overlay.open({
    disk: faulty,
    openFile: files.openFile,
    dataFile: '/var/scratch/a.raw',
    mapFile: '/var/scratch/a.map',
    isMade: false,
    sizeBytes,
    identity: identityOf('a'),
    bootId,
    budget,
  })
  const readAhead = new ReadAhead(sizeBytes, range => image.prefetch(1, range, signal))
  const options = { name: 'a', description: 'a', sizeBytes, volume: 1, image, overlay, readAhead, signal }
  return { disk: new LiveDisk(options), overlay, kill: files.kill, isGone: () => files.isKilled() || isOff(faulty) }
}

function isOff(faulty: FaultyDisk): boolean {
  try {
    faulty.exists('/')
    return false
  } catch {
    return true
  }
}

async function contentsOf(disk: LiveDisk): Promise<Uint8Array> {
  const bytes = new Uint8Array(sizeBytes)
  await disk.read(0, bytes)
  return bytes
}

function randomRange(random: Random): { offsetBytes: number; lengthBytes: number } {
  const shape = random.integer(0, 9)
  const [unit, most] = shape < 4 ? [4 * KiB, 4] : shape < 8 ? [512, 40] : shape < 9 ? [1, 9000] : [512, 600]
  const lengthBytes = Math.min(sizeBytes, unit * random.integer(1, most))
  const offsetBytes = unit * random.integer(0, Math.floor((sizeBytes - lengthBytes) / unit))
  return { offsetBytes, lengthBytes }
}

/** Some requests at once. Those that fail because the power or the process is gone are over. */
async function runBurst(
  random: Random,
  opened: Opened,
  model: DiskModel,
  check: (holds: boolean, what: string) => void,
) {
  const { disk } = opened
  const under: Promise<void>[] = []
  const unlessGone = (answered: () => void) => (): void => {
    if (!opened.isGone()) answered()
  }
  const begin = (call: Promise<void>): void => {
    call.catch(() => undefined) // looked at when all have settled
    under.push(call)
  }
  for (let count = random.integer(1, 12); count > 0; count--) {
    const { offsetBytes, lengthBytes } = randomRange(random)
    const fua = random.chance(0.05)
    const use = random.integer(0, 9)
    if (use < 5) {
      const data = Buffer.alloc(lengthBytes, random.integer(1, 255))
      data.writeUInt8(random.integer(0, 255), 0)
      const answered = model.change(offsetBytes, data)
      begin(disk.write(offsetBytes, data, { fua }).then(unlessGone(answered)))
    } else if (use < 7) {
      const answered = model.change(offsetBytes, new Uint8Array(lengthBytes))
      const mayTrim = random.chance(0.5)
      const call =
        use < 6 ? disk.zero(offsetBytes, lengthBytes, { fua, mayTrim }) : disk.trim(offsetBytes, lengthBytes, { fua })
      begin(call.then(unlessGone(answered)))
    } else if (use < 8) {
      const flushed = model.flush()
      begin(disk.flush().then(unlessGone(flushed)))
    } else {
      begin(disk.read(offsetBytes, new Uint8Array(lengthBytes)))
    }
    if (random.chance(0.3)) await new Promise(resolve => setImmediate(resolve))
  }
  const outcomes = await Promise.allSettled(under)
  for (const outcome of outcomes) {
    if (outcome.status === 'fulfilled') continue
    const reason: unknown = outcome.reason
    check(reason instanceof PowerCut || isOver(reason), `a request failed: ${String(reason)}`)
  }
}

function isOver(reason: unknown): boolean {
  return (
    reason instanceof Error && (/process is gone|PowerCut/.test(String(reason)) || reason.cause instanceof PowerCut)
  )
}

t.test('random requests, restarts, kills and power cuts leave a disk that a plain array could be', async t => {
  const seeds = Number(process.env['LIVE_SEEDS'] ?? 30)
  for (let seed = 1; seed <= seeds; seed++) {
    const random = new Random(seed)
    const faults: string[] = []
    const check = (holds: boolean, what: string): void => void (holds || faults.push(what))
    const { image, contents } = await openedImage(t, seed)
    let faulty = new FaultyDisk()
    let boot = 0
    let opened = await open(faulty, image, boots[0])
    const model = new DiskModel(contents)
    for (let round = 0; round < 12 && faults.length === 0; round++) {
      const end = random.integer(0, 5)
      if (end === 0) faulty.failAt(faulty.operationCount + random.integer(1, 40), 'power')
      for (let bursts = random.integer(1, 4); bursts > 0; bursts--) await runBurst(random, opened, model, check)
      if (end <= 1) {
        opened.kill()
        faulty = faulty.crash(random)
        boot = 1 - boot
        opened = await open(faulty, image, boots[boot]!)
        const wrong = model.takeAfter('power', await contentsOf(opened.disk))
        check(wrong === undefined, wrong ?? '')
      } else if (end === 2) {
        const burst = runBurst(random, opened, model, check)
        for (let turns = random.integer(0, 6); turns > 0; turns--) await new Promise(resolve => setImmediate(resolve))
        opened.kill()
        await burst
        opened = await open(faulty, image, boots[boot]!)
        const wrong = model.takeAfter('kill', await contentsOf(opened.disk))
        check(wrong === undefined, wrong ?? '')
      } else if (end === 3) {
        const flushed = model.flush()
        await opened.overlay.close()
        flushed()
        opened = await open(faulty, image, boots[boot]!)
      }
      const found = await contentsOf(opened.disk)
      check(Buffer.compare(found, model.current) === 0, `contents differ after round ${round}, end ${end}`)
      await checkExtents(opened.disk, model.current, check)
    }
    if (faults.length > 0) t.fail(`seed ${seed}: ${faults[0]}`)
  }
})

async function checkExtents(disk: LiveDisk, contents: Uint8Array, check: (holds: boolean, what: string) => void) {
  for (let at = 0; at < sizeBytes;) {
    const extents = await disk.blockStatus(at, sizeBytes - at)
    check(extents.length > 0, 'an answer has an extent')
    for (const { lengthBytes, kind } of extents) {
      check(lengthBytes > 0, 'no extent is empty')
      const bytes = contents.subarray(at, at + lengthBytes)
      check(kind === 'data' || bytes.every(byte => byte === 0), `what is told to be a ${kind} at ${at} holds data`)
      at += lengthBytes
    }
  }
}

t.test('what was materialised is in the data file, whatever a power cut left there before', async t => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = new Random(seed)
    const { image, contents } = await openedImage(t, seed)
    const model = new DiskModel(contents)
    let faulty = new FaultyDisk()
    let opened = await open(faulty, image, boots[0])
    await runBurst(random, opened, model, () => undefined)
    opened.kill()
    faulty = faulty.crash(random)
    opened = await open(faulty, image, boots[1])
    t.equal(model.takeAfter('power', await contentsOf(opened.disk)), undefined)
    t.ok(opened.overlay.isStale)
    for (let at = 0; at < sizeBytes; at += 64 * KiB) {
      await opened.disk.materialise(at, 64 * KiB)
      await runBurst(random, opened, model, holds => t.ok(holds))
    }
    // A zero of blocks that had room leaves old bytes there until the range is visited again.
    for (let at = 0; at < sizeBytes; at += 64 * KiB) await opened.disk.materialise(at, 64 * KiB)
    await opened.overlay.close()
    if (Buffer.compare(faulty.contents('/var/scratch/a.raw'), model.current) !== 0) t.fail(`seed ${seed}`)
  }
})

const dataFile = '/var/scratch/a.raw'

async function materialiseAll(disk: LiveDisk): Promise<void> {
  for (let at = 0; at < sizeBytes; at += 64 * KiB) await disk.materialise(at, 64 * KiB)
}

t.test('a kill between the bytes of a write and its map leaves nothing of it in what is materialised', async t => {
  const { image, contents } = await openedImage(t, 9)
  const faulty = new FaultyDisk()
  let isMapWritten = true
  const opened = await open(faulty, image, boots[0], undefined, async file => {
    if (file.endsWith('.map') && !isMapWritten) throw new Error('the process is gone')
  })
  await opened.disk.trim(64 * KiB, 64 * KiB, { fua: false })
  isMapWritten = false
  for (let at = 0; at < sizeBytes; at += 16 * KiB)
    await t.rejects(opened.disk.write(at, Buffer.alloc(4 * KiB, 0xee), { fua: false }))
  opened.kill()
  const again = await open(faulty, image, boots[0])
  const expected = contents.slice().fill(0, 64 * KiB, 128 * KiB)
  t.equal(Buffer.compare(await contentsOf(again.disk), expected), 0)
  await again.overlay.close()
  const third = await open(faulty, image, boots[0])
  t.ok(third.overlay.isStale, 'a close in order cleans nothing')
  await materialiseAll(third.disk)
  await third.overlay.close()
  t.equal(Buffer.compare(faulty.contents(dataFile), expected), 0)
})

t.test('nor does a write that fails part-way, whether the disk is closed in between or not', async t => {
  for (const isClosed of [false, true]) {
    const { image, contents } = await openedImage(t, 10)
    const faulty = new FaultyDisk()
    let isFull = false
    const opened = await open(faulty, image, boots[0], undefined, async (file, bytes, write) => {
      if (file !== dataFile || !isFull) return
      await write(bytes.subarray(0, bytes.length / 2))
      throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
    })
    await opened.disk.trim(64 * KiB, 64 * KiB, { fua: false })
    t.notOk(opened.overlay.isStale)
    isFull = true
    await t.rejects(opened.disk.write(64 * KiB, Buffer.alloc(8 * KiB, 0xee), { fua: false }), { code: 'ENOSPC' })
    isFull = false
    let { disk, overlay } = opened
    if (isClosed) {
      await overlay.close()
      ;({ disk, overlay } = await open(faulty, image, boots[0]))
    }
    t.ok(overlay.isStale)
    await materialiseAll(disk)
    await overlay.close()
    const expected = contents.slice().fill(0, 64 * KiB, 128 * KiB)
    t.equal(Buffer.compare(faulty.contents(dataFile), expected), 0)
  }
})

t.test('what is cleared while a flush runs is durable when the data file is sealed', async t => {
  const { image } = await openedImage(t, 11)
  const faulty = new FaultyDisk()
  let meanwhile: (() => Promise<void>) | undefined
  const { disk, overlay } = await open(faulty, image, boots[0], undefined, async file => {
    if (file === dataFile) await meanwhile?.()
  })
  await disk.write(0, Buffer.alloc(8 * KiB, 0xee), { fua: true })
  await disk.trim(0, 8 * KiB, { fua: true })
  meanwhile = () => overlay.flush()
  await overlay.clear(0, 8 * KiB)
  meanwhile = undefined
  await overlay.flush()
  const isClear = (): boolean =>
    faulty
      .crash(new Random(1))
      .contents(dataFile)
      .subarray(0, 8192)
      .every(byte => byte === 0)
  t.ok(isClear(), 'a flush knows of it')
  await overlay.seal()
  t.ok(isClear())
})

t.test('writes of two sectors of a block are both there when the disk is a file of its own between them', async t => {
  const { image } = await openedImage(t, 12)
  const faulty = new FaultyDisk()
  let meanwhile: (() => Promise<void>) | undefined
  let whileOther: (() => Promise<void>) | undefined
  const { disk, overlay } = await open(faulty, image, boots[0], undefined, async (file, bytes) => {
    if (file !== dataFile) return
    if (bytes[0] === 3) {
      const begin = whileOther
      whileOther = undefined
      await begin?.()
    }
    const begin = meanwhile
    meanwhile = undefined
    await begin?.()
  })
  disk.beginKeeping()
  await disk.trim(0, 8 * KiB, { fua: false })
  let second: Promise<unknown> = Promise.resolve()
  const kept = (): Promise<KeptDisk> => overlay.kept('a', 'a')
  meanwhile = async () => {
    const becomes = disk.becomeKept(kept)
    for (let turns = 0; turns < 10; turns++) await new Promise(resolve => setImmediate(resolve))
    // One of the same block, and one of another: while that one writes, a third comes, when the disk is a file already.
    const written = disk.write(512, Buffer.alloc(512, 2), { fua: false })
    const other = disk.write(4 * KiB, Buffer.alloc(512, 3), { fua: false })
    for (let turns = 0; turns < 10; turns++) await new Promise(resolve => setImmediate(resolve))
    second = Promise.all([becomes, written, other])
    whileOther = () => disk.write(4 * KiB + 512, Buffer.alloc(512, 4), { fua: false })
  }
  await disk.write(0, Buffer.alloc(512, 1), { fua: false })
  await second
  const found = new Uint8Array(8 * KiB)
  await disk.read(0, found)
  const expected = new Uint8Array(8 * KiB).fill(1, 0, 512).fill(2, 512, 1024).fill(3, 4096, 4608).fill(4, 4608, 5120)
  t.equal(Buffer.compare(found, expected), 0)
  await overlay.close()
})

t.test(
  'past the limit a write has no space, and nothing of it is there; what has room already can be written',
  async t => {
    const { image, contents } = await openedImage(t, 5)
    const budget = new ScratchBudget(8 * KiB)
    const { disk, overlay } = await open(new FaultyDisk(), image, boots[0], budget)
    await disk.write(0, Buffer.alloc(8 * KiB, 1), { fua: false })
    await t.rejects(disk.write(4 * KiB, Buffer.alloc(8 * KiB, 2), { fua: false }), { code: 'ENOSPC' })
    await t.rejects(disk.zero(64 * KiB, 4 * KiB, { fua: false, mayTrim: false }), { code: 'ENOSPC' })
    await disk.zero(64 * KiB, 4 * KiB, { fua: false, mayTrim: true })
    await disk.write(100, Buffer.alloc(300, 3), { fua: false })
    const expected = contents.slice()
    expected
      .fill(1, 0, 8 * KiB)
      .fill(3, 100, 400)
      .fill(0, 64 * KiB, 68 * KiB)
    t.equal(Buffer.compare(await contentsOf(disk), expected), 0)
    t.match(budget, { usedSizeBytes: 8 * KiB, refusedCount: 2 })
    await overlay.close()
    t.equal(budget.usedSizeBytes, 0)
  },
)

t.test(
  'a sync that failed is final: writes and flushes fail from then on, and what was durable before counts',
  async t => {
    const { image, contents } = await openedImage(t, 6)
    const faulty = new FaultyDisk()
    const { disk, kill } = await open(faulty, image, boots[0])
    await disk.write(0, Buffer.alloc(4 * KiB, 1), { fua: true })
    await disk.write(8 * KiB, Buffer.alloc(4 * KiB, 2), { fua: false })
    faulty.failAt(faulty.operationCount + 1, 'EIO')
    await t.rejects(disk.flush(), { code: 'DISK_FAILED' })
    await t.rejects(disk.flush(), { code: 'DISK_FAILED' })
    await t.rejects(disk.write(0, Buffer.alloc(1), { fua: false }), { code: 'DISK_FAILED' })
    kill()
    const again = await open(faulty, image, boots[0])
    const expected = contents.slice()
    expected.fill(1, 0, 4 * KiB)
    t.equal(Buffer.compare(await contentsOf(again.disk), expected), 0)
  },
)

t.test('damage of the map is named, and an overlay of another disk is refused', async t => {
  const { image } = await openedImage(t, 7)
  const faulty = new FaultyDisk()
  const { disk, overlay } = await open(faulty, image, boots[0])
  await disk.write(0, Buffer.alloc(4 * KiB, 1), { fua: true })
  await overlay.close()
  const options = {
    ...{
      disk: faulty,
      openFile: faultyVolumeFiles(faulty),
      dataFile: '/var/scratch/a.raw',
      mapFile: '/var/scratch/a.map',
    },
    ...{ sizeBytes, bootId: boots[0], budget: new ScratchBudget(1), isMade: true },
  }
  const unmounted = { ...options, disk: new FaultyDisk(), identity: identityOf('a') }
  await t.rejects(Overlay.open(unmounted), { code: 'DISK_FAILED', message: /is its file system mounted/ })
  await t.rejects(Overlay.open({ ...options, identity: identityOf('b') }), { code: 'REQUEST_INVALID' })
  // The durable map's first sector, of sequence 1, stands in the second area, which begins behind one sector's area of 4 KiB.
  faulty.flip('/var/scratch/a.map', 8 * KiB + 4 * KiB)
  await t.rejects(Overlay.open({ ...options, identity: identityOf('a') }), {
    code: 'RECORD_CORRUPT',
    message: /a\.map, byte 12288/,
  })
  faulty.flip('/var/scratch/a.map', 1)
  faulty.flip('/var/scratch/a.map', 4 * KiB + 1)
  await t.rejects(Overlay.open({ ...options, identity: identityOf('a') }), { code: 'RECORD_CORRUPT' })
  t.equal(faulty.openCount(), 0, 'every file was closed')
})

t.test('damage of the image is the error of the reads that meet it, and of no others', async t => {
  const { image, contents } = await openedImage(t, 8)
  const failing: Image = {
    ...image,
    checkpoint: image.checkpoint,
    volumes: image.volumes,
    read: async (volume, offsetBytes, target, ofSignal) => {
      if (offsetBytes < 8 * KiB)
        throw Object.assign(new Error('a block fails its checksum'), { code: 'OBJECT_CORRUPT' })
      await image.read(volume, offsetBytes, target, ofSignal)
    },
    prefetch: () => Promise.resolve(),
  }
  const { disk } = await open(new FaultyDisk(), failing, boots[0])
  await t.rejects(disk.read(0, new Uint8Array(512)), { code: 'OBJECT_CORRUPT' })
  await t.rejects(disk.write(512, new Uint8Array(512), { fua: false }), { code: 'OBJECT_CORRUPT' })
  await disk.write(0, Buffer.alloc(8 * KiB, 9), { fua: false })
  const expected = contents.slice()
  expected.fill(9, 0, 8 * KiB)
  const found = new Uint8Array(sizeBytes)
  for (let at = 0; at < sizeBytes; at += 4 * KiB) await disk.read(at, found.subarray(at, at + 4 * KiB))
  t.equal(Buffer.compare(found, expected), 0)
})
