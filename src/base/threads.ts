import { setTimeout as later } from 'node:timers/promises'
import { getEnvironmentData, isMainThread, setEnvironmentData, type Worker } from 'node:worker_threads'

// A thread that is ended while it loads a native library takes the whole process along: every call of the library's beginning fails, and the AWS Common Runtime
// answers that with exit(255). So whoever loads one says so, in memory that all threads share, and whoever ends a thread, or the process, waits for that.
//
//   words: | threads that load one now | threads that are being ended |      32-bit; each side counts itself first and looks at the other then

const [loadingWord, endingWord] = [0, 1]
/** A load takes 0.1 s. A thread that died of something else in the middle of one is not waited for any longer. */
const waitMillisMax = 5_000
const lookMillis = 2
const key = 'vra: native libraries being loaded'

const words = sharedWords()

/** Threads are given this as they begin; the process's first thread makes it. */
function sharedWords(): Int32Array {
  const known = getEnvironmentData(key)
  if (known instanceof SharedArrayBuffer) return new Int32Array(known)
  const memory = new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT)
  setEnvironmentData(key, memory)
  return new Int32Array(memory)
}

if (isMainThread)
  process.on('exit', () => {
    Atomics.add(words, endingWord, 1) // for good: what ends now are all threads
    for (let at = loadingCount(); at > 0; at = loadingCount())
      if (Atomics.wait(words, loadingWord, at, waitMillisMax) === 'timed-out') return
  })

/** What `load` returns; undefined, and it was not called, while a thread is being ended: to be tried again. */
export function loadedNatively<T>(load: () => T): T | undefined {
  Atomics.add(words, loadingWord, 1)
  try {
    return Atomics.load(words, endingWord) > 0 ? undefined : load()
  } finally {
    Atomics.sub(words, loadingWord, 1)
    Atomics.notify(words, loadingWord)
  }
}

/** The thread has ended on return. It is ended at once, whatever it does, but for a native library that some thread is loading. */
export async function endThread(worker: Worker | undefined): Promise<void> {
  if (worker === undefined) return
  Atomics.add(words, endingWord, 1)
  try {
    const endMillis = performance.now() + waitMillisMax
    while (loadingCount() > 0 && performance.now() < endMillis) await later(lookMillis)
    await worker.terminate()
  } finally {
    Atomics.sub(words, endingWord, 1)
  }
}

function loadingCount(): number {
  return Atomics.load(words, loadingWord)
}
