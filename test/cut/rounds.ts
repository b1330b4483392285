import t from 'tap'
import { CutSite, siteVpg } from '../support/cut-site.ts'

t.test('one agent alone: the marker is there at once, nothing is held', async t => {
  const site = await CutSite.open(t, 1)
  site.appoint({ ...site.coordinator('a', 3, 7), participants: [] })
  site.streams[0]!.write('x')
  const outcome = await site.cuts[0]!.checkpoint(5)
  t.match(outcome, { term: 3, counter: 8, failure: undefined })
  t.match(site.streams[0]!.records, ['x', { term: 3, counter: 8, participants: [1], requestId: 5 }])
  t.same(site.told, [])
})

t.test('three agents: every stream has the marker, with all participants and volumes', async t => {
  const site = await CutSite.open(t, 3)
  await site.begin(site.coordinator('b', 1))
  t.match(await site.cuts[1]!.checkpoint(0), { counter: 1, failure: undefined })
  for (const stream of site.streams)
    t.match(stream.records, [
      { term: 1, counter: 1, participants: [1, 2, 3], volumes: [1, 2, 3].map(number => ({ number })) },
    ])
  t.notOk(
    site.streams.some(stream => stream.records.some(record => Object.hasOwn(Object(record), 'type'))),
    'a marker, not the message that asked for it',
  )
  t.same(site.told.sort(), ['a: hold 1 cut', 'c: hold 1 cut'], 'the coordinator itself is never held')
  t.notOk(site.streams.some(stream => stream.held))
  t.match(await site.cuts[1]!.checkpoint(0), { counter: 2 })
  t.same(
    site.cuts[0]!.checkpoint(0) instanceof Promise && (await site.cuts[0]!.checkpoint(0)),
    undefined,
    'a only takes part',
  )
})

t.test('what is written while the hold is in force has its number behind the marker', async t => {
  const site = await CutSite.open(t, 2)
  await site.begin(site.coordinator('a', 1))
  const [, b] = site.streams
  b!.write('before')
  const outcome = site.cuts[0]!.checkpoint(0)
  await site.until('b is held', () => b!.held)
  b!.write('during')
  t.match(await outcome, { failure: undefined })
  t.match(b!.records, ['before', { counter: 1 }, 'during'])
})

t.test('an agent that refuses costs the checkpoint, says why, and holds nobody', async t => {
  const site = await CutSite.open(t, 3)
  await site.begin(site.coordinator('a', 1))
  site.streams[2]!.problem = 'a synchronisation is open'
  const outcome = await site.cuts[0]!.checkpoint(0)
  t.match(outcome?.failure, { reason: 'refused', sentence: 'agent "c" refused: a synchronisation is open' })
  await site.until('b goes on', () => site.told.includes('b: hold 1 released'))
  for (const stream of site.streams) t.same(stream.markers, [], 'no marker anywhere')
  t.match(site.cuts[0]!.whyNoCheckpoints(), /c.*a synchronisation is open/)
  site.streams[2]!.problem = undefined
  t.match(await site.cuts[0]!.checkpoint(0), { counter: 2, failure: undefined }, 'the counter was spent')
  t.equal(site.cuts[0]!.whyNoCheckpoints(), '')
})

t.test('while the network stands still the hold ends by itself, and the late Cut is refused', async t => {
  const site = await CutSite.open(t, 3)
  await site.begin(site.coordinator('a', 1))
  const [, b] = site.streams
  const outcome = site.cuts[0]!.checkpoint(0)
  await site.until('b is held', () => b!.held)
  site.network.stalled = true
  b!.write('patient')
  await site.clock.advance(600)
  t.notOk(b!.held)
  t.same(b!.records, ['patient'])
  await site.clock.advance(600)
  t.match((await outcome)?.failure, { reason: 'timed-out' })
  site.network.resume()
  await site.until('all is heard', () => site.told.some(told => told.startsWith('a: 1 failed')))
  t.same(b!.markers, [])
  t.match(await site.cuts[0]!.checkpoint(0), { counter: 2, failure: undefined })
})

t.test('a broken connection ends its hold at once; the coordinator connects again', async t => {
  const site = await CutSite.open(t, 2)
  await site.begin(site.coordinator('a', 1))
  const outcome = site.cuts[0]!.checkpoint(0)
  await site.until('b is held', () => site.streams[1]!.held)
  site.network.cut()
  t.notOk(site.streams[1]!.held)
  t.match((await outcome)?.failure, { reason: 'lost' })
  t.match(site.cuts[0]!.whyNoCheckpoints(), /agent "b" is not reached/)
  await site.until('they are connected again', () => site.cuts[0]!.status().peers.every(peer => peer.problem === ''))
  t.match(await site.cuts[0]!.checkpoint(0), { failure: undefined })
})

t.test('a higher term is obeyed whoever says it; the former coordinator stops', async t => {
  const site = await CutSite.open(t, 3)
  await site.begin(site.coordinator('a', 1))
  await site.cuts[0]!.checkpoint(0)
  // The VRA reaches only b: a and c hear of the new term from b.
  site.appoint(site.coordinator('b', 2, 1), [1])
  await site.until('b has reached the others', () => site.cuts[1]!.whyNoCheckpoints() === '')
  t.match(await site.cuts[1]!.checkpoint(0), { term: 2, counter: 2, failure: undefined })
  t.same(site.savedTerms.filter(term => term === 2).length, 2, 'a and c wrote the term down before they granted')
  t.match((await site.cuts[0]!.checkpoint(0))?.failure, { reason: 'refused' })
  t.notOk(site.cuts[0]!.isCoordinator)
  t.match(site.cuts[0]!.whyNoCheckpoints(), /term 2 has been seen/)
  for (const stream of site.streams) t.same(stream.markers, ['1.1', '2.2'])
})

t.test('of two that believe to coordinate one term the one counts that the VRA named last', async t => {
  const site = await CutSite.open(t, 3)
  await site.begin(site.coordinator('a', 1))
  site.appoint(site.coordinator('b', 1), [1, 2])
  await site.until('b has reached the others', () => site.cuts[1]!.whyNoCheckpoints() === '')
  t.match((await site.cuts[1]!.checkpoint(0))?.failure, { reason: 'refused' }, 'a has another word')
  t.match((await site.cuts[0]!.checkpoint(0))?.failure, { reason: 'refused' }, 'so have b and c')
  site.appoint(site.coordinator('b', 1), [0])
  t.match(await site.cuts[1]!.checkpoint(0), { failure: undefined })
  for (const stream of site.streams) t.equal(stream.markers.length, 1)
})

t.test('after a restart with an old memory the coordinator goes on above what the others have used', async t => {
  const site = await CutSite.open(t, 2)
  await site.begin(site.coordinator('a', 1, 40))
  await site.cuts[0]!.checkpoint(0)
  await site.cuts[0]!.checkpoint(0)
  const closed = site.cuts[0]!.close()
  await site.clock.advance(3_000)
  await closed
  const { Cut } = await import('../../src/cut/cut.ts')
  site.cuts[0] = await Cut.open(site.options(0))
  site.cuts[0].appoint({ vpg: siteVpg, stream: 1, coordinator: site.coordinator('a', 1, 40) })
  await site.until('b is reached', () => site.cuts[0]!.whyNoCheckpoints() === '')
  t.match((await site.cuts[0].checkpoint(0))?.failure, { reason: 'refused' })
  t.match(await site.cuts[0].checkpoint(0), { counter: 43, failure: undefined })
})

t.test('a term that cannot be written down is not granted', async t => {
  const site = await CutSite.open(t, 2, {
    saveTerm: () => {
      throw new Error('no space left on device')
    },
  })
  site.appoint(site.coordinator('a', 1))
  site.appoint(site.coordinator('a', 2), [0])
  await site.until('b is reached', () => site.cuts[0]!.whyNoCheckpoints() === '')
  t.match((await site.cuts[0]!.checkpoint(0))?.failure, { sentence: /no space left/ })
  t.notOk(site.streams[1]!.held)
})

t.test('volumes that change under the hold are not cut', async t => {
  const site = await CutSite.open(t, 2)
  await site.begin(site.coordinator('a', 1))
  const outcome = site.cuts[0]!.checkpoint(0)
  await site.until('b is held', () => site.streams[1]!.held)
  site.streams[1]!.own[0] = { ...site.streams[1]!.own[0]!, included: false }
  t.match((await outcome)?.failure, { reason: 'refused', sentence: /volume 2/ })
  await site.until('b goes on', () => !site.streams[1]!.held)
  t.same(site.streams[1]!.markers, [])
})

t.test('volumes in their first synchronisation are named and stop nobody, unless there is no other', async t => {
  const site = await CutSite.open(t, 2)
  await site.begin(site.coordinator('a', 1))
  site.streams[1]!.own[0] = { ...site.streams[1]!.own[0]!, included: false }
  t.match(await site.cuts[0]!.checkpoint(0), { failure: undefined })
  t.match(site.streams[1]!.records, [
    {
      volumes: [
        { number: 1, included: true },
        { number: 2, included: false },
      ],
    },
  ])
  site.streams[0]!.own[0] = { ...site.streams[0]!.own[0]!, included: false }
  t.match((await site.cuts[0]!.checkpoint(0))?.failure, { reason: 'volumes' })
})

t.test('an agent that nobody can reach is named', async t => {
  const site = await CutSite.open(t, 1)
  const { Cut } = await import('../../src/cut/cut.ts')
  site.streams.push(Object.assign(Object.create(site.streams[0]!) as (typeof site.streams)[number]))
  site.cuts.push(await Cut.open({ ...site.options(1), listen: undefined }))
  site.appoint(site.coordinator('a', 1))
  t.match(site.cuts[0]!.whyNoCheckpoints(), /"b".*peers\.advertise/)
  t.match(site.cuts[1]!.whyNoCheckpoints(), /peers\.listen/)
  t.match((await site.cuts[0]!.checkpoint(0))?.failure, { reason: 'unreachable' })
})

t.test('an appointment that ends a round leaves no reason behind', async t => {
  const site = await CutSite.open(t, 2)
  await site.begin(site.coordinator('a', 1))
  const outcome = site.cuts[0]!.checkpoint(0)
  await site.until('b is held', () => site.streams[1]!.held)
  const moved = site.coordinator('a', 1)
  const participants = moved.participants.map(each => ({ ...each, volumes: [each.stream, each.stream + 2] }))
  site.appoint({ ...moved, participants })
  t.match((await outcome)?.failure, { reason: 'lost' })
  await site.until('they are connected again', () => site.cuts[0]!.whyNoCheckpoints() === '')
  t.match(await site.cuts[0]!.checkpoint(0), { failure: undefined })
})

t.test('a volume that no agent has is named in the markers, and not included', async t => {
  const site = await CutSite.open(t, 2)
  site.streams[0]!.missing = [2, 7].map(number => ({ number, sizeBytes: 512, included: false }))
  await site.begin(site.coordinator('a', 1))
  await site.cuts[0]!.checkpoint(0)
  const volumes = [1, 2, 7].map(number => ({ number, included: number !== 7 }))
  for (const stream of site.streams) t.match(stream.records, [{ volumes }])
})
