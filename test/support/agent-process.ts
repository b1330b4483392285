import { Agent, silentAgentEvents, type AgentConfig } from '../../src/agent/agent.ts'

// An agent in a process of its own, to be killed: configured by AGENT_CONFIG, it tells its parent where its NBD server listens.

const agent = await Agent.open(JSON.parse(process.env['AGENT_CONFIG']!) as AgentConfig, { events: silentAgentEvents })
process.send!(agent.status().nbd)
