import { silentCutEvents, type CutEvents } from '../cut/events.ts'

/** What the agent tells; the log and the metrics implement it. */
export interface AgentEvents extends CutEvents {
  /** The session with the VRA is open; `resendRecordCount` numbered records wait for it. */
  linkUp(link: { readonly address: string; readonly epoch: number; readonly resendRecordCount: number }): void
  /** The session ended or could not be opened; the agent tries again after the delay. Guests do not feel it. */
  linkDown(reason: {
    readonly code: string
    readonly sentence: string
    readonly retryDelayMillis: number
    /** A person has to mend it: who the agent is, what the VPG is, a sync. */
    readonly refused: boolean
  }): void
  /** Nothing is numbered any more until a new generation is opened: writes are marked only. Guests do not feel it. */
  detached(reason: string): void
  /** Everything is numbered from here on, in this generation. */
  generationOpened(opened: { readonly generation: number }): void
  /** The VRA's word on whether this agent sends anything. */
  paused(isPaused: boolean): void
  /** Nothing is written any more, for this operation; empty: guests write again. */
  quiesced(by: string): void
  /** The VRA does not take this volume, for this reason; it takes the others. */
  volumeRefused(volume: string, sentence: string): void
  /** A synchronisation of the volume is open: it begins as soon as a session allows it. */
  syncOpened(volume: string, sync: { readonly kind: string; readonly reason: string }): void
  /** Sync blocks have their numbers. */
  syncNumbered(volume: string, blocks: { readonly recordCount: number; readonly sizeBytes: number }): void
  /** The local disk does not give what is to be sent; it is tried again, and the synchronisation does not end before. */
  syncReadFailed(volume: string, place: { readonly offsetBytes: number; readonly error: unknown }): void
  /** All of the volume has its number. */
  syncEnded(
    volume: string,
    sync: { readonly kind: string; readonly sentBytes: number; readonly doneBytes: number },
  ): void
  /** What is offloaded keeps its marks for now, so that a restart would send it again. */
  marksNotCleared(volume: string, error: unknown): void
  /** The state directory could not be written; what it should have said still holds while the agent runs. */
  stateNotSaved(error: unknown): void
  /** A request of the guest was answered with an error of the local disk. */
  localDiskFailed(volume: string, request: { readonly command: string; readonly error: unknown }): void
  /** A guest's write has its number. */
  writeNumbered(volume: string, write: { readonly recordCount: number; readonly sizeBytes: number }): void
  batchSealed(batch: {
    readonly recordCount: number
    readonly rawSizeBytes: number
    readonly frameSizeBytes: number
  }): void
  /** The thread that sealed batches has ended, for this reason. Its batches are sealed in line, and so are all others until there is another thread. */
  sealingThreadEnded(reason: string): void
  markerNumbered(marker: { readonly term: number; readonly counter: number; readonly requestId: number }): void
  /** Everything up to the sequence is durable at the VRA. */
  acknowledged(progress: { readonly sequence: number; readonly queuedBytes: number }): void
  clientConnected(volume: string, address: string): void
  clientGone(volume: string, address: string): void
  clientRefused(address: string, reason: string): void
}

export const silentAgentEvents: AgentEvents = {
  ...silentCutEvents,
  linkUp: () => undefined,
  linkDown: () => undefined,
  detached: () => undefined,
  generationOpened: () => undefined,
  paused: () => undefined,
  quiesced: () => undefined,
  volumeRefused: () => undefined,
  syncOpened: () => undefined,
  syncNumbered: () => undefined,
  syncReadFailed: () => undefined,
  syncEnded: () => undefined,
  marksNotCleared: () => undefined,
  stateNotSaved: () => undefined,
  localDiskFailed: () => undefined,
  writeNumbered: () => undefined,
  batchSealed: () => undefined,
  sealingThreadEnded: () => undefined,
  markerNumbered: () => undefined,
  acknowledged: () => undefined,
  clientConnected: () => undefined,
  clientGone: () => undefined,
  clientRefused: () => undefined,
}
