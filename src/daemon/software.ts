import { readFileSync } from 'node:fs'

const { name, version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  name: string
  version: string
}

/** What this program calls itself, for people. */
export const software = `${name} ${version}`
