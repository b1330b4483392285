import { Command } from 'commander'
import type { AgentConfig, VraConfig } from '../config/config.ts'
import { awsCommand } from './aws.ts'
import { certsCommand } from './certs.ts'
import { checkpointCommand } from './checkpoint.ts'
import { configCommand } from './config.ts'
import { demoCommand, type RunDemo } from './demo.ts'
import { diffCommand } from './diff.ts'
import { drillCommand } from './drill.ts'
import { exitStatusHelp } from './exit.ts'
import { exportCommand } from './export.ts'
import { mountCommand } from './mount.ts'
import { openapiCommand } from './openapi.ts'
import { preseedCommand } from './preseed.ts'
import { protectCommand } from './protect.ts'
import { serveCommand, type RunRole } from './serve.ts'
import { recoverCommand, recoveriesCommand } from './recover.ts'
import { statusCommand } from './status.ts'
import { storeCommand } from './store.ts'
import { syncCommand } from './sync.ts'
import { timelineCommand } from './timeline.ts'
import { verifiableCommand } from './verify.ts'
import { vpgCommand } from './vpg.ts'

/** What the two daemons and the demonstration are; loaded only when they are asked for, so that the other commands start at once. */
export interface Roles {
  readonly runVra: RunRole<VraConfig>
  readonly runAgent: RunRole<AgentConfig>
  readonly runDemo: RunDemo
}

/** The command line. Parsing throws a CommanderError instead of ending the process. */
export function buildProgram(version: string, roles: Roles): Command {
  const program = new Command('vra')
    .description('Continuous data protection: every write kept in order, any disk back as of any checkpoint.')
    .version(version)
    .enablePositionalOptions() // what stands after a command is its own: `vra export list --json`
    .addCommand(serveCommand(roles.runVra))
    .addCommand(protectCommand(roles.runAgent))
    .addCommand(statusCommand())
    .addCommand(vpgCommand())
    .addCommand(checkpointCommand())
    .addCommand(timelineCommand())
    .addCommand(syncCommand())
    .addCommand(preseedCommand())
    .addCommand(recoverCommand())
    .addCommand(recoveriesCommand())
    .addCommand(drillCommand())
    .addCommand(exportCommand())
    .addCommand(mountCommand())
    .addCommand(diffCommand())
    .addCommand(verifiableCommand('journal', 'the commit log: what is acknowledged and may not be in the store yet'))
    .addCommand(verifiableCommand('mirror', 'segments, deltas, base and manifests: what is in the object store'))
    .addCommand(storeCommand())
    .addCommand(awsCommand())
    .addCommand(configCommand())
    .addCommand(certsCommand())
    .addCommand(openapiCommand())
    .addCommand(demoCommand(roles.runDemo))
    .addHelpText(
      'after',
      `
Begin:
  vra serve                                                  the VRA on its defaults; leave it running
  vra vpg create web --volume root=1GiB --agent host1        what is protected
  truncate -s 1G disk.img
  vra protect --vpg web --agent host1 --disk root=disk.img   serves nbd://127.0.0.1:10809/root to a guest
  vra status
  vra export web --volume root --checkpoint "1m ago" --to recovered.img

A command that asks the daemon finds it at --url or VRA_CONTROL_URL (default: http://127.0.0.1:7421).
${exitStatusHelp}`,
    )
  prepare(program)
  return program
}

function prepare(command: Command): void {
  command.exitOverride().showSuggestionAfterError(true).showHelpAfterError('(--help says more)').helpCommand(false)
  for (const child of command.commands) prepare(child)
}
