import { Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { printJson, printLine, printTable, say } from './output.ts'
import { untilStopped } from './serve.ts'

export function awsCommand(): Command {
  return new Command('aws')
    .description('recovery to AWS: what it needs there')
    .addCommand(policyCommand())
    .addCommand(checkCommand())
}

function policyCommand(): Command {
  return new Command('policy')
    .description('print the least that the VRA needs, as a policy of IAM')
    .option('--config <file>', 'whose aws section it is for; see `vra config example vra`')
    .option(
      '--role <role...>',
      'roles, by name or ARN, of the instance profiles that recovered machines get (iamProfile): only these can be given to one',
    )
    .addHelpText(
      'after',
      `
Writing is limited to what bears the owner's tag. Without --role no machine can be started with an iamProfile. The bucket's permissions are not in it: see \`vra store check\`.

Example:
  vra aws policy --config /etc/vra/vra.yaml > policy.json`,
    )
    .action(async (options: { readonly config?: string; readonly role?: readonly string[] }) => {
      const { policyDocument } = await import('../aws/aws.ts')
      printJson(policyDocument(await awsSection(options.config), options.role ?? []))
    })
}

function checkCommand(): Command {
  return new Command('check')
    .description('try every permission that the VRA needs in AWS, and name what is missing; nothing is changed')
    .option('--config <file>', 'whose aws section and credentials are meant; see `vra config example vra`')
    .option('--json', 'print the findings as JSON')
    .addHelpText(
      'after',
      `
EC2 is asked by DryRun, the EBS direct APIs by requests that cannot be carried out. What is allowed only for what bears the owner's
tag is tried on what does: where there is nothing yet it stays "untried". "absent" is what plans can do without: quotas. Run it where the VRA runs: credentials are those of the
AWS SDK's default chain. The bucket is checked by \`vra store check\`.
Ends with 0 where nothing is missing, 2 where something is, 4 where AWS does not answer.

Example:
  vra aws check --config /etc/vra/vra.yaml`,
    )
    .action(async (options: { readonly config?: string; readonly json?: true }) => {
      const { checkPermissions } = await import('../aws/aws.ts')
      const aws = await awsSection(options.config)
      await untilStopped(async signal => {
        if (!options.json) say(`asking AWS in ${aws.region}`)
        const findings = await checkPermissions(aws, signal)
        const missing = findings.filter(({ outcome }) => outcome === 'missing').map(({ action }) => action)
        if (options.json) printJson({ region: aws.region, complete: missing.length === 0, findings })
        else
          await printTable(
            ['PERMISSION', 'OUTCOME', 'ANSWER', 'NEEDED FOR'],
            findings.map(({ action, outcome, sentence, why }) => [action, outcome, sentence, why]),
          )
        if (missing.length === 0) return options.json ? undefined : printLine('missing\tnothing')
        const hint = '`vra aws policy` prints all that is needed'
        throw new Failure('CLOUD_REFUSED', `missing: ${missing.join(', ')}; ${hint}`, { missingCount: missing.length })
      })
    })
}

async function awsSection(config: string | undefined) {
  const { loadVraConfig } = await import('../config/config.ts')
  const { aws } = loadVraConfig(config, process.env)
  if (aws === undefined)
    throw new Failure('CONFIG_INVALID', 'the configuration has no aws section: region and siteId are needed')
  return aws
}
