import type { Roles } from './program.ts'

/** Loaded only when a role is started, so that the other commands start at once. */
export const roles: Roles = {
  runVra: async (config, signal) => (await import('../daemon/daemon.ts')).runVra(config, signal),
  runAgent: async (config, signal, readConfig) =>
    (await import('../daemon/daemon.ts')).runAgent(config, signal, readConfig),
  runDemo: async signal => (await import('../demo/demo.ts')).runDemo(signal),
}
