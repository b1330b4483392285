import { setPriority } from 'node:os'

const backgroundNice = 5

/**
 * From here on the calling thread stands behind those that acknowledgements wait for when all want the processor: on Linux a
 * priority is a thread's own. It still has a quarter of a core then, where one other wants it, and whatever nobody else wants.
 */
export function standBehind(): void {
  try {
    setPriority(backgroundNice)
  } catch {
    // Not allowed here: then all threads are equal.
  }
}
