import t from 'tap'
import {
  atOnce,
  handOver,
  sharedWordCount,
  synced,
  tellEnd,
  tellWritingEnded,
  writeFilled,
  type EndWanted,
  type Step,
  type Steps,
} from '../../src/image/hand-over.ts'
import { seeded } from '../support/mirror-history.ts'

// The two sides of the ring take their steps in every order that a scheduler could choose. Whatever the order:
// 1. with `synced`, every buffer was written, once, in order, when the writer is told that it may sync;
// 2. a buffer is never filled while it is written, nor before it was;
// 3. neither side waits for ever;
// 4. where the disk fails, the filler is told so.

const ringSize = 2

interface Course {
  readonly bufferCount: number
  readonly how: EndWanted
  /** The write of this number fails. */
  readonly failingAt?: number
}

/** One side: its steps, and what it would do next. */
interface Side {
  readonly steps: Generator<Step | { readonly kind: 'fill'; readonly index: number }, void, number>
  next: Step | { readonly kind: 'fill'; readonly index: number } | undefined
}

function* filler({ bufferCount, how }: Course, told: (end: string) => void): Side['steps'] {
  for (let filled = 0; filled < bufferCount;) {
    yield { kind: 'fill', index: filled }
    if ((yield* handOver(++filled, ringSize)) === 'ended') return told('failed')
  }
  yield* tellEnd(how, bufferCount)
  told('ended')
}

function* writer(told: (end: string) => void): Steps<void> {
  try {
    told((yield* writeFilled()) === synced ? 'synced' : 'at once')
  } catch {
    told('failed')
  }
  yield* tellWritingEnded()
}

/** Runs the course; `choose` says which side goes, where both can. Returns what is wrong, or undefined. */
function run(course: Course, choose: (step: number) => 0 | 1): { readonly wrong?: string; readonly choices: number } {
  const state = new Int32Array(sharedWordCount)
  const ring: (number | undefined)[] = Array.from({ length: ringSize }, () => undefined)
  const written: number[] = []
  const ends = { filler: '', writer: '' }
  const sides: Side[] = [filler(course, end => (ends.filler = end)), writer(end => (ends.writer = end))].map(steps => ({
    steps,
    next: undefined,
  }))
  for (const side of sides) side.next = side.steps.next().value ?? undefined
  let wrong: string | undefined
  const canGo = ({ next }: Side): boolean =>
    next !== undefined && !(next.kind === 'wait' && state[next.place] === next.value)
  const go = (side: Side): void => {
    const { next } = side
    let result = 0
    if (next?.kind === 'load') result = state[next.place] ?? 0
    else if (next?.kind === 'store') state[next.place] = next.value
    else if (next?.kind === 'fill') {
      if (ring[next.index % ringSize] !== undefined) wrong ??= `buffer ${next.index} is filled over one that waits`
      ring[next.index % ringSize] = next.index
    } else if (next?.kind === 'write') {
      if (next.index === course.failingAt) {
        side.next = side.steps.throw(new Error('disk full')).value ?? undefined
        return
      }
      const found = ring[next.index % ringSize]
      if (found !== next.index) wrong ??= `buffer ${found} is written for ${next.index}`
      // In use until the count says otherwise, which is the next step.
      written.push(next.index)
      ring[next.index % ringSize] = undefined
    }
    side.next = side.steps.next(result).value ?? undefined
  }
  let choices = 0
  for (;;) {
    const able = sides.filter(canGo)
    if (able.length === 0) break
    go(able[able.length === 1 ? 0 : choose(choices++)]!)
  }
  if (sides.some(side => side.next !== undefined)) wrong ??= 'one waits for ever'
  const hasFailed = course.failingAt !== undefined && course.failingAt < course.bufferCount
  const isAll = written.length === course.bufferCount && written.every((index, at) => index === at)
  if (!hasFailed && course.how === synced && (!isAll || ends.writer !== 'synced'))
    wrong ??= `the end is "${ends.writer}" after ${written.length} of ${course.bufferCount} buffers`
  if (hasFailed && ends.writer === 'synced') wrong ??= 'what failed was synced'
  return wrong === undefined ? { choices } : { wrong, choices }
}

const courses: Course[] = []
for (let bufferCount = 0; bufferCount <= 4; bufferCount++) {
  for (const how of [synced, atOnce] as const) {
    courses.push({ bufferCount, how })
    for (let failingAt = 0; failingAt < bufferCount; failingAt++) courses.push({ bufferCount, how, failingAt })
  }
}

/** Every order in which the sides change places at most `changesLeft` times where they need not. */
function* orders(length: number, changesLeft: number, first: 0 | 1): Generator<(0 | 1)[]> {
  if (length === 0) return yield []
  for (let until = 0; until <= length; until++) {
    const same = Array.from({ length: until }, () => first)
    if (until === length) yield same
    else if (changesLeft > 0 && until > 0)
      for (const rest of orders(length - until, changesLeft - 1, first === 0 ? 1 : 0)) yield [...same, ...rest]
  }
}

t.test('in every order with few changes of the side, nothing is lost and nobody waits for ever', async t => {
  let count = 0
  for (const course of courses.filter(({ bufferCount }) => bufferCount <= 3)) {
    for (const first of [0, 1] as const) {
      for (const order of orders(24, 3, first)) {
        count++
        const { wrong } = run(course, step => order[step] ?? first)
        if (wrong !== undefined) return t.fail(`${JSON.stringify(course)} in the order ${order.join('')}: ${wrong}`)
      }
    }
  }
  t.ok(count > 10_000, `${count} orders`)
})

t.test('in any order at all, too', async t => {
  const random = seeded(3)
  for (let round = 0; round < 60_000; round++) {
    const course = courses[round % courses.length]!
    const taken: number[] = []
    const { wrong } = run(course, () => {
      const choice = random(2) === 0 ? 0 : 1
      taken.push(choice)
      return choice
    })
    if (wrong !== undefined) return t.fail(`${JSON.stringify(course)} in the order ${taken.join('')}: ${wrong}`)
  }
  t.pass()
})
