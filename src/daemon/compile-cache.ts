import * as nodeModule from 'node:module'
import * as path from 'node:path'

/** What later versions of Node have and the types of the oldest one that is supported do not. */
interface WithCompileCache {
  /** From Node 22.1. */
  readonly enableCompileCache?: (directory: string) => unknown
  /** From Node 22.10; before, what was compiled is kept at an orderly end only. */
  readonly flushCompileCache?: () => void
}

const { enableCompileCache, flushCompileCache } = nodeModule as unknown as WithCompileCache

/**
 * Keeps compiled code below the data directory, for this thread and those that it starts from now on; nobody else can write there. A
 * start is then quicker where Node can do it, and as ever where it cannot, or where the directory cannot be written.
 */
export function useCompileCache(dataDirectory: string): void {
  if (enableCompileCache === undefined) return
  const directory = path.join(dataDirectory, 'compile-cache')
  enableCompileCache(directory)
  process.env['NODE_COMPILE_CACHE'] ??= directory // how threads are told
}

/** Keeps what was compiled so far: a process that is killed later has done so, too. */
export function flushCompileCacheNow(): void {
  flushCompileCache?.()
}
