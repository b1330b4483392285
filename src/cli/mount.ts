import type { Command } from 'commander'
import { ControlClient } from '../control/client.ts'
import type { MountFacts } from '../control/service.ts'
import { instantInWords, sizeInWords } from '../control/words.ts'
import { checkpointOption } from './checkpoint.ts'
import { clientCommand, type ClientOptions } from './client.ts'
import { printJson, printLine, printTable, say } from './output.ts'

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
      const stopped = new Promise<void>(resolve => {
        process.once('SIGINT', resolve)
        process.once('SIGTERM', resolve)
      })
      const client = new ControlClient(url)
      const mount = await client.startMount({ vpg, checkpoint, ...(volume === undefined ? {} : { volume }) })
      try {
        if (json) printJson(mount)
        else await tell(mount)
        say('Ctrl-C ends it.')
        await stopped
      } finally {
        await client.endMount(mount.id)
      }
    })
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
  nbdfuse /tmp/disk.img --readonly '${uri}' &          # a file that is the disk (of package nbdfuse)
  mount -o ro,loop,noload /tmp/disk.img /mnt           # noload: ext4 writes nothing; xfs: ro,loop,norecovery
  umount /mnt; fusermount3 -u /tmp/disk.img
or, where the kernel has nbd: nbd-client -R -N '${new URL(uri).pathname.slice(1)}' ${new URL(uri).host.replace(':', ' ')} /dev/nbd0
`)
}
