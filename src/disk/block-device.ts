import * as fs from 'node:fs'
import * as path from 'node:path'
import { sectorSizeBytes } from '../base/units.ts'

// What the kernel tells of a block device below /sys. Its node's times say nothing of its contents: a write leaves them, and who looks after the nodes
// (udev) changes them as he likes.

/** Where the kernel tells it; the tests have trees of their own. */
export interface KernelFiles {
  readonly sys: string
  readonly proc: string
}

const realKernelFiles: KernelFiles = { sys: '/sys', proc: '/proc' }

/** fstat() says 0 for a block device; the kernel tells its size in sectors of 512. */
export function blockDeviceSizeBytes(device: number): number {
  return sectorSizeBytes * Number(read(`${directoryOf(device, realKernelFiles)}/size`))
}

/**
 * Which start of the host, which attachment of the disk, and how much was written to it and discarded since: where two such texts are the same, nobody has
 * written to the device between them, if all that was to be written was on the medium both times. Of a partition it is the whole disk's, through which its
 * sectors can be written, too. Empty where the kernel does not count, or does not say; then nothing can be known. So, too, where it does not number the
 * attachments (before Linux 5.15), of a device that can be attached to something else. What is changed below the device is not
 * counted: the file of a loop device, the disk of a logical volume, a LUN that another host writes to.
 */
export function blockDeviceWrites(device: number, kernel: KernelFiles = realKernelFiles): string {
  try {
    const own = fs.realpathSync(directoryOf(device, kernel))
    const disk = fs.existsSync(`${own}/partition`) ? path.dirname(own) : own
    const boot = read(`${kernel.proc}/sys/kernel/random/boot_id`)
    const counts = read(`${disk}/stat`).split(/\s+/)
    const [writtenSectors, discardedSectors = '0'] = [counts[writtenSectorsField], counts[discardedSectorsField]]
    // A disk that was never written to since it is there may be one whose driver does not count.
    if (boot === '' || writtenSectors === undefined || Number(writtenSectors) === 0) return ''
    if (readIfThere(`${disk}/queue/iostats`) !== '1') return ''
    const attachment = readIfThere(`${disk}/diskseq`) // since Linux 5.15
    if (attachment === '' && isAttachable(disk)) return ''
    return `${boot} ${attachment} ${writtenSectors} ${discardedSectors}`
  } catch {
    return '' // no /sys, or none of this device: everything is believed possible
  }
}

/** The same device, with the same counts, is attached to one thing and then to another; other kinds come anew with counts of their own. */
function isAttachable(disk: string): boolean {
  return /^(loop|nbd)\d/.test(path.basename(disk))
}

/** Of a line that begins with the reads completed, counted from 0 (Documentation/block/stat.rst of the kernel). */
const writtenSectorsField = 6
const discardedSectorsField = 13

function directoryOf(device: number, { sys }: KernelFiles): string {
  const major = Math.floor(device / 256) % 4096
  const minor = (device % 256) + 256 * Math.floor(device / 2 ** 20)
  return `${sys}/dev/block/${major}:${minor}`
}

function read(file: string): string {
  return fs.readFileSync(file, 'latin1').trim()
}

/** Empty in kernels that do not have it. */
function readIfThere(file: string): string {
  return fs.existsSync(file) ? read(file) : ''
}
