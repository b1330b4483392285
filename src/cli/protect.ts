import { Command } from 'commander'
import { Failure } from '../base/failure.ts'
import type { AgentConfig } from '../config/config.ts'
import { collected, countArgument, pairArgument, sizeArgument } from './client.ts'
import { untilStopped, type RunRole } from './serve.ts'

interface ProtectOptions {
  readonly config?: string
  readonly vpg?: string
  readonly agent?: string
  readonly vra?: string
  readonly disk?: readonly (readonly [string, string])[]
  readonly nbdPort?: number
  readonly controlPort?: number
  readonly stateDirectory?: string
  readonly queue?: number
}

export function protectCommand(runAgent: RunRole<AgentConfig>): Command {
  return new Command('protect')
    .description('run the agent in the foreground: serve disks over NBD and stream their writes to the VRA')
    .option('--config <file>', 'see `vra config example agent`; takes the place of the other options')
    .option('--vpg <name>', 'the group whose disks these are')
    .option('--agent <name>', "this agent's name, as the group lists it")
    .option('--vra <host:port>', 'where the VRA listens (default: 127.0.0.1:7420)')
    .option('--disk <name=path>', 'a volume: a raw file or a block device; once for each', collected(pairArgument))
    .option('--nbd-port <port>', 'where guests find their disks (default: 10809)', countArgument)
    .option('--control-port <port>', 'where it tells its status and metrics (default: 7422)', countArgument)
    .option('--state-directory <directory>', 'what the agent remembers across restarts (default: ./vra-agent-state)')
    .option('--queue <size>', 'writes that wait for the VRA, in memory (default: 256MiB)', sizeArgument)
    .addHelpText(
      'after',
      `
The guest's disk is then nbd://127.0.0.1:10809/NAME (qemu, nbd-client, nbdfuse). Beyond loopback, use a configuration file with tls.
SIGTERM and SIGINT stop it in order. With --config a SIGHUP has it read the list of volumes again: those that are new are served, others are not any more,
and a disk that has grown is served with its new size (its guests connect again).

Examples:
  vra protect --vpg web --agent host1 --disk root=/var/lib/disks/root.img
  vra protect --config /etc/vra/agent.yaml`,
    )
    .action(async (options: ProtectOptions) => {
      // A reload that comes before there is something to reload, or after, ends nothing.
      if (options.config !== undefined) process.on('SIGHUP', () => undefined)
      const config = await agentConfigOf(options)
      const { loadAgentConfig } = await import('../config/config.ts')
      const { config: file } = options
      const readConfig = file === undefined ? undefined : () => loadAgentConfig(file, process.env)
      await untilStopped(signal => runAgent(config, signal, readConfig))
    })
}

async function agentConfigOf(options: ProtectOptions): Promise<AgentConfig> {
  const { agentConfigFrom, loadAgentConfig } = await import('../config/config.ts')
  const { config, ...flags } = options
  if (config === undefined) return agentConfigFrom(valuesOf(flags), process.env)
  const given = Object.keys(flags)
  if (given.length > 0)
    throw new Failure('REQUEST_INVALID', `give either --config or the other options, not both (${given.join(', ')})`)
  return loadAgentConfig(config, process.env)
}

/** What the file would have said. */
function valuesOf(flags: Omit<ProtectOptions, 'config'>): object {
  const { vpg, agent, vra, disk, nbdPort, controlPort, stateDirectory, queue } = flags
  for (const [value, option] of [
    [vpg, '--vpg'],
    [agent, '--agent'],
    [disk, '--disk'],
  ] as const)
    if (value === undefined) throw new Failure('REQUEST_INVALID', `${option} is missing (or give --config FILE)`)
  return {
    agentId: agent,
    vpg,
    volumes: disk?.map(([name, path]) => ({ name, path })),
    ...(vra === undefined ? {} : { vra: addressOf(vra) }),
    ...(nbdPort === undefined ? {} : { nbd: { port: nbdPort } }),
    ...(controlPort === undefined ? {} : { control: { port: controlPort } }),
    ...(stateDirectory === undefined ? {} : { stateDirectory }),
    ...(queue === undefined ? {} : { queueSizeBytesMax: queue }),
  }
}

/** "host", "host:port", "[::1]:port" */
function addressOf(text: string): { host: string; port?: number } {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  if (host === undefined) throw new Failure('REQUEST_INVALID', `--vra ${text} is not host:port`)
  return { host, ...(match?.[3] === undefined ? {} : { port: Number(match[3]) }) }
}
