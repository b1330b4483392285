import type { Scenario } from './scenario-site.ts'

/** What the command prints with --json. It must succeed. */
export async function json<T>(scenario: Scenario, ...argv: string[]): Promise<T> {
  const ended = await scenario.cli(...argv, '--json')
  if (ended.status !== 0) throw new Error(`vra ${argv.join(' ')}: ${ended.status} ${ended.stderr}`)
  return JSON.parse(ended.stdout) as T
}
