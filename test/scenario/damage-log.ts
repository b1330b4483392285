import t from 'tap'
import { isTold, makeRemains, nothingAges, seed, startDamaged, verifyNames } from '../support/scenario-damage.ts'

// One byte is flipped: whoever meets it names the place, nothing of it is served as data, and the other VPG does not notice.

t.test(`records that are acknowledged and in no segment yet (seed ${seed})`, async t => {
  const remains = await makeRemains(t, nothingAges, async () => true)
  const log = 'log/0000000000000001.log'
  const records = remains.journal.filter(({ type }) => type === 'record')
  const id = records.find(({ kind }) => kind === 'batch')?.['vpg']
  const own = records.filter(({ vpg }) => vpg === id)
  t.ok(own.length > 40)
  const middle = own.filter(({ kind }) => kind === 'batch')[Math.floor(own.length / 3)] ?? {}
  const marker = own.filter(({ kind }) => kind === 'marker')[6] ?? {}
  const places = {
    'the payload of a batch': Number(middle['offsetBytes']) + Number(middle['sizeBytes']) - 40,
    'the columns of a batch': Number(middle['offsetBytes']) + 128 + 40,
    'the header of a batch': Number(middle['offsetBytes']) + 30,
    'a marker': Number(marker['offsetBytes']) + 128 + 20,
  }
  for (const [what, offsetBytes] of Object.entries(places)) {
    t.test(what, async t => {
      const damaged = await startDamaged(t, remains, { aging: nothingAges }, { file: log, offsetBytes })
      t.ok(damaged.rightCount > 0, `${damaged.rightCount} checkpoints are whole`)
      t.ok(damaged.refused.length > 0, `${damaged.refused.length} checkpoints are refused`)
      await verifyNames(t, damaged, 'journal', log, 'raw')
      await isTold(t, damaged, /log file 1|0000000000000001\.log/)
    })
  }
})
