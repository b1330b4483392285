import { Failure } from '../base/failure.ts'

/** What the system says of a file or directory (ENOSPC, EIO, EACCES...) is DISK_FAILED, with its name; all else fails as it does. */
export async function onDisk<T>(file: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const { code, errno, message } = error as NodeJS.ErrnoException
    if (error instanceof Failure || code === undefined || errno === undefined) throw error
    const why = code === 'ENOSPC' ? 'its file system is full: make room; it goes on from here' : message
    throw new Failure('DISK_FAILED', `${file}: ${why}`, { file }, { cause: error })
  }
}
