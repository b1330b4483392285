import type { AgentConfig, VraConfig } from '../config/config.ts'
import type { Roles } from './program.ts'
import type { RunRole } from './serve.ts'

/** The daemons, as `daemon/daemon.ts` gives them. */
interface Daemon<L> {
  openLog(options: VraConfig['log']): L
  runVra(config: VraConfig, log: L, onReady: () => void, signal: AbortSignal): Promise<void>
  runAgent(config: AgentConfig, log: L, onReady: () => void, signal: AbortSignal): Promise<void>
}

const daemonModule = new URL('../daemon/daemon.js', import.meta.url).href
const load = async (): Promise<Daemon<unknown>> => (await import(daemonModule)) as Daemon<unknown>

const runVra: RunRole<VraConfig> = async (config, signal) => {
  const daemon = await load()
  await daemon.runVra(config, daemon.openLog(config.log), () => undefined, signal)
}

const runAgent: RunRole<AgentConfig> = async (config, signal) => {
  const daemon = await load()
  await daemon.runAgent(config, daemon.openLog(config.log), () => undefined, signal)
}

export const roles: Roles = { runVra, runAgent }
