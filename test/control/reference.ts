import t from 'tap'
import { checkpointOrdinal } from '../../src/base/ids.ts'
import { isTagName, parseCheckpointReference, parseDuration, parseInstant } from '../../src/control/reference.ts'
import { agoInWords, durationInWords, instantInWords, sizeInWords } from '../../src/control/words.ts'

const now = Date.parse('2026-03-29T02:15:00Z') * 1000

t.test('a checkpoint is named by latest, id, time or tag, and each text means one of them', async t => {
  t.strictSame(parseCheckpointReference('latest', now), { kind: 'latest' })
  t.strictSame(parseCheckpointReference('3.1204', now), { kind: 'id', ordinal: checkpointOrdinal(3, 1204) })
  t.strictSame(parseCheckpointReference('10m ago', now), { kind: 'time', timestampMicros: now - 600e6 })
  t.strictSame(parseCheckpointReference('before-upgrade', now), { kind: 'tag', tag: 'before-upgrade' })
  for (const text of ['', '-x', '3.', '2026-13-01', 'a b', '1.99999999999'])
    t.throws(() => parseCheckpointReference(text, now), { code: 'REQUEST_INVALID' }, text)
  for (const text of ['latest', 'now', '3.4', '2026-01-01', '10m ago']) t.notOk(isTagName(text), text)
})

t.test('instants are UTC where no zone is given, and exact to the microsecond', async t => {
  const midnight = Date.parse('2026-03-29T00:00:00Z') * 1000
  t.equal(parseInstant('2026-03-29', now), midnight)
  t.equal(parseInstant('2026-03-29 02:15', now), now)
  t.equal(parseInstant('2026-03-29T02:15:00.000250Z', now), now + 250)
  t.equal(parseInstant('2026-03-29T02:15:00.5Z', now), now + 500_000)
  t.equal(parseInstant('2026-03-29T04:15:00+02:00', now), now)
  t.equal(parseInstant('1h30m ago', now), now - 5400e6)
  t.equal(parseInstant('now', now), now)
  for (const text of ['2026-02-30', '2026-03-29T25:00', '10 ago', 'ago', '5 minutes ago', '1e9'])
    t.equal(parseInstant(text, now), undefined, text)
})

t.test('durations have units, always', async t => {
  t.equal(parseDuration('7d'), 7 * 86_400_000)
  t.equal(parseDuration('1h 30m'), 5_400_000)
  t.equal(parseDuration('1.5s'), 1500)
  t.equal(parseDuration('250ms'), 250)
  for (const text of ['', '5', 'h', '-1s', '5 y']) t.equal(parseDuration(text), undefined, text)
})

t.test('words for people keep their unit and round to what matters', async t => {
  t.strictSame([0, 1023, 1536, 1024 ** 3 * 40, 1023.9 * 1024].map(sizeInWords), [
    '0 B',
    '1023 B',
    '1.50 KiB',
    '40 GiB',
    '1 MiB',
  ])
  t.strictSame([5, 4200, 59_000, 200_000, 7_500_000, 277_200_000].map(durationInWords), [
    '5 ms',
    '4.2 s',
    '59 s',
    '3 min 20 s',
    '2 h 5 min',
    '3 d 5 h',
  ])
  t.equal(instantInWords(now), '2026-03-29 02:15:00.000Z')
  t.equal(agoInWords(now - 40e6, now), '40 s ago')
  t.equal(agoInWords(now + 40e6, now), 'now')
})
