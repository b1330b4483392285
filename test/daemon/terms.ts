import { writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { Terms } from '../../src/daemon/terms.ts'
import { realDisk } from '../../src/disk/disk.ts'

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
  t.same(issued, [5, 6, 7, 8, 9, 10], 'though no marker was ever made under one of them')
  const terms = Terms.open(realDisk, directory)
  terms.prepare([{ id: 'a', above: 90 }])
  t.equal(terms.issue('a', 90), 91, 'above the markers')
  t.equal(terms.issue('new', 0), 1)
  const again = Terms.open(realDisk, directory)
  again.prepare([{ id: 'new', above: 0 }])
  t.equal(again.issue('new', 0), 2, 'one that came while it ran is remembered as well')
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
