import Table from 'cli-table3'

// Facts on stdout, talk on stderr. On a terminal tables have rules; elsewhere columns are separated by tabs, one fact a line, for cut and awk.

export const onTerminal = (): boolean => process.stdout.isTTY === true

export function printLine(line = ''): void {
  process.stdout.write(`${line}\n`)
}

/** For people who watch: never part of the output. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** The one document of a command that was asked for JSON. */
export function printJson(value: unknown): void {
  printLine(JSON.stringify(value, undefined, 2))
}

export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  if (!onTerminal()) {
    for (const row of [head, ...rows]) printLine(row.map(plain).join('\t'))
    return
  }
  const table = new Table({
    head: [...head],
    style: { head: ['bold'], border: ['gray'] },
    chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
  })
  for (const row of rows) table.push(row.map(printable))
  printLine(table.toString())
}

/** Name and value, one a line. */
export function printFacts(facts: readonly (readonly [string, string | undefined])[]): void {
  const present = facts.filter(([, value]) => value !== undefined)
  const width = Math.max(...present.map(([name]) => name.length))
  for (const [name, value = ''] of present)
    printLine(onTerminal() ? `${name.padEnd(width)}  ${printable(value)}` : `${name}\t${plain(value)}`)
}

/** A cell is one line without a tab, whatever an agent called itself. */
function plain(text: string): string {
  return printable(text).replaceAll('\t', ' ')
}

/** Control characters from elsewhere could rewrite the terminal. */
function printable(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, ' ')
}
