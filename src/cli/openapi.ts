import type { Command } from 'commander'
import { clientCommand, clientOf, type ClientOptions } from './client.ts'
import { printJson } from './output.ts'

export function openapiCommand(): Command {
  return clientCommand('openapi', "the OpenAPI description of the daemon's API").action(
    async (options: ClientOptions) => {
      printJson(await clientOf(options).openapi())
    },
  )
}
