import type { Closable } from '../base/shutdown.ts'
import { Failure } from '../base/failure.ts'
import type { AgentConfig, AgentDeps, AgentStatusReport } from './options.ts'

export type * from './options.ts'
export { silentAgentEvents, type AgentEvents } from './events.ts'

export class Agent implements Closable {
  /**
   * Serves the volumes when it resolves. Fails CONFIG_INVALID where a disk cannot be served, SYNC_REQUIRED where a disk already
   * holds data (or another agent runs on the state directory: BUSY).
   */
  static open(config: AgentConfig, deps: AgentDeps): Promise<Agent> {
    void config
    void deps
    return Promise.reject(new Failure('CLOSING', 'the agent is not there yet'))
  }

  status(): AgentStatusReport {
    throw new Failure('CLOSING', 'the agent is not there yet')
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
