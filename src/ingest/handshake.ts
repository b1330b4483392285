import { Failure } from '../base/failure.ts'
import { sequence, type Position } from '../base/ids.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Hello } from '../wire/messages.ts'
import { protocolVersion } from '../wire/wire.ts'

/** An appliance that has lost what it issued goes on above what its agents have heard of; terms end somewhere, and nobody may use them up. */
const termLeapMax = 10_000

/** What the VRA has, as far as a Hello is held against it. */
export interface Known {
  readonly definition: VpgDefinition
  /** The stream of the agent that says Hello. */
  readonly stream: number
  readonly epoch: number
  /** The highest that this VRA has issued for the VPG. */
  readonly term: number
  readonly durable: Position
  /** Of the newest session of this agent that was accepted; 0 before the first. */
  readonly sessionNumber: number
}

export function checkVersion(hello: Hello): void {
  if (hello.protocolVersionMin > protocolVersion || hello.protocolVersionMax < protocolVersion)
    throw new Failure(
      'VERSION_UNSUPPORTED',
      `the agent speaks versions ${hello.protocolVersionMin} to ${hello.protocolVersionMax}, this VRA ${protocolVersion}`,
    )
}

/** Under TLS `certifiedName` is the certificate's common name: an agent is who its certificate says. */
export function checkIdentity(hello: Hello, certifiedName: string | undefined): void {
  if (certifiedName === undefined || certifiedName === hello.agent) return
  throw new Failure('IDENTITY_REFUSED', `the certificate is of "${certifiedName}", the agent says "${hello.agent}"`)
}

/** Every rule of proto/README.md, section 3, that is about this VPG and this agent. Fails with the rule's code. */
export function checkHello(hello: Hello, known: Known): void {
  const { definition, epoch } = known
  if (hello.epoch > epoch)
    throw new Failure('EPOCH_SUPERSEDED', `the agent has seen epoch ${hello.epoch}, this VRA is of ${epoch}`)
  if (hello.incarnation !== 0 && hello.incarnation !== definition.incarnation)
    throw new Failure(
      'IDENTITY_REFUSED',
      `the machines of the VPG "${definition.name}" were recovered and run elsewhere since (incarnation ${definition.incarnation}): this agent's disks are ` +
        `of incarnation ${hello.incarnation}, and protected no more; where the recovered machines run, an agent with a new state directory protects them`,
    )
  if (hello.highestTerm > known.term + termLeapMax)
    throw new Failure(
      'EPOCH_SUPERSEDED',
      `the agent has heard of term ${hello.highestTerm}, this VRA has issued ${known.term}: it follows another one`,
    )
  checkVolumes(hello, known)
  checkPositions(hello, known.durable)
  if (hello.sessionNumber <= known.sessionNumber)
    throw new Failure('SESSION_SUPERSEDED', 'a session of this agent with the same or a higher number was accepted', {
      sessionNumber: hello.sessionNumber,
      acceptedSessionNumber: known.sessionNumber,
    })
}

/** A volume that is not served in the session, and why, for people. */
export interface RefusedVolume {
  readonly name: string
  readonly sentence: string
}

/**
 * What is wrong with single volumes: each costs itself only. The agent finds the same by Welcome.volumes, and has those wait; in checkpoints
 * they are not included.
 */
export function refusedVolumes(
  hello: Hello,
  { definition, stream }: Pick<Known, 'definition' | 'stream'>,
): RefusedVolume[] {
  const refused: RefusedVolume[] = []
  for (const { name, sizeBytes } of hello.volumes) {
    const defined = definition.volumes.find(volume => volume.name === name)
    if (defined === undefined) refused.push({ name, sentence: `the VPG "${definition.name}" has no volume "${name}"` })
    else if (defined.sizeBytes !== sizeBytes) {
      const sentence = `the volume "${name}" has ${sizeBytes} bytes at the agent, ${defined.sizeBytes} at the VRA`
      refused.push({ name, sentence })
    }
  }
  for (const { name, stream: owner } of definition.volumes)
    if (owner === stream && !hello.volumes.some(volume => volume.name === name))
      refused.push({ name, sentence: `the agent does not offer the volume "${name}" of the VPG` })
  return refused
}

/** An agent offers volumes of its own: with another's, two would write it. Nothing to serve is no session. */
function checkVolumes(hello: Hello, { definition, stream }: Known): void {
  for (const { name } of hello.volumes) {
    const defined = definition.volumes.find(volume => volume.name === name)
    if (defined === undefined || defined.stream === stream) continue
    const owner = definition.streams.find(({ number }) => number === defined.stream)
    throw new Failure(
      'IDENTITY_REFUSED',
      `the volume "${name}" of the VPG "${definition.name}" is the agent "${owner?.agent}"'s, not "${hello.agent}"'s`,
    )
  }
  const own = definition.volumes.filter(volume => volume.stream === stream)
  if (own.length === 0 && hello.volumes.length === 0)
    throw new Failure('IDENTITY_REFUSED', `the VPG "${definition.name}" has no volume of the agent "${hello.agent}"`)
  const refused = refusedVolumes(hello, { definition, stream })
  const isServed = ({ name }: { readonly name: string }): boolean => !refused.some(each => each.name === name)
  const [first] = refused
  if (first !== undefined && !hello.volumes.some(isServed)) throw new Failure('UNKNOWN_VOLUME', first.sentence)
}

/** True where the Hello begins a generation that this VRA has nothing of. */
export function opensGeneration(hello: Hello, durable: Position): boolean {
  return hello.openGeneration > durable.generation
}

/**
 * Of an agent whose session is open, while somebody of the same name comes. Who continues the stream exactly is that agent, come again;
 * who knows nothing of the VPG and would begin anew may be another one, with another disk. Fails BUSY.
 */
export function refuseStranger(hello: Hello, durable: Position): void {
  if (hello.incarnation !== 0 || durable.generation === 0 || !opensGeneration(hello, durable)) return
  throw new Failure(
    'BUSY',
    `an agent "${hello.agent}" is connected, and this one of the same name knows nothing of the VPG: stop the one that is not meant`,
  )
}

/**
 * Exactly continuing needs resumableFrom <= durable <= lastNumbered, in one generation. A generation that is opened is sent from
 * its beginning. Fails SYNC_REQUIRED.
 */
export function checkPositions(hello: Hello, durable: Position): void {
  const { openGeneration } = hello
  const at = opensGeneration(hello, durable)
    ? { generation: openGeneration, sequence: sequence(0) }
    : orBeginning(durable)
  const from = orBeginning(hello.resumableFrom)
  const last = orBeginning(hello.lastNumbered)
  const oneGeneration = from.generation === at.generation && last.generation === at.generation
  const isOlder = openGeneration > 0 && openGeneration < durable.generation
  if (!isOlder && oneGeneration && from.sequence <= at.sequence && at.sequence <= last.sequence) return
  const details = {
    durable: formatPosition(durable),
    resumableFrom: formatPosition(hello.resumableFrom),
    lastNumbered: formatPosition(hello.lastNumbered),
    openGeneration,
  }
  throw new Failure('SYNC_REQUIRED', whyInexact(hello, durable, isOlder), details)
}

function whyInexact(hello: Hello, durable: Position, isOlder: boolean): string {
  if (isOlder)
    return `the agent opens generation ${hello.openGeneration}, this VRA has generation ${durable.generation} of the stream`
  if (opensGeneration(hello, durable)) return 'the agent opens a generation that it cannot send from its beginning'
  if (durable.generation === 0)
    return 'this VRA has nothing of the stream, and the agent cannot send it from its beginning'
  const [from, last] = [formatPosition(hello.resumableFrom), formatPosition(hello.lastNumbered)]
  return `what this VRA has of the stream, up to ${formatPosition(durable)}, is not what the agent can continue, from ${from} with ${last} as the last`
}

/** "Nothing yet" is the beginning of the first generation. */
function orBeginning(position: Position): Position {
  return position.generation === 0 ? { generation: 1, sequence: sequence(0) } : position
}

function formatPosition(position: Position): string {
  return `${position.generation}/${position.sequence}`
}
