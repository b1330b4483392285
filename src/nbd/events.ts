/** What the NBD server tells; the log and the metrics implement it. */
export interface NbdEvents {
  clientConnected(exportName: string, client: { readonly address: string; readonly connectionCount: number }): void
  clientGone(exportName: string, client: { readonly address: string; readonly connectionCount: number }): void
  /** A connection was closed because of what it sent; `reason` is a sentence. */
  clientRefused(address: string, reason: string): void
  /** A request was answered with an error that the export gave; protocol errors of the client are not told. */
  requestFailed(exportName: string, request: { readonly command: string; readonly error: unknown }): void
}

export const silentNbdEvents: NbdEvents = {
  clientConnected: () => undefined,
  clientGone: () => undefined,
  clientRefused: () => undefined,
  requestFailed: () => undefined,
}
