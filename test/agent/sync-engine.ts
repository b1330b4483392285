import t from 'tap'
import type { ProtectedVolume } from '../../src/agent/protected-volume.ts'
import { SyncEngine, type SyncHost } from '../../src/agent/sync/engine.ts'
import { systemClock } from '../../src/base/clock.ts'
import { KiB, MiB } from '../../src/base/units.ts'

t.test('a volume that goes before its lane asks for room in a full queue is let go', async t => {
  const [stays, goes] = [volumeOfOneRegion('stays', 1), volumeOfOneRegion('goes', 2)]
  let volumes = [stays, goes]
  const host = {
    clock: systemClock,
    events: new Proxy({}, { get: () => () => undefined }),
    stream: { isExact: true, generation: 1, durable: 0, queuedBytes: MiB, pieces: { take: () => undefined } },
    hashes: {},
    queueSizeBytesMax: 2 * MiB,
    volumes: () => volumes,
    noteRunning: () => undefined,
    synced: () => undefined,
  }
  const engine = new SyncEngine(host as unknown as SyncHost)
  t.teardown(() => engine.close())
  engine.setRate(512 * KiB) // so that the lane of the second waits for it while that of the first waits for room
  engine.start()
  await new Promise(resolve => setImmediate(resolve))
  volumes = [stays]
  await engine.forget(goes)
  t.pass('nobody has made room meanwhile')
})

/** All of it is to be sent. */
function volumeOfOneRegion(name: string, number: number): ProtectedVolume {
  const volume = {
    name,
    number,
    sync: { kind: 'bitmap' },
    compares: false,
    untouched: { has: () => false },
    progress: { noteDone: () => undefined, noteSent: () => undefined },
    map: {
      isExact: true,
      regionSizeBytes: MiB,
      pendingCount: 1,
      nextPending: (from: number) => (from <= 0 ? 0 : undefined),
      isPending: (region: number) => region === 0,
      rangeOf: () => ({ offsetBytes: 0, lengthBytes: MiB }),
      claim: () => undefined,
      unclaim: () => undefined,
      settle: () => undefined,
    },
    disk: { readSettled: () => Promise.resolve() },
  }
  return volume as unknown as ProtectedVolume
}
