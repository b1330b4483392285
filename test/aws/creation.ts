import t from 'tap'
import { create, formerTries, provesNothingMade, type FormerTries, type Tries } from '../../src/aws/creation.ts'
import { failureOfCall } from '../../src/aws/failures.ts'

const { signal } = new AbortController()

function answer(httpStatusCode: number, name: string): Error {
  return Object.assign(new Error('no'), { name, $metadata: { httpStatusCode } })
}

t.test('only an answer of AWS that says no proves that nothing was made', t => {
  const proofs = [
    answer(400, 'InvalidSubnetID.NotFound'),
    answer(400, 'VcpuLimitExceeded'),
    answer(403, 'UnauthorizedOperation'),
    answer(402, 'ServiceQuotaExceededException'),
    answer(404, 'ResourceNotFoundException'),
  ]
  for (const error of proofs) t.equal(provesNothingMade(failureOfCall(error, 'call')), true, error.name)
  const doubts = [
    answer(400, 'IdempotentParameterMismatch'),
    answer(409, 'ConflictException'),
    answer(400, 'InvalidAMIName.Duplicate'),
    answer(400, 'RequestThrottledException'),
    answer(503, 'RequestLimitExceeded'),
    answer(500, 'InternalError'),
    answer(500, 'InsufficientInstanceCapacity'),
    answer(200, 'SyntaxError'),
    answer(403, 'Unknown'), // of a proxy: no code of AWS's
    answer(404, 'NotFound'),
    Object.assign(new Error('reset'), { code: 'ECONNRESET' }),
  ]
  for (const error of doubts) t.equal(provesNothingMade(failureOfCall(error, 'call')), false, error.name)
  t.end()
})

/** What is noted of a creation whose tries meet these errors, the last of which it fails with. */
async function notesOf(former: FormerTries, errors: readonly Error[], answerSignal = signal): Promise<string[]> {
  const notes: string[] = []
  const note = (what: string) => () => Promise.resolve(void notes.push(what))
  const ask = async (tries: Tries): Promise<void> => {
    for (const error of errors)
      await tries.make(() => Promise.reject(failureOfCall(error, 'call'))).catch(() => undefined)
    throw new Error('it has failed')
  }
  await create({ former, begun: note('begun'), refused: note('refused') }, answerSignal, ask).catch(() => undefined)
  return notes
}

t.test('a refusal is noted where each try was refused, whoever made it', async t => {
  const refused = answer(403, 'UnauthorizedOperation')
  const lost = answer(500, 'InternalError')
  t.strictSame(await notesOf('none', [refused, refused]), ['begun', 'refused'])
  t.strictSame(await notesOf('refused', [refused]), ['begun', 'refused'])
  t.strictSame(await notesOf('none', []), ['begun', 'refused'], 'it was not asked for')
  t.strictSame(await notesOf('none', [lost, refused]), ['begun'])
  t.strictSame(await notesOf('none', [refused, lost]), ['begun'])
  t.strictSame(await notesOf('doubtful', [refused]), ['begun'], 'a process before may have made it')
  t.strictSame(await notesOf('none', [refused], AbortSignal.abort()), ['begun'], 'who hears no answer knows nothing')
  t.equal(formerTries(false, undefined), 'none')
  t.equal(formerTries(true, false), 'doubtful')
  t.equal(formerTries(true, true), 'refused')
})

t.test('what was made and could not be noted is not called refused', async t => {
  const notes: string[] = []
  const note = (what: string) => () => Promise.resolve(void notes.push(what))
  const ask = async (tries: Tries): Promise<void> => {
    await tries.make(() => Promise.resolve('i-1'))
    throw new Error('the store is away')
  }
  const creation = create({ former: 'none', begun: note('begun'), refused: note('refused') }, signal, ask)
  await t.rejects(creation, { message: 'the store is away' })
  t.strictSame(notes, ['begun'])
})
