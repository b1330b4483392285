import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import * as path from 'node:path'
import t from 'tap'
import { UnnamedFile } from '../../src/disk/disk.ts'

t.test('where the name cannot be removed no descriptor stays, and the next one takes the name', async t => {
  const name = path.join(path.resolve(t.testdir()), 'spool')
  const { rmSync } = fs
  const heldCount = (): number =>
    fs.readdirSync('/proc/self/fd').filter(descriptor => {
      try {
        return fs.readlinkSync(`/proc/self/fd/${descriptor}`).startsWith(name)
      } catch {
        return false // of the listing itself
      }
    }).length
  const removeOthers: typeof rmSync = (file, options) => {
    if (fs.existsSync(file)) throw Object.assign(new Error('EIO: i/o error, unlink'), { code: 'EIO' })
    rmSync(file, options)
  }
  const setRemove = (remove: typeof rmSync): void => {
    fs.rmSync = remove
    syncBuiltinESMExports()
  }
  t.teardown(() => setRemove(rmSync))
  setRemove(removeOthers)
  t.throws(() => UnnamedFile.create(name), { code: 'EIO' })
  t.equal(heldCount(), 0)
  setRemove(rmSync)
  t.ok(fs.existsSync(name))
  const file = UnnamedFile.create(name)
  t.equal(heldCount(), 1)
  t.notOk(fs.existsSync(name))
  await file.close()
  t.equal(heldCount(), 0)
})
