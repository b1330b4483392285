import { finished } from 'node:stream/promises'
import type { Readable } from 'node:stream'
import { PutSnapshotBlockCommand, type EBSClient } from '@aws-sdk/client-ebs'
import { assert } from '../base/assert.ts'

// PutSnapshotBlock, past the SDK's middleware: that takes 1.1 ms of processor for each request, three times as much as its SHA-256, and as much as all the rest.
//
//   first     the SDK builds a request, which is kept instead of sent: endpoint, headers, what the environment and the profile say
//   each      that request with the block's place and digest ─> the SDK's signer ─> the SDK's request handler: its time limits, its sockets
//   answers   a success is drained; any other goes through the SDK's middleware as if it had come there, which throws the error that it makes of it,
//             and learns from it how far this clock is off

export interface Block {
  readonly snapshot: string
  readonly index: number
  readonly bytes: Uint8Array
  /** SHA-256. */
  readonly digest: Buffer
}

type Signer = Awaited<ReturnType<EBSClient['config']['signer']>>
type Request = Parameters<EBSClient['config']['requestHandler']['handle']>[0]
type Response = Awaited<ReturnType<EBSClient['config']['requestHandler']['handle']>>['response']

export class BlockRequests {
  readonly #client: EBSClient
  #base: { readonly signer: Signer; readonly request: Request; readonly pathPrefix: string } | undefined

  constructor(client: EBSClient) {
    this.#client = client
  }

  /** One try. Fails with what the SDK's client would fail with. */
  async send(block: Block, signal: AbortSignal): Promise<void> {
    const { config } = this.#client
    this.#base ??= await this.#newBase(block)
    const { signer, request, pathPrefix } = this.#base
    const { snapshot, index, bytes, digest } = block
    const checksum = digest.toString('base64')
    const contentHash = digest.toString('hex')
    const signed = await signer.sign(
      {
        ...request,
        path: `${pathPrefix}${placeOf(snapshot, index)}`,
        headers: { ...request.headers, 'x-amz-checksum': checksum, 'x-amz-content-sha256': contentHash },
        body: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length),
      },
      { signingDate: new Date(Date.now() + config.systemClockOffset) },
    )
    const { response } = await config.requestHandler.handle(signed as Request, { abortSignal: signal })
    if (response.statusCode >= 300) return await this.#fail(block, response, signal)
    await finished((response.body as Readable).resume())
  }

  async #newBase(block: Block) {
    const command = commandOf(block)
    let built: Request | undefined
    command.middlewareStack.add(
      () => args => {
        built = args.request as Request
        return Promise.resolve({ response: undefined, output: { $metadata: {} } })
      },
      { step: 'build', priority: 'low', name: 'keepRequest' },
    )
    await this.#client.send(command)
    const place = placeOf(block.snapshot, block.index)
    assert(built?.path.endsWith(place) === true, 'a block is put to a place of its own')
    return {
      signer: await this.#client.config.signer(),
      request: { ...built, body: undefined },
      pathPrefix: built.path.slice(0, -place.length),
    }
  }

  async #fail(block: Block, response: Response, signal: AbortSignal): Promise<void> {
    const command = commandOf(block)
    command.middlewareStack.add(() => () => Promise.resolve({ response }), {
      step: 'deserialize',
      priority: 'low',
      name: 'answer',
    })
    await this.#client.send(command, { abortSignal: signal })
  }
}

function placeOf(snapshot: string, index: number): string {
  return ['', 'snapshots', snapshot, 'blocks', index].join('/')
}

function commandOf({ snapshot, index, bytes, digest }: Block): PutSnapshotBlockCommand {
  return new PutSnapshotBlockCommand({
    SnapshotId: snapshot,
    BlockIndex: index,
    BlockData: bytes,
    DataLength: bytes.length,
    Checksum: digest.toString('base64'),
    ChecksumAlgorithm: 'SHA256',
  })
}
