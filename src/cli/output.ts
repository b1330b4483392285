// Facts on stdout, talk on stderr. On a terminal tables have rules where they fit, else none, and what is wider still is a block a row; elsewhere
// columns are separated by tabs, one fact a line, for cut and awk.

export const onTerminal = (): boolean => process.stdout.isTTY === true

/** As no-color.org has it. */
const isPlain = (): boolean => (process.env['NO_COLOR'] ?? '') !== ''

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

export async function printTable(head: readonly string[], rows: readonly (readonly string[])[]): Promise<void> {
  if (!onTerminal()) {
    for (const row of [head, ...rows]) printLine(row.map(plain).join('\t'))
    return
  }
  const cells = rows.map(row => row.map(printable))
  const widths = head.map((name, column) => Math.max(name.length, ...cells.map(row => row[column]?.length ?? 0)))
  const textWidth = widths.reduce((sum, width) => sum + width, 0)
  const terminalWidth = process.stdout.columns || Infinity // 0 where nobody has told the terminal's size
  if (textWidth + 3 * head.length + 1 <= terminalWidth) {
    const { default: Table } = await import('cli-table3') // only where somebody looks
    const table = new Table({
      head: [...head],
      style: isPlain() ? { head: [], border: [] } : { head: ['bold'], border: ['gray'] },
      chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
    })
    for (const row of cells) table.push(row)
    printLine(table.toString())
  } else if (textWidth + 2 * (head.length - 1) <= terminalWidth) {
    for (const row of [head, ...cells])
      printLine(
        row
          .map((text, column) => text.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd(),
      )
  } else {
    for (const [index, row] of cells.entries()) {
      if (index > 0) printLine()
      printFacts(head.map((name, column) => [name.toLowerCase(), row[column]] as const))
    }
  }
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
export function printable(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, ' ')
}
