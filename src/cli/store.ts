import { Command } from 'commander'
import { Failure, type FailureCode } from '../base/failure.ts'
import { printFacts, printJson, printLine, say } from './output.ts'
import { untilStopped } from './serve.ts'

export function storeCommand(): Command {
  return new Command('store')
    .description('the object store: segments, the mirror, and who owns them')
    .addCommand(checkCommand())
}

function checkCommand(): Command {
  return new Command('check')
    .description('prove a store fit before it is used: conditional creates, ranges, listings, checksums, permissions')
    .option('--config <file>', 'whose store it is; see `vra config example vra`')
    .option('--json', 'print the findings as JSON')
    .addHelpText(
      'after',
      `
Works under a name of its own and leaves nothing behind; a store that is in use may be checked as well.
Ends with 0 where it is fit, 2 where it is not, 4 where it does not answer.

Example:
  vra store check --config /etc/vra/vra.yaml`,
    )
    .action(async (options: { readonly config?: string; readonly json?: true }) => {
      const [{ loadVraConfig }, { checkStore }] = await Promise.all([
        import('../config/config.ts'),
        import('../store/check.ts'),
      ])
      const { store } = loadVraConfig(options.config, process.env)
      const place = store.kind === 'directory' ? store.directory : `s3://${store.bucket}/${store.prefix}`
      await untilStopped(async signal => {
        if (!options.json) say(`checking ${place}`)
        const findings = await checkStore(store, {}, signal)
        const failed = findings.filter(({ outcome }) => outcome === 'failed')
        if (options.json) printJson({ store: place, fit: failed.length === 0, findings })
        else
          for (const { check, outcome, sentence, remedy } of findings)
            printFacts([
              [check, `${outcome}: ${sentence}`],
              ['  remedy', remedy],
            ])
        const first = failed[0]
        if (first === undefined) return options.json ? undefined : printLine('fit\tyes')
        const code =
          failed.length === 1 || first.check === 'list' || first.check === 'open' ? first.failureCode : undefined
        const sentence = `${place} is not fit: ${failed.map(({ check }) => check).join(', ')}`
        throw new Failure((code ?? 'CONFIG_INVALID') as FailureCode, sentence)
      })
    })
}
