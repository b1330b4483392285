import { setTimeout as delay } from 'node:timers/promises'
import type { Command } from 'commander'
import { Failure, failedWith } from '../base/failure.ts'
import { ControlClient } from '../control/client.ts'
import type { MountFacts } from '../control/service.ts'
import { instantInWords, sizeInWords } from '../control/words.ts'
import { checkpointOption } from './checkpoint.ts'
import { clientCommand, type ClientOptions } from './client.ts'
import { printJson, printLine, printTable, say } from './output.ts'

const lookMillis = 2000

interface MountOptions extends ClientOptions {
  readonly checkpoint: string
  readonly volume?: string
}

export function mountCommand(): Command {
  return clientCommand('mount', 'serve a checkpoint read-only over NBD, for single files, until Ctrl-C')
    .argument('<vpg>')
    .option('--volume <name>', 'one volume of the group; all of them without it')
    .addOption(checkpointOption())
    .addHelpText(
      'after',
      `
Nothing is copied: what is read comes on demand. It prints where each volume is
served, and commands that mount it; when it ends, nothing is left of it.

Examples:
  vra mount web --volume root
  vra mount web --checkpoint "10m ago"`,
    )
    .action(async (vpg: string, { url, json, checkpoint, volume }: MountOptions) => {
      // Listened for from here on: a mount that is being made is ended, too.
      const stopped = new AbortController()
      process.once('SIGINT', () => stopped.abort())
      process.once('SIGTERM', () => stopped.abort())
      const client = new ControlClient(url)
      const mount = await client.startMount({ vpg, checkpoint, ...(volume === undefined ? {} : { volume }) })
      let isServed = true
      try {
        if (json) printJson(mount)
        else await tell(mount)
        say('Ctrl-C ends it.')
        while (isServed && !stopped.signal.aborted) {
          await delay(lookMillis, undefined, { signal: stopped.signal }).catch(() => undefined)
          isServed = await isStillServed(client, mount.id)
        }
      } finally {
        if (isServed) await client.endMount(mount.id)
      }
      if (!isServed)
        throw new Failure(
          'NOT_FOUND',
          `the VRA serves mount ${mount.id} no more: it was ended, or the VRA was started again`,
        )
    })
}

/** A daemon that does not answer may be back in a moment: it says then what became of the mount. */
async function isStillServed(client: ControlClient, id: string): Promise<boolean> {
  try {
    return (await client.mounts()).some(mount => mount.id === id)
  } catch (error) {
    if (failedWith(error, 'PEER_LOST')) return true
    throw error
  }
}

async function tell(mount: MountFacts): Promise<void> {
  const { vpg, checkpoint, checkpointTimestampMicros, volumes } = mount
  printLine(`${vpg} as of checkpoint ${checkpoint}, ${instantInWords(checkpointTimestampMicros)}, read-only`)
  const rows = volumes.map(({ name, sizeBytes, uri }) => [name, sizeInWords(sizeBytes), uri])
  await printTable(['VOLUME', 'SIZE', 'NBD'], rows)
  const uri = volumes[0]?.uri
  if (uri === undefined) return
  say(`
To look at its files, as root:
  touch /tmp/disk.img                                  # it must be there: nbdfuse would cover the whole directory
  nbdfuse --readonly /tmp/disk.img '${uri}' &          # the file is the disk then (Debian: package libnbd-bin)
  mount -o ro,loop,noload /tmp/disk.img /mnt           # noload: ext4 writes nothing; xfs: ro,loop,norecovery
  umount /mnt; fusermount3 -u /tmp/disk.img
or, where the kernel has nbd: nbd-client -R -N '${new URL(uri).pathname.slice(1)}' ${new URL(uri).host.replace(':', ' ')} /dev/nbd0
`)
}
