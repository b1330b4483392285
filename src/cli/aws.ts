import { Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { printJson } from './output.ts'

export function awsCommand(): Command {
  return new Command('aws').description('recovery to AWS: what it needs there').addCommand(policyCommand())
}

function policyCommand(): Command {
  return new Command('policy')
    .description('print the least that the VRA needs, as a policy of IAM')
    .option('--config <file>', 'whose aws section it is for; see `vra config example vra`')
    .addHelpText(
      'after',
      `
Writing is limited to what bears the owner's tag. The bucket's permissions are not in it: see \`vra store check\`.

Example:
  vra aws policy --config /etc/vra/vra.yaml > policy.json`,
    )
    .action(async (options: { readonly config?: string }) => {
      const [{ loadVraConfig }, { policyDocument }] = await Promise.all([
        import('../config/config.ts'),
        import('../aws/aws.ts'),
      ])
      const { aws } = loadVraConfig(options.config, process.env)
      if (aws === undefined)
        throw new Failure('CONFIG_INVALID', 'the configuration has no aws section: region and siteId are needed')
      printJson(policyDocument(aws))
    })
}
