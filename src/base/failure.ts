/** What the program does about a failure; it drives retry, exit status, HTTP status and the metric's label. */
export type Reaction = 'retry' | 'refuse' | 'shed' | 'quarantine' | 'stand-down' | 'cancelled' | 'missing'

export const reactionTo = {
  PEER_LOST: 'retry', //              link or service down: back off, resume where we left off
  STORE_UNAVAILABLE: 'retry', //      the object store does not answer, or answers "slow down"
  CLOUD_UNAVAILABLE: 'retry', //      a service of the cloud does not answer, or puts us off
  DISK_FAILED: 'retry', //            a write or sync of the local disk failed: this file is finished, try another
  TIMED_OUT: 'retry', //              nobody answered within the bound
  FRAME_INVALID: 'refuse', //         bytes from a peer break the protocol's rules
  VERSION_UNSUPPORTED: 'refuse', //   a peer, a file or an object speaks a version that this program does not
  IDENTITY_REFUSED: 'refuse', //      the peer is not who may write this VPG
  UNKNOWN_VPG: 'refuse', //           no VPG of that name here
  UNKNOWN_VOLUME: 'refuse', //        no volume of that number or name in the VPG
  OUT_OF_BOUNDS: 'refuse', //         a write past the volume's end
  SEQUENCE_GAP: 'refuse', //          a batch that is neither next nor wholly known already
  CREDIT_EXCEEDED: 'refuse', //     a peer sent more than it was allowed to
  SYNC_REQUIRED: 'refuse', //         the two sides cannot continue exactly; the volume needs a synchronisation
  CONFIG_INVALID: 'refuse', //        a configuration value is unknown, misspelt or out of its bounds
  REQUEST_INVALID: 'refuse', //       an API or command-line request that cannot be meant
  CLOUD_REFUSED: 'refuse', //         a service of the cloud will not do it: permissions, quotas, wrong names
  ALREADY_EXISTS: 'refuse', //        the name is taken
  NOT_FOUND: 'missing', //            nothing of that name
  CHECKPOINT_MISSING: 'missing', //   no such checkpoint, or it is not recoverable (any more)
  JOURNAL_FULL: 'shed', //            a limit is reached: push back until it clears
  BUSY: 'shed', //                    too many of these at once
  RECORD_CORRUPT: 'quarantine', //    bytes failed their check: keep them, never serve them, alert
  OBJECT_CORRUPT: 'quarantine', //    the same, of an object in the store
  EPOCH_SUPERSEDED: 'stand-down', //  another appliance owns this VPG: stop writing at once
  SESSION_SUPERSEDED: 'stand-down', // a newer session of the same agent took over
  CLOSING: 'cancelled', //            we asked for it: unwind quietly
} as const satisfies Record<string, Reaction>

export type FailureCode = keyof typeof reactionTo
export type FailureDetails = Readonly<Record<string, string | number | boolean | undefined>>

/** A condition that the program meets and reacts to, as told by its code. Details carry units in their names. */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly code: FailureCode
  readonly details: FailureDetails

  /** `sentence` is for a person: what happened and, where there is one, what to do about it. */
  constructor(code: FailureCode, sentence: string, details: FailureDetails = {}, options?: { cause?: unknown }) {
    super(sentence, options)
    this.code = code
    this.details = details
  }

  get reaction(): Reaction {
    return reactionTo[this.code]
  }
}

/** True when `error` is a Failure with this code. */
export function failedWith(error: unknown, code: FailureCode): error is Failure {
  return error instanceof Failure && error.code === code
}

/** True for an error of the operating system (ENOSPC, EIO...): what a call met, not what the program did. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && /^E[A-Z0-9]+$/.test((error as NodeJS.ErrnoException).code ?? '')
}

/** A Failure as plain data, to cross a thread or a socket. */
export interface FailureRecord {
  readonly code: FailureCode
  readonly sentence: string
  readonly details: FailureDetails
}

export function failureToRecord(failure: Failure): FailureRecord {
  return { code: failure.code, sentence: failure.message, details: failure.details }
}

export function failureFromRecord(record: FailureRecord): Failure {
  return new Failure(record.code, record.sentence, record.details)
}
