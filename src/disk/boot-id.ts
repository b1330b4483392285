import { createHash } from 'node:crypto'
import * as fs from 'node:fs'

/** 32 hexadecimal digits: of this start of the machine. Where the kernel does not tell, of this process: none before it was of the same one then. */
export function bootId(): string {
  try {
    return fs.readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim().replaceAll('-', '')
  } catch {
    return createHash('sha256').update(`${process.pid} ${performance.timeOrigin}`).digest('hex').slice(0, 32)
  }
}
