import type { Disk } from '../disk/disk.ts'
import { PieceBuffer, pieceBufferMemorySizeBytes } from './piece-buffer.ts'

/** Writes the pieces of an export to a file, in an order of its own. */
export interface PieceWriter {
  /** The bytes are the caller's again on return. Throws what the disk said to any piece before. */
  add(offsetBytes: number, bytes: Uint8Array): void
  /** On return every piece is on disk and the file closed. Rejects with what the disk said. */
  finish(): Promise<void>
  /** On return nothing writes to the file any more, and it is closed. Never fails; after finish() it does nothing. */
  abandon(): Promise<void>
}

/** Starts to write to a file that exists. Rejects with what the disk said, and where no thread can be had for it. */
export type OpenPieceWriter = (file: string) => Promise<PieceWriter>

/** Writes in the thread that calls. */
export function pieceWriterOn(disk: Disk): OpenPieceWriter {
  return async name => {
    const file = disk.open(name, 'write')
    const buffer = new PieceBuffer(new ArrayBuffer(pieceBufferMemorySizeBytes))
    let isOpen = true
    const close = (): void => {
      if (!isOpen) return
      isOpen = false
      file.close()
    }
    return {
      add: (offsetBytes, bytes) => {
        for (let done = 0; done < bytes.length;) {
          const taken = buffer.add(offsetBytes + done, bytes.subarray(done))
          if (taken === 0) buffer.writeTo(file)
          done += taken
        }
      },
      finish: async () => {
        buffer.writeTo(file)
        file.sync()
        close()
      },
      abandon: async () => close(),
    }
  }
}
