import { workerData } from 'node:worker_threads'
import { realDisk, type DiskFile } from '../disk/disk.ts'
import { PieceBuffer } from './piece-buffer.ts'
import {
  atOnce,
  endTold,
  endWanted,
  filledCount,
  lastFilledCount,
  writingEnded,
  writtenCount,
  type WritingEnd,
  type WritingWorkerData,
} from './writing-thread.ts'

// The thread that writes an export's buffers as they come; see writing-thread.ts. It lives in this one loop.

const { file: name, state: sharedState, memory, port } = workerData as WritingWorkerData
const state = new Int32Array(sharedState)
const buffers = memory.map(each => new PieceBuffer(each))

let written = 0

function writeAll(file: DiskFile): void {
  for (;;) {
    Atomics.wait(state, filledCount, written)
    const told = Atomics.load(state, filledCount)
    const isOver = told === endTold
    if (isOver && Atomics.load(state, endWanted) === atOnce) return
    const filled = isOver ? Atomics.load(state, lastFilledCount) : told
    while (written < filled) {
      buffers[written % buffers.length]!.writeTo(file)
      Atomics.store(state, writtenCount, ++written)
      Atomics.notify(state, writtenCount)
    }
    if (isOver) break
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
    return { failure: undefined, writtenCount: written }
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    return { failure: { message, code }, writtenCount: written }
  }
}

port.postMessage(run())
port.close()
Atomics.store(state, writtenCount, writingEnded)
Atomics.notify(state, writtenCount)
