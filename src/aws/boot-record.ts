import { KiB } from '../base/units.ts'
import type { Image } from '../image/image.ts'

// A volume boots when its first sector is a master boot record: with code of its own (legacy BIOS), or protecting a GPT (UEFI). What has none is data.
//
//   offset  size  field
//        0   446  code
//      446    64  four partition entries; the type (at 4 of each) 0xEE protects a GPT
//      510     2  0x55 0xAA
//      512     8  "EFI PART" where a GPT follows (at 4096 on disks with such sectors)

export async function hasBootRecord(image: Image, volume: number, signal: AbortSignal): Promise<boolean> {
  const sizeBytes = image.volumes.find(({ number }) => number === volume)?.sizeBytes ?? 0
  const head = Buffer.alloc(Math.min(sizeBytes, 8 * KiB))
  await image.read(volume, 0, head, signal)
  if (head.length < 512 || head[510] !== 0x55 || head[511] !== 0xaa) return false
  const isGpt = [512, 4096].some(at => head.subarray(at, at + 8).toString('latin1') === 'EFI PART')
  const types = [0, 1, 2, 3].map(entry => head[446 + 16 * entry + 4])
  // The signature alone is on every FAT and NTFS file system, too: partitions tell the two apart.
  return isGpt || types.some(type => type !== 0) ? isTable(head) || isGpt : false
}

/** Status bytes of a partition table are 0 or 0x80; in a file system's boot sector there is code, or text, in their place. */
function isTable(head: Buffer): boolean {
  return [0, 1, 2, 3].every(entry => [0, 0x80].includes(head[446 + 16 * entry]!))
}
