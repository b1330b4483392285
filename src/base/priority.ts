import { setPriority } from 'node:os'

const backgroundNice = 5
const farBackgroundNice = 10

/**
 * From here on the calling thread stands behind those that acknowledgements wait for when all want the processor: on Linux a
 * priority is a thread's own. It still has a quarter of a core then, where one other wants it, and whatever nobody else wants.
 */
export function standBehind(): void {
  setNice(backgroundNice)
}

/** The same behind those that stand behind: a third of what these have, where both want the processor. */
export function standFarBehind(): void {
  setNice(farBackgroundNice)
}

function setNice(nice: number): void {
  try {
    setPriority(nice)
  } catch {
    // Not allowed here: then all threads are equal.
  }
}
