import type { Test } from 'tap'
import { ControlApi } from '../../src/control/control.ts'
import { runCli, type Ended } from './cli-run.ts'
import { populated, type FakeVra } from './control-fake.ts'

/** The API over a VRA that is not there, until the test ends; and the command line against it. */
export async function openControl(
  t: Test,
): Promise<{ vra: FakeVra; url: string; vraCommand: (...argv: string[]) => Promise<Ended> }> {
  const vra = populated()
  const api = await ControlApi.open({
    host: '127.0.0.1',
    port: 0,
    vra,
    metrics: async function* () {},
    onBug: error => t.fail(String(error)),
  })
  t.teardown(() => api.close())
  return { vra, url: api.url, vraCommand: (...argv) => runCli(argv, { VRA_CONTROL_URL: api.url }) }
}
