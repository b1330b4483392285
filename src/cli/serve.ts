import * as path from 'node:path'
import { Command } from 'commander'
import type { VraConfig } from '../config/config.ts'

/** Runs a role until the signal; returns when everything is closed in order. */
export type RunRole<C> = (config: C, signal: AbortSignal, readConfig?: () => C) => Promise<void>

export function serveCommand(runVra: RunRole<VraConfig>): Command {
  return new Command('serve')
    .description('run the VRA in the foreground: the recovery site')
    .option('--config <file>', 'see `vra config example vra`; without it the defaults')
    .option('--data-directory <directory>', 'instead of the configured one')
    .option(
      '--adopt',
      'take over the groups that the store holds of another appliance, which is lost: it is fenced should it come back',
    )
    .addHelpText(
      'after',
      `
Without any configuration: data in ./vra-data, agents on 127.0.0.1:7420, API and status page on http://127.0.0.1:7421.
SIGTERM and SIGINT stop it in order. A VRA whose groups were all taken over by another one, or that finds another process of its own id, ends with status 6.

When an appliance is lost: start another one on an empty data directory, with its store and at its address:
  vra serve --config /etc/vra/vra.yaml --adopt
It serves every checkpoint that was offloaded; the agents send what is missing, by themselves and without a full synchronisation.`,
    )
    .action(async (options: { readonly config?: string; readonly dataDirectory?: string; readonly adopt?: true }) => {
      const { dataDirectory } = options
      const flags = dataDirectory === undefined ? {} : { VRA_DATA_DIRECTORY: path.resolve(dataDirectory) }
      const { loadVraConfig } = await import('../config/config.ts')
      const adopt = options.adopt === true
      await untilStopped(signal =>
        runVra({ ...loadVraConfig(options.config, { ...process.env, ...flags }), adopt }, signal),
      )
    })
}

/** The first SIGTERM or SIGINT asks the role to stop; a second one ends the process at once. */
export async function untilStopped(run: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController()
  const ask = (name: NodeJS.Signals): void => {
    if (stop.signal.aborted) process.exit(name === 'SIGINT' ? 130 : 143)
    stop.abort()
  }
  process.on('SIGTERM', ask)
  process.on('SIGINT', ask)
  try {
    await run(stop.signal)
  } finally {
    process.removeListener('SIGTERM', ask)
    process.removeListener('SIGINT', ask)
  }
}
