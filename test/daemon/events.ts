import t from 'tap'
import { both } from '../../src/daemon/events.ts'

interface Events {
  began(name: string): void
  ended(name: string, millis: number): void
}

t.test('an event is counted, then listened to; what has no listener is counted all the same', t => {
  const told: string[] = []
  const counted: Events = {
    began: name => void told.push(`counted ${name}`),
    ended: (name, millis) => void told.push(`counted ${name} ${millis}`),
  }
  const events = both(counted, { ended: (name, millis) => void told.push(`heard ${name} ${millis}`) })
  events.began('a')
  events.ended('a', 5)
  t.same(told, ['counted a', 'counted a 5', 'heard a 5'])
  t.end()
})
