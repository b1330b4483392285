import t from 'tap'
import type { OpenedVpg } from '../../src/aging/service.ts'
import { systemClock } from '../../src/base/clock.ts'
import { Failure } from '../../src/base/failure.ts'
import { ordinal, sequence, vpgId, type VpgId } from '../../src/base/ids.ts'
import { checkpointFacts } from '../../src/daemon/checkpoints.ts'
import { catchUp } from '../../src/daemon/events.ts'
import { DaemonControl, type VraControlParts } from '../../src/daemon/vra-control.ts'
import { VpgEntry, VpgTable } from '../../src/daemon/vpg-table.ts'
import { openedVpg } from '../support/opened-vpg.ts'

const opened = openedVpg()
const kindly = { isForced: false }

/** The parts that a deletion touches; the others are not there. */
function deletable(failures: (Failure | undefined)[], recoveries: object = {}) {
  const standby: string[] = []
  const steps: string[] = []
  const table = new VpgTable()
  table.add(new VpgEntry(opened, systemClock))
  const parts = {
    table,
    exports: { isReading: () => false },
    mounts: { isReading: () => false },
    recoveries: {
      ...{ forget: async () => undefined, requireNoneUnderWay: () => undefined },
      ...{ endStandby: async () => undefined, abandonStandby: async () => undefined },
      changed: () => void standby.push('goes on'),
      ...recoveries,
    },
    ingest: { removeVpg: () => void steps.push('ingest') },
    catalog: { forgetVpg: async () => void steps.push('catalog') },
    aging: {
      deleteVpg: async () => {
        const failure = failures.shift()
        if (failure !== undefined) throw failure
        steps.push('store')
      },
    },
  }
  return { steps, standby, table, control: new DaemonControl(parts as unknown as VraControlParts) }
}

t.test('a VPG that the store could not delete is served on', async t => {
  const { steps, table, control } = deletable([new Failure('STORE_UNAVAILABLE', 'not taken yet')])
  await t.rejects(control.deleteVpg('orders', kindly), { code: 'STORE_UNAVAILABLE' })
  t.same(steps, [])
  t.ok(table.has('orders'))
  await control.deleteVpg('orders', kindly)
  t.same(steps, ['store', 'ingest', 'catalog'])
  t.notOk(table.has('orders'))
})

t.test('a deletion that took effect after its time-out is finished by asking again', async t => {
  const late = [new Failure('STORE_UNAVAILABLE', 'not taken yet'), new Failure('UNKNOWN_VPG', 'this VPG was deleted')]
  const { steps, table, control } = deletable(late)
  await t.rejects(control.deleteVpg('orders', kindly), { code: 'STORE_UNAVAILABLE' })
  await control.deleteVpg('orders', kindly)
  t.same(steps, ['ingest', 'catalog'])
  t.notOk(table.has('orders'))
})

t.test(
  'standby copies go on where the group is not deleted, and are not touched where a recovery is under way',
  async t => {
    const busy = (): Failure => new Failure('BUSY', 'an image is open')
    for (const isForced of [true, false]) {
      const { standby, control } = deletable([busy(), busy()])
      await t.rejects(control.deleteVpg('orders', { isForced }), { code: 'BUSY' })
      t.same(standby, ['goes on'])
      const touched: string[] = []
      const underWay = deletable([], {
        requireNoneUnderWay: () => {
          throw busy()
        },
        endStandby: async () => void touched.push('ended'),
        abandonStandby: async () => void touched.push('abandoned'),
      })
      await t.rejects(underWay.control.deleteVpg('orders', { isForced }), { code: 'BUSY' })
      t.same([touched, underWay.steps], [[], []])
    }
    const ending = deletable([], { endStandby: () => Promise.reject(busy()) })
    await t.rejects(ending.control.deleteVpg('orders', kindly), { code: 'BUSY' })
    t.same(ending.standby, [], 'what is being removed is removed')
  },
)

t.test('what aging told before ingest was open takes effect when it is', t => {
  const table = new VpgTable()
  const fenced = new VpgEntry(opened, systemClock)
  fenced.fenced = 'another appliance owns it'
  const other = { ...opened.definition, id: vpgId('66'.repeat(16)), name: 'web' }
  const moved = new VpgEntry({ ...opened, definition: other }, systemClock)
  moved.offloaded = [{ stream: 1, generation: 1, sequence: sequence(7) }]
  table.add(fenced)
  table.add(moved)
  table.sealingStopped.set(other.id, 'its manifest is damaged')
  const told: [string, VpgId, (number | boolean)?][] = []
  catchUp(
    {
      stopIntake: (vpg, reason) => void told.push(['stopped', vpg, /its manifest is damaged/.test(reason ?? '')]),
      removeVpg: vpg => void told.push(['removed', vpg]),
      offloaded: (vpg, positions) => void told.push(['offloaded', vpg, positions[0]?.sequence ?? 0]),
    },
    table,
  )
  t.same(told, [
    ['stopped', other.id, true],
    ['removed', opened.definition.id],
    ['offloaded', other.id, 7],
  ])
  t.end()
})

t.test('an export never lands among the files of the VRA', async t => {
  const parts = { dataDirectory: '/srv/vra', store: { kind: 'directory', directory: '/srv/objects' } }
  const control = new DaemonControl({ ...parts, table: new VpgTable() } as unknown as VraControlParts)
  const request = { vpg: 'orders', checkpoint: 'latest', volume: 'root', overwrite: true }
  for (const file of ['/srv/vra/log/0000000000000001.log', '/srv/objects', '/srv/x/../objects/vpg/1', 'root.raw'])
    await t.rejects(control.startExport({ ...request, file }), { code: 'REQUEST_INVALID' }, file)
  for (const file of ['/srv/vra-export.raw', '/srv/..objects/root.raw'])
    await t.rejects(control.startExport({ ...request, file }), { code: 'UNKNOWN_VPG' }, `${file} is nobody's`)
})

t.test('a checkpoint below the history without a tag is not called recoverable', t => {
  const entry = new VpgEntry({ ...opened, historyEdge: ordinal(20) }, systemClock)
  entry.tags = [{ ordinal: ordinal(10), name: 'kept', taggedAtMicros: 1 }]
  const recoverable = (at: number): boolean =>
    checkpointFacts(entry, { ordinal: ordinal(at), timestampMicros: 1, historyMillis: 1, vector: [], volumes: [] })
      .recoverable
  t.same([10, 11, 20].map(recoverable), [true, false, true])
  t.end()
})

t.test('a VPG is created with the volumes of each of its agents', async t => {
  const created: OpenedVpg['definition'][] = []
  const table = new VpgTable()
  const parts = {
    table,
    clock: systemClock,
    aging: {
      createVpg: async (definition: OpenedVpg['definition']) => {
        created.push(definition)
        return { ...opened, definition }
      },
    },
    recoveries: { serve: () => undefined },
    ingest: { addVpg: () => undefined },
    report: { vpg: async () => ({}) },
  }
  const control = new DaemonControl(parts as unknown as VraControlParts)
  const request = { historyMillis: 10_000, checkpointIntervalMillis: 1000 }
  const root = { name: 'root', sizeBytes: 4096 }
  await control.createVpg({ ...request, name: 'one', agents: ['a'], volumes: [root] })
  const both = [
    { ...root, agent: 'b' },
    { ...root, name: 'data', agent: 'a' },
  ]
  await control.createVpg({ ...request, name: 'two', agents: ['a', 'b'], volumes: both })
  t.match(created[0]?.volumes, [{ number: 1, stream: 1 }])
  t.match(created[1]?.volumes, [
    { number: 1, name: 'root', stream: 2 },
    { number: 2, name: 'data', stream: 1 },
  ])
  const refused = (what: string, message: RegExp, agents: string[], volumes: { name: string; sizeBytes: number }[]) =>
    t.rejects(control.createVpg({ ...request, name: 'x', agents, volumes }), { code: 'REQUEST_INVALID', message }, what)
  await refused('whose?', /say which agent writes the volume "root"/, ['a', 'b'], [root])
  await refused('a stranger', /which the VPG does not have/, ['a', 'b'], [{ ...root, agent: 'c' } as typeof root])
  await refused('an idle agent', /"b" has no volume/, ['a', 'b'], [{ ...root, agent: 'a' } as typeof root])
})

t.test('keys of snapshots are named by volume, and kept by its number', async t => {
  const table = new VpgTable()
  table.add(new VpgEntry(opened, systemClock))
  const asked: unknown[] = []
  const parts = {
    table,
    store: { kind: 's3' },
    recoveries: { changed: () => undefined },
    ingest: { updateVpg: () => undefined },
    report: { vpg: async () => ({}) },
    aging: {
      changeVpg: async (change: object) => {
        asked.push(change)
        return { ...opened.definition, ...change }
      },
    },
  }
  const control = new DaemonControl(parts as unknown as VraControlParts)
  const key = 'arn:aws:kms:eu-central-1:111122223333:key/1'
  const [volume] = opened.definition.volumes
  await control.changeVpg('orders', { snapshotKeys: { volumes: { [volume!.name]: key } } })
  t.match(asked, [{ snapshotKeys: { ofVolumes: { [volume!.number]: key } } }])
  await t.rejects(control.changeVpg('orders', { snapshotKeys: { volumes: { other: key } } }), {
    code: 'UNKNOWN_VOLUME',
  })
})

t.test('no VPG is created while one waits whose name nobody knows: it would be left alone for the new one', async t => {
  const table = new VpgTable()
  const parts = {
    table,
    clock: systemClock,
    aging: { createVpg: async (definition: OpenedVpg['definition']) => ({ ...opened, definition }) },
    recoveries: { serve: () => undefined },
    ingest: { addVpg: () => undefined },
    report: { vpg: async () => ({}) },
  }
  const control = new DaemonControl(parts as unknown as VraControlParts)
  const create = (name: string) =>
    control.createVpg({
      ...{ name, agents: ['a'], volumes: [{ name: 'root', sizeBytes: 4096 }] },
      ...{ historyMillis: 10_000, checkpointIntervalMillis: 1000 },
    })
  table.waiting.set(opened.definition.id, 'it has its turn after the others')
  await t.rejects(create('web'), { code: 'BUSY', message: /has not given 1 of its VPGs/ })
  table.add(new VpgEntry(opened, systemClock))
  await t.resolves(create('web'), 'of one that was remembered the name is known')
})
