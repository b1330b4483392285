import t from 'tap'
import { withVolumeChange } from '../../src/timeline/definition-change.ts'
import { openedVpg } from '../support/opened-vpg.ts'

const { definition } = openedVpg()

t.test('a volume that is added gets a number that was never used, and a new agent a stream of its own', t => {
  const one = withVolumeChange(definition, { kind: 'add', name: 'data', sizeBytes: 8192, agent: undefined })
  t.match(one.volumes.at(-1), { number: 2, name: 'data', sizeBytes: 8192, stream: 1 })
  const without = withVolumeChange(one, { kind: 'remove', name: 'data' })
  t.match(without.removedVolumes, [{ number: 2, name: 'data', sizeBytes: 8192 }])
  const again = withVolumeChange(without, { kind: 'add', name: 'data', sizeBytes: 512, agent: 'b' })
  t.match(again.volumes.at(-1), { number: 3, name: 'data', stream: 2 })
  t.same(again.streams, [
    { number: 1, agent: 'a' },
    { number: 2, agent: 'b' },
  ])
  const third = withVolumeChange(again, { kind: 'add', name: 'log', sizeBytes: 512, agent: 'b' })
  t.match(third.volumes.at(-1), { number: 4, stream: 2 }, 'an agent that is known keeps its stream')
  t.same(third.streams, again.streams)
  t.end()
})

t.test('a volume grows, and does not shrink', t => {
  const grown = withVolumeChange(definition, { kind: 'grow', name: 'root', sizeBytes: 8192 })
  t.match(grown.volumes, [{ number: 1, name: 'root', sizeBytes: 8192, stream: 1 }])
  const shrink = () => withVolumeChange(grown, { kind: 'grow', name: 'root', sizeBytes: 4096 })
  t.throws(shrink, { code: 'REQUEST_INVALID', message: /does not shrink/ })
  t.end()
})

t.test('what cannot be meant is refused by name', t => {
  const two = withVolumeChange(definition, { kind: 'add', name: 'data', sizeBytes: 512, agent: 'b' })
  const refused = (what: string, code: string, change: Parameters<typeof withVolumeChange>[1], of = two) =>
    t.throws(() => withVolumeChange(of, change), { code }, what)
  refused('a name twice', 'ALREADY_EXISTS', { kind: 'add', name: 'root', sizeBytes: 512, agent: 'a' })
  refused('whose?', 'REQUEST_INVALID', { kind: 'add', name: 'x', sizeBytes: 512, agent: undefined })
  refused('nothing to remove', 'UNKNOWN_VOLUME', { kind: 'remove', name: 'x' })
  refused('nothing to grow', 'UNKNOWN_VOLUME', { kind: 'grow', name: 'x', sizeBytes: 512 })
  refused('the last one', 'REQUEST_INVALID', { kind: 'remove', name: 'root' }, definition)
  t.end()
})
