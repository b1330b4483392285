import { readFileSync } from 'node:fs'
import { Argument, Command, Option } from 'commander'
import { printJson, printLine } from './output.ts'

// The schemas are loaded when they are asked for: every other command starts without them.
const load = () => import('../config/config.ts')

const roles = ['vra', 'agent'] as const
type Role = (typeof roles)[number]

export function configCommand(): Command {
  return new Command('config')
    .description('write and check configuration files')
    .addCommand(exampleCommand())
    .addCommand(checkCommand())
}

function exampleCommand(): Command {
  return new Command('example')
    .description('a documented file with every option and its default')
    .addArgument(new Argument('<role>', 'vra: the recovery site; agent: the protected site').choices(roles))
    .addHelpText('after', '\nExample:\n  vra config example vra > /etc/vra/vra.yaml')
    .action(async (role: Role) => printLine((await load()).exampleConfig(role).trimEnd()))
}

function checkCommand(): Command {
  return new Command('check')
    .description(
      'say everything that is wrong with a file, or nothing; the environment counts, too; the files that it names are not looked at',
    )
    .argument('<file>')
    .addOption(
      new Option('--role <role>', 'whose file it is')
        .choices(roles)
        .default(undefined, 'agent where the file has an agentId'),
    )
    .option('--json', 'print the configuration that the daemon would run with')
    .action(async (file: string, options: { readonly role?: Role; readonly json?: true }) => {
      const { loadVraConfig, loadAgentConfig } = await load()
      const role = options.role ?? roleOf(file)
      const config = (role === 'vra' ? loadVraConfig : loadAgentConfig)(file, process.env)
      if (options.json) printJson(config)
      else printLine(`${file} is a valid configuration of the ${role === 'vra' ? 'VRA' : 'agent'}`)
    })
}

/** Only an agent's file names an agent. A file that cannot be read is left to who says so. */
function roleOf(file: string): Role {
  try {
    return /^agentId\s*:/m.test(readFileSync(file, 'utf8')) ? 'agent' : 'vra'
  } catch {
    return 'vra'
  }
}
