import { spawn } from 'node:child_process'

// The smallest machine there is: a boot sector that says something on the serial port, writes itself behind itself, and turns the machine off.

const message = 'recovered, and running\r\n'

// prettier-ignore
const code = [
  0x31, 0xc0,             // xor ax, ax
  0x8e, 0xd8, 0x8e, 0xc0, // mov ds, ax; mov es, ax
  0xfc,                   // cld
  0xbe, 0x2c, 0x7c,       // mov si, 7c2c     the message, behind the code
  0xba, 0xf8, 0x03,       // mov dx, 3f8      the serial port
  0xac,                   // lodsb            <─┐
  0x84, 0xc0, 0x74, 0x03, // test al, al; jz    │ ─┐
  0xee, 0xeb, 0xf8,       // out dx, al; jmp   ─┘  │
  0xb8, 0x01, 0x03,       // mov ax, 0301       <──┘  write one sector,
  0xbb, 0x00, 0x7c,       // mov bx, 7c00      this one,
  0xb9, 0x02, 0x00,       // mov cx, 2         as the second
  0xba, 0x80, 0x00,       // mov dx, 80        of the first disk
  0xcd, 0x13,             // int 13
  0xba, 0xf4, 0x00,       // mov dx, f4        the device that ends the emulator,
  0xb0, 0x10, 0xee,       // mov al, 10; out dx, al     with 2 * 10h + 1
  0xf4, 0xeb, 0xfd,       // hlt; jmp
]

/** For the first bytes of a disk: the boot sector, and a second one that says that there is a partition table. */
export function bootSectors(): Buffer {
  const sectors = Buffer.alloc(1024)
  Buffer.from(code).copy(sectors)
  sectors.write(message, code.length, 'latin1')
  sectors.write('\x55\xaaEFI PART', 510, 'latin1')
  return sectors
}

export interface Booted {
  /** It has said all that it had to, and turned itself off. */
  readonly hasRun: boolean
  readonly output: string
}

/** Boots a machine whose first disk this is: emulated, so that it needs no hardware of the host's. */
export function boot(uri: string): Promise<Booted> {
  const drive = `file=${uri},format=raw,if=ide`
  const machine = ['-machine', 'pc,accel=tcg', '-m', '32', '-display', 'none', '-serial', 'stdio', '-no-reboot']
  const devices = ['-nic', 'none', '-drive', drive, '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04']
  const emulator = spawn('qemu-system-x86_64', [...machine, ...devices], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 180_000,
    killSignal: 'SIGKILL',
  })
  let output = ''
  emulator.stdout.on('data', chunk => (output += String(chunk)))
  emulator.stderr.on('data', chunk => (output += String(chunk)))
  return new Promise((resolve, reject) => {
    emulator.once('error', reject)
    emulator.once('close', status => resolve({ hasRun: status === 33 && output.includes(message.trim()), output }))
  })
}
