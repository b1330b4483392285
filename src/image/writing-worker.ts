import { parentPort, workerData } from 'node:worker_threads'
import { realDisk, type DiskFile } from '../disk/disk.ts'
import { PieceBuffer } from './piece-buffer.ts'
import { atOnce, take, tellWritingEnded, writeFilled } from './hand-over.ts'
import type { WritingEnd, WritingWorkerData } from './writing-thread.ts'

// The thread that writes an export's buffers as they come; see hand-over.ts. It lives in this one loop.

const { file: name, state: sharedState, memory, port } = workerData as WritingWorkerData
const state = new Int32Array(sharedState)
const buffers = memory.map(each => new PieceBuffer(each))

let written = 0

function write(file: DiskFile, index: number): void {
  buffers[index % buffers.length]!.writeTo(file)
  written++
}

function run(): WritingEnd {
  try {
    const file = realDisk.open(name, 'write')
    try {
      if (take(writeFilled(), state, index => write(file, index)) !== atOnce) file.sync()
    } finally {
      file.close()
    }
    return { failure: undefined, writtenCount: written }
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    return { failure: { message, code }, writtenCount: written }
  }
}

parentPort?.postMessage('born')
port.postMessage(run())
port.close()
take(tellWritingEnded(), state, () => undefined)
