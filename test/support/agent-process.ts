import { Agent, silentAgentEvents, type AgentConfig } from '../../src/agent/agent.ts'

// An agent in a process of its own, to be killed: configured by AGENT_CONFIG, it tells its parent where its NBD server listens. It
// stops cleanly when the parent says anything, and when the parent is gone.

const agent = await Agent.open(JSON.parse(process.env['AGENT_CONFIG']!) as AgentConfig, { events: silentAgentEvents })
const stop = (): void => void agent.close().then(() => process.exit())
process.once('message', stop)
process.once('disconnect', stop)
process.send!(agent.status().nbd)
