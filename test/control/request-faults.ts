import t from 'tap'
import { validated } from '../../src/control/errors.ts'
import { requests } from '../../src/control/schemas.ts'

const good = { name: 'web', agents: ['host1'], volumes: [{ name: 'root', sizeBytes: 1 << 30 }] }

const refused: readonly (readonly [Readonly<Record<string, unknown>>, RegExp])[] = [
  [{ historyMillis: 100 }, /historyMillis \(--history\) must be 10 s or more/],
  [
    { volumes: [{ name: 'root', sizeBytes: 2 ** 52 }] },
    /volumes\.0\.sizeBytes \(the size of a volume\) must be \d+ TiB or less/,
  ],
  [{ volumes: [{ name: 'root', sizeBytes: 513 }] }, /sizeBytes .*must be a multiple of 512/],
  [{ volumes: [{ name: 'root', sizeBytes: 0 }] }, /sizeBytes .*must be more than 0/],
  [{ volumes: [] }, /volumes must be 1 entry or more/],
  [{ agents: undefined }, /agents is missing/],
  [{ colour: 'red' }, /^the request is not valid: has the unknown key colour$/],
  [{ name: 7 }, /name must be of type string/],
]

for (const [change, message] of refused)
  t.test(String(message), t => {
    const act = () => validated(requests.CreateVpgRequest, { ...good, ...change }, 'request')
    t.throws(act, { code: 'REQUEST_INVALID', message })
    t.end()
  })

t.test('what is right is taken', t => {
  t.match(validated(requests.CreateVpgRequest, good, 'request'), { name: 'web' })
  t.end()
})
