import type { AgentConfig, VraConfig } from '../config/config.ts'
import { openLog, type Log, type LogOptions } from './log.ts'
import { software } from './software.ts'
import { SystemdNotifier } from './systemd-notify.ts'

// The roles of the program, each a list of parts started in order and closed backwards (vra.ts, agent.ts).
// Each is loaded only where it is run: what the other needs would be half of a start.

/** Runs the VRA until the signal. Rejects when it cannot start, or cannot go on; whoever started it starts it again. */
export async function runVra(config: VraConfig, signal: AbortSignal): Promise<void> {
  const { openVra } = await import('./vra.ts')
  await runRole(config.log, (log, onReady) => openVra(config, log, onReady, signal))
}

/** Runs the agent of one host until the signal; rejects as runVra does. With `readConfig` a SIGHUP has its list of volumes read again. */
export async function runAgent(
  config: AgentConfig,
  signal: AbortSignal,
  readConfig?: () => AgentConfig,
): Promise<void> {
  const { openAgent } = await import('./agent.ts')
  await runRole(config.log, (log, onReady) => openAgent(config, log, onReady, { signal, readConfig }))
}

type Role = (log: Log, onReady: () => void) => Promise<void>

/** A role with its log, told to systemd where there is one. */
async function runRole(options: LogOptions, role: Role): Promise<void> {
  const log = openLog(options)
  const systemd = new SystemdNotifier(process.env, error => log.warn({ error: error.message }, 'systemdNotTold'))
  try {
    await role(log, () => systemd.ready(software))
  } finally {
    await systemd.close()
  }
}
