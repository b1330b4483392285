import { Command } from 'commander'
import { Failure } from '../base/failure.ts'
import { untilStopped } from './serve.ts'

/** True when all that it shows was as it has to be. */
export type RunDemo = (signal: AbortSignal) => Promise<boolean>

export function demoCommand(runDemo: RunDemo): Command {
  return new Command('demo')
    .description('show the whole path on this machine: protect a real ext4 under load, recover it at three checkpoints')
    .addHelpText(
      'after',
      '\nTakes about a minute and some hundred MB below the temporary directory; leaves no process and no file.',
    )
    .action(() =>
      untilStopped(async signal => {
        const whole = await runDemo(signal)
        if (!whole) throw new Failure('OBJECT_CORRUPT', 'a recovered disk is not what the protected one held')
      }),
    )
}
