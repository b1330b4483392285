import * as path from 'node:path'
import { realFileCalls, type FileCalls } from '../../src/disk/disk.ts'

// File calls that are made for real and watched: which names and bytes would a power cut take away now?

export interface RecordedCalls {
  readonly calls: FileCalls
  /** Names below the root, staged files aside, that are not durable: their directory was not synced since, or their bytes were not. */
  undurable(root: string): string[]
  failNextDirectorySync(errorCode: string): void
}

export function recordedCalls(): RecordedCalls {
  const unsyncedNames = new Set<string>()
  const unsyncedBytes = new Set<string>()
  let failure: string | undefined

  const open: FileCalls['open'] = async (file, flags, mode) => {
    const handle = await realFileCalls.open(file, flags, mode)
    const name = String(file)
    const { write, sync, datasync } = handle
    if (flags === 'wx') unsyncedBytes.add(name)
    handle.write = (async (...given: Parameters<typeof write>) => {
      unsyncedBytes.add(name)
      return await write.apply(handle, given)
    }) as typeof write
    handle.datasync = async () => {
      await datasync.call(handle)
      unsyncedBytes.delete(name)
    }
    handle.sync = async () => {
      if (failure !== undefined) {
        const code = failure
        failure = undefined
        throw Object.assign(new Error(`${code}: fsync`), { code, syscall: 'fsync' })
      }
      await sync.call(handle)
      unsyncedBytes.delete(name)
      for (const child of unsyncedNames) if (path.dirname(child) === name) unsyncedNames.delete(child)
    }
    return handle
  }

  const mkdir = (async (directory: string, options: { recursive: true; mode: number }) => {
    const first = await realFileCalls.mkdir(directory, options)
    for (let at = directory; first !== undefined && at.length >= first.length; at = path.dirname(at))
      unsyncedNames.add(at)
    return first
  }) as FileCalls['mkdir']

  const link: FileCalls['link'] = async (from, to) => {
    await realFileCalls.link(from, to)
    unsyncedNames.add(String(to))
    if (unsyncedBytes.has(String(from))) unsyncedBytes.add(String(to))
  }

  const unlink: FileCalls['unlink'] = async file => {
    await realFileCalls.unlink(file)
    unsyncedBytes.delete(String(file))
  }

  return {
    calls: { ...realFileCalls, open, mkdir, link, unlink },
    undurable: root => [...unsyncedNames, ...unsyncedBytes].filter(name => name.startsWith(root)).sort(),
    failNextDirectorySync: errorCode => (failure = errorCode),
  }
}
