import type { OpenVolumeFile } from '../../src/disk/disk.ts'
import type { FaultyDisk } from './faulty-disk.ts'

/** The files of a faulty disk as an agent opens them: calls that take a turn of the event loop each, in the order of their making. */
export function faultyVolumeFiles(disk: FaultyDisk): OpenVolumeFile {
  return path => {
    const file = disk.open(path, 'write')
    const identity = { device: '1', inode: path, modifiedNanos: '0', changedNanos: '0' }
    const later = async <T>(call: () => T): Promise<T> => {
      await new Promise(resolve => setImmediate(resolve))
      return call()
    }
    return {
      sizeBytes: file.sizeBytes(),
      isOneHole: false,
      claim: async () => undefined,
      currentSizeBytes: () => file.sizeBytes(),
      read: (target, offsetBytes) => later(() => void file.read(target, offsetBytes)),
      write: (data, offsetBytes) => later(() => file.write([data], offsetBytes)),
      sync: () => later(() => file.sync()),
      identity: () => ({ ...identity, sizeBytes: file.sizeBytes() }),
      close: () => later(() => file.close()),
    }
  }
}
