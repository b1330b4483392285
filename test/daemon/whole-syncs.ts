import t from 'tap'
import { vpgId, type VpgId } from '../../src/base/ids.ts'
import { WholeSyncs, type VpgWholeSync } from '../../src/daemon/whole-syncs.ts'

const sync = { vpg: vpgId('5a'.repeat(16)), stream: 1, generation: 2, wholeVolumes: [1, 2] }

function parts(isStoreAway: boolean) {
  const told: VpgWholeSync[] = []
  const lost: unknown[] = []
  const generationOpened = async (argument: VpgWholeSync): Promise<void> => {
    told.push(argument)
    if (argument.stream === 9) throw new Error('no such stream')
  }
  const aging = { isStoreAway, generationOpened }
  const waiting = new Map<VpgId, string>()
  return { told, lost, waiting, syncs: new WholeSyncs({ aging, waiting, notNoted: (_, error) => lost.push(error) }) }
}

t.test('a whole synchronisation is told at once where the store is here', async t => {
  const { told, lost, syncs } = parts(false)
  syncs.begun(sync)
  t.same(told, [sync])
  syncs.begun({ ...sync, stream: 9 })
  await new Promise(resolve => setImmediate(resolve))
  t.equal(lost.length, 1, 'what is not noted is heard of')
})

t.test('one that began while the store was away is told when it is back, once, and the newest of its kind', t => {
  const { told, syncs } = parts(true)
  syncs.begun(sync)
  syncs.begun({ ...sync, generation: 3, wholeVolumes: [2, 1] })
  syncs.begun({ ...sync, stream: 2, wholeVolumes: [3] })
  t.same(told, [])
  syncs.storeReturned()
  t.same(
    told.map(({ stream, generation }) => [stream, generation]),
    [
      [1, 3],
      [2, 2],
    ],
  )
  syncs.begun({ ...sync, generation: 4 })
  syncs.storeReturned()
  t.equal(told.length, 3)
  t.end()
})

t.test('one of a VPG that waits is told when the store gives that, whether the store was away before or not', t => {
  for (const isStoreAway of [false, true]) {
    const { told, waiting, syncs } = parts(isStoreAway)
    const [late, gone] = [
      { ...sync, vpg: vpgId('6b'.repeat(16)) },
      { ...sync, vpg: vpgId('7c'.repeat(16)) },
    ]
    for (const { vpg } of [late, gone]) waiting.set(vpg, 'the store refuses it')
    syncs.begun(late)
    syncs.begun(gone)
    syncs.begun(sync)
    if (isStoreAway) syncs.storeReturned()
    t.strictSame(told, [sync], 'those that wait are not told of, and not lost')
    for (const { vpg } of [late, gone]) waiting.delete(vpg)
    syncs.vpgOpened(late.vpg)
    syncs.vpgGone(gone.vpg)
    syncs.begun({ ...late, generation: 3 })
    syncs.vpgOpened(late.vpg)
    syncs.vpgOpened(gone.vpg)
    t.strictSame(told.slice(1), [late, { ...late, generation: 3 }], 'once, in their order')
  }
  t.end()
})
