import * as fs from 'node:fs'

/** An open file. Offsets and sizes in bytes. Any call may throw an Error with a `code` (EIO, ENOSPC...). */
export interface DiskFile {
  /** Reads up to target.length bytes at the offset; returns how many there were. */
  read(target: Uint8Array, offsetBytes: number): number
  /** Writes every byte of every piece, one behind the other from the offset, or throws. Not durable before sync(). */
  write(pieces: readonly Uint8Array[], offsetBytes: number): void
  /** fdatasync: on return all that was written before is durable. A throw is final for this file: never retry it. */
  sync(): void
  sizeBytes(): number
  truncate(sizeBytes: number): void
  close(): void
}

/** IOV_MAX on Linux. */
const ioVectorMax = 1024

/** Of a descriptor that somebody has opened. */
export class RealFile implements DiskFile {
  readonly #descriptor: number

  constructor(descriptor: number) {
    this.#descriptor = descriptor
  }

  read(target: Uint8Array, offsetBytes: number): number {
    let done = 0
    while (done < target.length) {
      const count = fs.readSync(this.#descriptor, target, done, target.length - done, offsetBytes + done)
      if (count === 0) break
      done += count
    }
    return done
  }

  write(pieces: readonly Uint8Array[], offsetBytes: number): void {
    const [only] = pieces
    if (pieces.length === 1 && only !== undefined) {
      // Two microseconds less than a vector of one: an export makes a call of each of a million pieces.
      for (let done = 0; done < only.length;)
        done += fs.writeSync(this.#descriptor, only, done, only.length - done, offsetBytes + done)
      return
    }
    let at = offsetBytes
    for (let first = 0; first < pieces.length; first += ioVectorMax) {
      const chunk = pieces.slice(first, first + ioVectorMax)
      const sizeBytes = chunk.reduce((sum, piece) => sum + piece.length, 0)
      const written = fs.writevSync(this.#descriptor, chunk, at)
      if (written < sizeBytes) this.#writeRest(chunk, written, at)
      at += sizeBytes
    }
  }

  /** A short write is legal; what is left goes piece by piece. */
  #writeRest(pieces: readonly Uint8Array[], written: number, offsetBytes: number): void {
    let pieceStart = 0
    for (const piece of pieces) {
      for (let from = Math.max(0, written - pieceStart); from < piece.length;) {
        from += fs.writeSync(this.#descriptor, piece, from, piece.length - from, offsetBytes + pieceStart + from)
      }
      pieceStart += piece.length
    }
  }

  sync(): void {
    fs.fdatasyncSync(this.#descriptor)
  }

  sizeBytes(): number {
    return fs.fstatSync(this.#descriptor).size
  }

  truncate(sizeBytes: number): void {
    fs.ftruncateSync(this.#descriptor, sizeBytes)
  }

  close(): void {
    fs.closeSync(this.#descriptor)
  }
}
