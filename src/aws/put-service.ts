import type { AwsConfig } from './service.ts'

// A thread that puts blocks, seen from the aws thread; its file is put-worker.ts.

export interface PutService {
  open(argument: { readonly aws: AwsConfig; readonly memory: SharedArrayBuffer }): Promise<void>
  /** One try. The digest of the bytes that were put; the block's memory is the caller's again on return. */
  put(argument: { readonly snapshot: string; readonly index: number; readonly slot: number }): Promise<Uint8Array>
  /** Puts to this snapshot that are under way fail CLOSING. */
  abandon(argument: { readonly snapshot: string }): Promise<void>
  close(argument: undefined): Promise<void>
}
