import { randomBytes } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { Failure, failedWith } from '../base/failure.ts'
import type { VpgId } from '../base/ids.ts'
import type { ObjectStore } from '../store/object-store.ts'
import { commitKey } from './keys.ts'
import { listCommits } from './read.ts'

// The one commit sequence of a VPG. A commit is an object under the next number:
//
//   create N+1 (only if absent) ──exists──> read it: our nonce? ──no──> fenced
//        │ created                               │ yes: the reply of an earlier attempt was lost
//        v                                       v
//   LIST after N+1 ── something higher? ──> fenced          nothing: the commit counts
//
// The LIST is not decoration. Numbers below the newest manifest are garbage and go, so a writer that slept for long could
// create a number that its successor has used and removed. Whoever finds a higher number is not the writer any more.
//
// That is so for a commit of our own appliance and epoch, too, which a killed process had sent off and the store took late: it changes what all that
// runs here was built upon (records that are being sealed, merges, images, what people were told), so a start reads it, and nothing else does.

/** Where the nonce of a commit stands, in segments and in manifest roots. */
const nonceRange = { startBytes: 40, endBytes: 56 }

export function newNonce(): string {
  return randomBytes(16).toString('hex')
}

/** A commit under way: made once, tried until it counts. Its nonce tells what an earlier attempt has done. */
export interface PendingCommit {
  readonly nonce: string
  /** The object's bytes; the same nonce at offset 40, whatever else is built again. */
  readonly encode: (commitNumber: number) => Promise<Uint8Array>
}

export class CommitSequence {
  readonly vpg: VpgId
  readonly #store: ObjectStore
  #number: number
  #nonce: string | undefined
  #pending: PendingCommit | undefined
  #fenced: Failure | undefined

  /** `nonce` is the commit's, where it is known. */
  constructor(store: ObjectStore, vpg: VpgId, commitNumber: number, nonce: string | undefined) {
    this.#store = store
    this.vpg = vpg
    this.#number = commitNumber
    this.#nonce = nonce
  }

  /** True while an attempt has left open whether its commit counts. */
  get isInDoubt(): boolean {
    return this.#pending !== undefined
  }

  /** The last number that counts. */
  get number(): number {
    return this.#number
  }

  /** Of the last commit that counts, where it is known. */
  get nonce(): string | undefined {
    return this.#nonce
  }

  /**
   * One attempt. On return the commit counts, and this is its number. STORE_UNAVAILABLE leaves open whether it does: the
   * next attempt must be of the same commit. EPOCH_SUPERSEDED is final.
   */
  async attempt(commit: PendingCommit, signal: AbortSignal): Promise<number> {
    if (this.#fenced !== undefined) throw this.#fenced
    assert(this.#pending === undefined || this.#pending === commit, 'a commit is finished before the next begins')
    const commitNumber = this.#number + 1
    const key = commitKey(this.vpg, commitNumber)
    const bytes = await commit.encode(commitNumber)
    this.#pending = commit
    try {
      await this.#store.create(key, bytes, signal)
    } catch (error) {
      if (!failedWith(error, 'ALREADY_EXISTS')) throw error
      // Twice: sixteen bytes bear no checksum, and to be fenced is final.
      const isOurs = async (): Promise<boolean> => (await readNonce(this.#store, key, signal)) === commit.nonce
      if (!(await isOurs()) && !(await isOurs())) throw this.#fence(commitNumber)
    }
    await this.#requireNothingAfter(commitNumber, signal)
    this.#number = commitNumber
    this.#nonce = commit.nonce
    this.#pending = undefined
    return commitNumber
  }

  /** Fails EPOCH_SUPERSEDED when another writer has gone on from here. Not while a commit is under way. */
  async checkOwnership(signal: AbortSignal): Promise<void> {
    if (this.#fenced !== undefined) throw this.#fenced
    assert(this.#pending === undefined, 'no commit of our own is in doubt')
    await this.#requireNothingAfter(this.#number, signal)
  }

  async #requireNothingAfter(commitNumber: number, signal: AbortSignal): Promise<void> {
    const higher = await listCommits(this.#store, this.vpg, commitKey(this.vpg, commitNumber), signal)
    const newest = higher.at(-1)
    if (newest !== undefined) throw this.#fence(newest.commitNumber)
  }

  #fence(commitNumber: number): Failure {
    const sentence =
      `another appliance has committed number ${commitNumber} of VPG ${this.vpg}, past our own ${this.#number}: ` +
      'this one does not write it any more. Stop it, or see which of the two should own the VPG. Where there is no other, it is what a killed process of ' +
      'this one had sent off: started again, it goes on behind that.'
    this.#fenced = new Failure('EPOCH_SUPERSEDED', sentence, { vpg: this.vpg, commitNumber, ownNumber: this.#number })
    return this.#fenced
  }
}

/** Of a numbered object; undefined where it is shorter than a header, or not there (any more): in no case what we wrote and still need. */
export async function readNonce(store: ObjectStore, key: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    return Buffer.from(await store.readRange(key, nonceRange, signal)).toString('hex')
  } catch (error) {
    if (failedWith(error, 'OBJECT_CORRUPT') || failedWith(error, 'NOT_FOUND')) return undefined
    throw error
  }
}
