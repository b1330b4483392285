import t from 'tap'
import { readWholeFile, replaceFile } from '../../src/disk/disk.ts'
import { SimulatedDisk } from '../support/simulation/disk.ts'
import { Host, World } from '../support/simulation/world.ts'

const file = '/var/lib/somebody/state.json'
const [before, after, left] = ['before', 'after', 'left behind'].map(text => Buffer.from(text)) as [
  Buffer,
  Buffer,
  Buffer,
]

t.test(
  'wherever the power goes, a replaced file has its former contents or its new ones, whatever was left behind',
  async t => {
    const found = new Set<string>()
    for (let seed = 1; seed <= 400; seed++) {
      const world = new World(seed)
      const host = new Host(world, 'host')
      const simulated = new SimulatedDisk(world)
      const disk = simulated.of(host.boot())
      replaceFile(disk, file, before)
      // As an earlier power cut may leave it.
      const staged = disk.open(`${file}.staged`, 'create')
      staged.write([left], 0)
      staged.sync()
      disk.syncDirectory('/var/lib/somebody')
      const life = host.boot()
      let callsLeft = world.random.integer(0, 8)
      simulated.onOperation = () => {
        if (callsLeft-- === 0) life.kill()
      }
      try {
        replaceFile(simulated.of(life), file, after)
      } catch {
        t.notOk(life.isAlive, 'only a kill ends it')
      }
      simulated.onOperation = () => undefined
      host.isUp = false
      simulated.losePower()
      found.add(Buffer.from(readWholeFile(simulated.of(host.boot()), file) ?? []).toString())
    }
    t.strictSame([...found].sort(), ['after', 'before'])
  },
)
