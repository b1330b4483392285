import t from 'tap'
import {
  countersLooked,
  everythingAges,
  fileOf,
  isTold,
  makeRemains,
  random,
  seed,
  sizeOf,
  startDamaged,
  verifyNames,
} from '../support/scenario-damage.ts'
import { Scrape } from '../support/scenario-metrics.ts'
import { below } from '../support/wire-samples.ts'

// One byte is flipped: whoever meets it names the place, nothing of it is served as data, and the other VPG does not notice.

t.test(`objects in the store (seed ${seed})`, async t => {
  const remains = await makeRemains(t, everythingAges, async scenario => {
    const { mirror } = await scenario.vpg('raw')
    return mirror.deltaCount > 0 && mirror.baseSizeBytes > 0 && mirror.unsealedSizeBytes === 0
  })
  const keyIn = (line: RegExp): string => {
    const found = remains.mirror.findLast(text => line.test(text))
    if (found === undefined) throw new Error(`no ${line} in ${remains.mirror.join('\n')}`)
    return line.exec(found)?.[1] ?? ''
  }
  const objects: Readonly<Record<string, RegExp>> = {
    'a segment': /^segment (\S+) /,
    'a delta pack': /^ {2}pack (\S+) /,
    'a base pack': /^region \S+ as of \S+: (\S+\/base\/\S+)/,
  }
  for (const [what, line] of Object.entries(objects)) {
    t.test(what, async t => {
      const key = keyIn(line)
      const file = fileOf(remains, key)
      const offsetBytes = Math.floor(sizeOf(remains, file) / 2)
      // A byte of a version that few checkpoints need: all are looked at.
      const damaged = await startDamaged(t, remains, { aging: everythingAges }, { file, offsetBytes }, [
        ...remains.raw.references.keys(),
      ])
      t.ok(damaged.refused.length > 0, `${damaged.rightCount} are whole, ${damaged.refused.length} refused`)
      await verifyNames(t, damaged, 'mirror', key, 'raw')
      await isTold(t, damaged, key)
    })
  }
  const manifests: Readonly<Record<string, readonly [RegExp, number]>> = {
    'a manifest root’s body': [/^root (\S+) /, 0.5],
    'a manifest root’s first byte': [/^root (\S+) /, 0],
    'a manifest page': [/^ {2}checkpoints (\S+\/page\/\S+) /, 0.5],
  }
  for (const [what, [line, share]] of Object.entries(manifests)) {
    t.test(what, async t => {
      const key = keyIn(line)
      const file = fileOf(remains, key)
      const damaged = await startDamaged(
        t,
        remains,
        { aging: everythingAges },
        { file, offsetBytes: Math.floor(sizeOf(remains, file) * share) },
      )
      const { scenario } = damaged
      const status = await scenario.control.status()
      t.match(status.alerts[0], { severity: 'critical', sentence: new RegExp(key) }, 'the object is named')
      t.match((await scenario.cli('status')).stdout, new RegExp(`^critical\\t.*${key}`, 'm'))
      t.match(scenario.vra?.output, key, 'in the log as well')
      t.match((await Scrape.of(scenario.controlUrl)).text, /^vra_damage_found_total\{vpg="\w+"\} [1-9]/m)
    })
  }
  t.test('the index', async t => {
    const sizeBytes = sizeOf(remains, 'journal-index.sqlite')
    for (let round = 0; round < 2; round++) {
      const offsetBytes = round === 0 ? 20 : below(random, sizeBytes)
      const damaged = await startDamaged(
        t,
        remains,
        { aging: everythingAges },
        { file: 'journal-index.sqlite', offsetBytes },
      )
      t.equal(damaged.refused.length, 0, `byte ${offsetBytes}: every checkpoint is there and right`)
      t.equal(damaged.rightCount, countersLooked.length)
      await damaged.scenario.close()
    }
  })
})
