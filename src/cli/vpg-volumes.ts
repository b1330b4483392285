import { Command } from 'commander'
import type { AddVolumeRequest, VpgStatus } from '../control/service.ts'
import { sizeInWords } from '../control/words.ts'
import { clientCommand, clientOf, sizeArgument, volumeArgument, type ClientOptions } from './client.ts'
import { printJson, printLine, say } from './output.ts'

/** The commands that change the volumes of a group which is protected. */
export function volumeCommands(): readonly Command[] {
  return [addVolumeCommand(), removeVolumeCommand(), growVolumeCommand()]
}

function addVolumeCommand(): Command {
  return clientCommand('add-volume', 'protect one volume more')
    .argument('<vpg>')
    .argument('<volume>', '[agent:][vm/]name=size; a new agent is added with its first volume', volumeArgument)
    .action(async (vpg: string, volume: AddVolumeRequest, options: ClientOptions) => {
      print(await clientOf(options).addVolume(vpg, volume), volume.name, options)
      if (!options.json)
        say(
          'Now add the disk to the configuration of its agent, and have it read that again (SIGHUP, systemctl reload vra-agent).',
        )
    })
}

function removeVolumeCommand(): Command {
  return clientCommand('remove-volume', 'end the protection of a volume; older checkpoints keep it')
    .argument('<vpg>')
    .argument('<volume>', 'its name')
    .action(async (vpg: string, volume: string, options: ClientOptions) => {
      const status = await clientOf(options).removeVolume(vpg, volume)
      if (options.json) printJson(status)
      else printLine(`removed ${volume} from ${vpg}`)
      if (!options.json)
        say(`No new checkpoints of ${vpg} until its agent offers it no more: restart it with the new list.`)
    })
}

function growVolumeCommand(): Command {
  return clientCommand('grow-volume', 'make a volume larger; older checkpoints keep the size that it had')
    .argument('<vpg>')
    .argument('<volume>', 'its name')
    .argument('<size>', 'its new size', sizeArgument)
    .action(async (vpg: string, volume: string, sizeBytes: number, options: ClientOptions) => {
      print(await clientOf(options).growVolume(vpg, volume, { sizeBytes }), volume, options)
      if (!options.json)
        say(
          `No new checkpoints of ${vpg} until the disk has that size: enlarge it, and have its agent look (systemctl reload vra-agent, a SIGHUP, or a restart).`,
        )
    })
}

function print(status: VpgStatus, name: string, options: ClientOptions): void {
  if (options.json) {
    printJson(status)
    return
  }
  const volume = status.volumes.find(candidate => candidate.name === name)
  if (volume !== undefined) printLine(`${name}\t${sizeInWords(volume.sizeBytes)}\t${volume.agent}`)
}
