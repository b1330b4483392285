import { createHash } from 'node:crypto'

/** What the row of transaction `number` holds: some hundred bytes that hardly become smaller, behind a mark of their own. */
export function rowText(number: number): string {
  const pieces = Array.from({ length: 6 + (number % 12) }, (_, index) => {
    return createHash('sha512').update(`${number}/${index}`).digest('base64')
  })
  return `${rowMark(number)} ${pieces.join('')}`
}

export function rowMark(number: number): string {
  return `<transaction ${number}>`
}
