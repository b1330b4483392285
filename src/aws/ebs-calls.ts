import {
  CompleteSnapshotCommand,
  ListSnapshotBlocksCommand,
  StartSnapshotCommand,
  type EBSClient,
} from '@aws-sdk/client-ebs'
import { createHash } from 'node:crypto'
import { Failure } from '../base/failure.ts'
import { mayPass, type Attempts } from './attempts.ts'
import type { BlockRequests } from './block-requests.ts'
import type { Tries } from './creation.ts'
import { isThrottle } from './failures.ts'
import { tagList, type TagTable } from './tags.ts'

/** All of it is part of what its token stands for: another request with the same token is refused. */
export interface NewSnapshot {
  /** At most 64 characters. The same gives the same snapshot, however often. */
  readonly token: string
  readonly sizeGiB: number
  /** Its key is that of the snapshot, too: AWS takes no other one beside a parent. */
  readonly parent: string | undefined
  readonly kmsKey: string | undefined
  readonly description: string
  readonly tags: TagTable
}

/** AWS cancels a snapshot in which nothing was written for so long. */
const timeoutMinutes = 60
const pageBlocksMax = 10_000

/** The calls of the EBS direct APIs that write and list a snapshot. All may be made again. */
export class EbsCalls {
  readonly #client: EBSClient
  readonly #attempts: Attempts

  constructor(client: EBSClient, attempts: Attempts) {
    this.#client = client
    this.#attempts = attempts
  }

  /** The snapshot's id. NOT_FOUND where it, or its parent, is gone. */
  async start(snapshot: NewSnapshot, tries: Tries, signal: AbortSignal): Promise<string> {
    const { token, sizeGiB, parent, kmsKey, description, tags } = snapshot
    const command = new StartSnapshotCommand({
      VolumeSize: sizeGiB,
      ...(parent === undefined ? {} : { ParentSnapshotId: parent }),
      ...(parent !== undefined || kmsKey === undefined ? {} : { Encrypted: true, KmsKeyArn: kmsKey }),
      Description: description,
      Tags: tagList(tags),
      ClientToken: token,
      Timeout: timeoutMinutes,
    })
    const { SnapshotId = '' } = await this.#attempts.creating('ebs:StartSnapshot', tries, signal, abortSignal =>
      this.#client.send(command, { abortSignal }),
    )
    return SnapshotId
  }

  /**
   * AWS has taken it as whole on return; it is not yet. A snapshot that is unknown is asked for again while it may be unseen. `unanswered` is called for each request
   * that AWS may have taken all the same.
   */
  async complete(
    snapshot: string,
    written: { readonly blockCount: number; readonly checksum: string },
    { mayBeUnseen, unanswered }: { readonly mayBeUnseen: () => boolean; readonly unanswered: () => void },
    signal: AbortSignal,
  ): Promise<void> {
    const command = new CompleteSnapshotCommand({
      SnapshotId: snapshot,
      ChangedBlocksCount: written.blockCount,
      Checksum: written.checksum,
      ChecksumAlgorithm: 'SHA256',
      ChecksumAggregationMethod: 'LINEAR',
    })
    const send = (abortSignal: AbortSignal) => this.#client.send(command, { abortSignal })
    const attempt = async (): Promise<void> => {
      try {
        await this.#attempts.once('ebs:CompleteSnapshot', signal, send)
      } catch (error) {
        if (error instanceof Failure && error.code === 'CLOUD_UNAVAILABLE' && !isThrottle(error)) unanswered()
        throw error
      }
    }
    const mayRepeat = (failure: Failure, count: number): boolean =>
      mayPass(failure, count) || (failure.code === 'NOT_FOUND' && mayBeUnseen())
    await this.#attempts.repeat(attempt, mayRepeat, 'fail', signal)
  }

  /** Of a completed snapshot, with what it has of its parents: the indexes of blocks that hold something, ascending, in pages. */
  async *blocks(snapshot: string, signal: AbortSignal): AsyncGenerator<readonly number[]> {
    let token: string | undefined
    do {
      const command = new ListSnapshotBlocksCommand({
        SnapshotId: snapshot,
        MaxResults: pageBlocksMax,
        ...(token === undefined ? {} : { NextToken: token }),
      })
      const page = await this.#attempts.repeatable('ebs:ListSnapshotBlocks', signal, abortSignal =>
        this.#client.send(command, { abortSignal }),
      )
      yield (page.Blocks ?? []).map(({ BlockIndex = 0 }) => BlockIndex) // a page may be empty and not the last
      token = page.NextToken
    } while (token !== undefined)
  }
}

/** Puts one block, in one try, and returns its digest. */
export async function putBlock(
  requests: BlockRequests,
  attempts: Attempts,
  block: { readonly snapshot: string; readonly index: number; readonly bytes: Uint8Array },
  signal: AbortSignal,
): Promise<Uint8Array> {
  const digest = createHash('sha256').update(block.bytes).digest()
  const send = (abortSignal: AbortSignal): Promise<void> => requests.send({ ...block, digest }, abortSignal)
  await attempts.once('ebs:PutSnapshotBlock', signal, send)
  return digest
}
