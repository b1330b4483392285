import { writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { Terms } from '../../src/daemon/terms.ts'
import { realDisk, replaceFile } from '../../src/disk/disk.ts'

t.test('a term is issued once, over any number of starts', async t => {
  const directory = t.testdir()
  const issued: number[] = []
  const first = Terms.open(realDisk, directory)
  first.prepare([{ id: 'a', above: 0 }])
  t.equal(first.issue('a', 0), 1)
  for (let start = 0; start < 3; start++) {
    const terms = Terms.open(realDisk, directory)
    terms.prepare([{ id: 'a', above: 4 }])
    issued.push(terms.issue('a', 4), terms.issue('a', 4))
  }
  const rising = issued.every((term, index) => term > (issued[index - 1] ?? 4))
  t.ok(rising && issued.at(-1)! < 16, `though no marker was ever made under one of them: ${issued.join(', ')}`)
  const terms = Terms.open(realDisk, directory)
  terms.prepare([{ id: 'a', above: 90 }])
  t.equal(terms.issue('a', 90), 91, 'above the markers')
  t.equal(terms.issue('new', 0), 1)
  const again = Terms.open(realDisk, directory)
  again.prepare([{ id: 'new', above: 0 }])
  t.ok(again.issue('new', 0) > 1, 'one that came while it ran is remembered as well')
})

t.test('where the file was lost the next term is above any that an agent may have seen', async t => {
  const terms = Terms.open(realDisk, t.testdir())
  for (let change = 0; change < 20; change++) terms.issue('a', 0)
  const fresh = Terms.open(realDisk, t.testdir({ empty: {} }))
  fresh.prepare([{ id: 'a', above: 4 }])
  t.ok(fresh.issue('a', 4) > 20)
})

t.test('a file that is not ours is named', async t => {
  for (const contents of ['{', '7', '{"a": "b"}']) {
    const directory = t.testdir()
    writeFileSync(path.join(directory, 'terms.json'), contents)
    t.throws(() => Terms.open(realDisk, directory), { code: 'CONFIG_INVALID', message: /terms\.json/ })
  }
})

t.test(
  'a term that was written ahead is told without a wait for the disk; whatever end comes, none is issued twice',
  async t => {
    const directory = t.testdir()
    let syncCount = 0
    const disk = { ...realDisk, syncDirectory: (name: string) => (syncCount++, realDisk.syncDirectory(name)) }
    const waiting: (() => void)[] = []
    const later = (file: string, contents: Uint8Array) =>
      new Promise<void>(resolve => waiting.push(() => (replaceFile(realDisk, file, contents), resolve())))
    const terms = Terms.open(disk, directory, later)
    terms.prepare(['a', 'b'].map(id => ({ id, above: 0 })))
    t.equal(syncCount, 1)
    t.same([terms.issue('a', 0), terms.issue('b', 0), terms.issue('a', 0), terms.issue('b', 0)], [1, 1, 2, 2])
    t.equal(syncCount, 1, 'nothing was waited for')
    t.equal(waiting.length, 1, 'one write for all')
    t.equal(terms.issue('a', 0), 3)
    t.equal(syncCount, 2, 'what is not written ahead is written before it is told')
    const killed = Terms.open(realDisk, directory)
    t.ok(killed.issue('a', 0) > 3 && killed.issue('b', 0) > 2, 'killed before the write ahead')
    waiting.shift()?.()
    await new Promise(resolve => setImmediate(resolve))
    t.equal(waiting.length, 1, 'once more, for what was issued meanwhile')
    waiting.shift()?.()
    await terms.close()
    t.equal(terms.issue('a', 0), 4)
    t.equal(syncCount, 2)
    t.ok(Terms.open(realDisk, directory).issue('a', 0) > 4, 'and after it')
  },
)

t.test('on a full disk no term is issued, and the next one counts as if nothing had happened', async t => {
  let isFull = false
  const disk = {
    ...realDisk,
    syncDirectory: (name: string) => {
      if (isFull) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      realDisk.syncDirectory(name)
    },
  }
  const directory = t.testdir()
  const never = () => new Promise<void>(() => {})
  const terms = Terms.open(disk, directory, never)
  isFull = true
  t.match(terms.prepare([{ id: 'a', above: 0 }]), { code: 'ENOSPC' }, 'told, and no end of a start')
  t.throws(() => terms.issue('a', 0), { code: 'ENOSPC' })
  isFull = false
  t.equal(terms.issue('a', 0), 1)
  t.equal(terms.issue('a', 0), 2, 'written ahead')
  isFull = true
  for (const _ of [1, 2]) t.throws(() => terms.issue('a', 0), { code: 'ENOSPC' })
  isFull = false
  t.equal(terms.issue('a', 0), 3)
  t.ok(Terms.open(realDisk, directory).issue('a', 0) > 3)
})
