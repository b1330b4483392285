import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { BrokenHistory, runHistory, type Mutations } from './history.ts'

// Histories in a thread of their own: without the hooks by which a test runner follows every promise, and with room for the many short-lived
// objects, they take a third of the time.

interface Run {
  readonly seeds: readonly number[]
  readonly mutations: Mutations
}

const youngGenerationSizeMb = 64
let worker: Worker | undefined

/** What the first broken history says; undefined where none is. One call at a time. */
export function firstBroken(seeds: readonly number[], mutations: Mutations = {}): Promise<string | undefined> {
  const file = new URL(import.meta.url)
  worker ??= new Worker(file, {
    execArgv: [],
    env: {},
    resourceLimits: { maxYoungGenerationSizeMb: youngGenerationSizeMb },
  })
  const asked = worker
  asked.ref()
  return new Promise((resolve, reject) => {
    const heard = (said: string | undefined): void => {
      asked.off('error', reject)
      asked.unref()
      resolve(said)
    }
    asked.once('error', reject)
    asked.once('message', heard)
    asked.postMessage({ seeds, mutations } satisfies Run)
  })
}

/** Consecutive seeds, in shares of so many each. */
export function sharesOf(seeds: { readonly first: number; readonly count: number }, shareSize: number): number[][] {
  const shares: number[][] = []
  for (let at = 0; at < seeds.count; at += shareSize)
    shares.push(Array.from({ length: Math.min(shareSize, seeds.count - at) }, (_, index) => seeds.first + at + index))
  return shares
}

async function firstBrokenHere({ seeds, mutations }: Run): Promise<string | undefined> {
  for (const seed of seeds) {
    try {
      await runHistory({ seed, mutations })
    } catch (error) {
      if (!(error instanceof BrokenHistory)) throw error
      return error.message
    }
  }
  return undefined
}

if (!isMainThread)
  parentPort?.on('message', (run: Run) => void firstBrokenHere(run).then(said => parentPort?.postMessage(said)))
