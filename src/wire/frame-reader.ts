import { frameHeaderSizeBytes } from '../base/limits.ts'
import { parseFrameHeader } from './frame.ts'

/**
 * Cuts a byte stream into frames, for the side that has memory of its own to put them in. Every byte is copied at most
 * once, and nothing is allocated before the header has been checked. What it gives out has a valid header; checksum and
 * body are decodeFrame()'s.
 */
export class FrameReader {
  readonly #header = Buffer.alloc(frameHeaderSizeBytes)
  #headerFilled = 0
  #frame: Buffer | undefined
  #frameFilled = 0

  /** The frames that `chunk` completes. Fails FRAME_INVALID or VERSION_UNSUPPORTED; the stream is then useless. */
  push(chunk: Uint8Array): Buffer[] {
    const frames: Buffer[] = []
    for (let at = 0; at < chunk.length;) {
      if (this.#frame === undefined) {
        const piece = chunk.subarray(at, at + frameHeaderSizeBytes - this.#headerFilled)
        this.#header.set(piece, this.#headerFilled)
        this.#headerFilled += piece.length
        at += piece.length
        this.#frame = this.#openFrame()
      } else {
        const piece = chunk.subarray(at, at + this.#frame.length - this.#frameFilled)
        this.#frame.set(piece, this.#frameFilled)
        this.#frameFilled += piece.length
        at += piece.length
      }
      if (this.#frame === undefined || this.#frameFilled < this.#frame.length) continue
      frames.push(this.#frame)
      this.#frame = undefined
      this.#headerFilled = 0
    }
    return frames
  }

  /** Memory for the frame whose header is complete. */
  #openFrame(): Buffer | undefined {
    if (this.#headerFilled < frameHeaderSizeBytes) return undefined
    const { bodySizeBytes } = parseFrameHeader(this.#header)
    const frame = Buffer.allocUnsafeSlow(frameHeaderSizeBytes + bodySizeBytes)
    frame.set(this.#header)
    this.#frameFilled = frameHeaderSizeBytes
    return frame
  }
}
