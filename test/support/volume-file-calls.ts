import { openVolumeFile, type OpenVolumeFile } from '../../src/disk/disk.ts'

export interface VolumeFileCall {
  readonly name: 'claim' | 'read' | 'write' | 'sync'
  readonly path: string
  /** What is read or written; empty of the others. */
  readonly startBytes: number
  readonly endBytes: number
}

/** Real files of volumes. Before each call the test is asked: what it returns is waited for, and what that fails with is the disk's answer. */
export function volumeFilesAsking(before: (call: VolumeFileCall) => Promise<unknown> | undefined): OpenVolumeFile {
  return path => {
    const file = openVolumeFile(path)
    const { claim, read, write, sync } = file
    const asked = (name: VolumeFileCall['name'], bytes: Uint8Array | undefined, offsetBytes: number) =>
      before({ name, path, startBytes: offsetBytes, endBytes: offsetBytes + (bytes?.length ?? 0) }) ?? Promise.resolve()
    return Object.assign(file, {
      claim: () => asked('claim', undefined, 0).then(() => claim.call(file)),
      read: (target: Uint8Array, at: number) => asked('read', target, at).then(() => read.call(file, target, at)),
      write: (data: Uint8Array, at: number) => asked('write', data, at).then(() => write.call(file, data, at)),
      sync: () => asked('sync', undefined, 0).then(() => sync.call(file)),
    })
  }
}

/** Real files of volumes, of which those calls fail that the test says. */
export function failingVolumeFiles(isBad: (call: VolumeFileCall) => boolean): OpenVolumeFile {
  return volumeFilesAsking(call =>
    isBad(call) ? Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })) : undefined,
  )
}
