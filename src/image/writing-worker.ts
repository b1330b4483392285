import { workerData } from 'node:worker_threads'
import { realDisk, type DiskFile } from '../disk/disk.ts'
import { PieceBuffer } from './piece-buffer.ts'
import {
  atOnce,
  endWanted,
  filledCount,
  notYet,
  writingEnded,
  writtenCount,
  type WritingEnd,
  type WritingWorkerData,
} from './writing-thread.ts'

// The thread that writes an export's buffers as they come; see writing-thread.ts. It lives in this one loop.

const { file: name, state: sharedState, memory, port } = workerData as WritingWorkerData
const state = new Int32Array(sharedState)
const buffers = memory.map(each => new PieceBuffer(each))

function writeAll(file: DiskFile): void {
  for (let written = 0; ;) {
    Atomics.wait(state, filledCount, written)
    const how = Atomics.load(state, endWanted)
    if (how === atOnce) return
    const filled = Atomics.load(state, filledCount) - (how === notYet ? 0 : 1)
    for (; written < filled; written++) {
      buffers[written % buffers.length]!.writeTo(file)
      Atomics.store(state, writtenCount, written + 1)
      Atomics.notify(state, writtenCount)
    }
    if (how !== notYet) break
  }
  file.sync()
}

function run(): WritingEnd {
  try {
    const file = realDisk.open(name, 'write')
    try {
      writeAll(file)
    } finally {
      file.close()
    }
    return { failure: undefined }
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    return { failure: { message, code } }
  }
}

port.postMessage(run())
port.close()
Atomics.store(state, writtenCount, writingEnded)
Atomics.notify(state, writtenCount)
