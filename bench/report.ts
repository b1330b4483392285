import Table from 'cli-table3'
import type { Aim, Cell, Column, ResultTable } from './bench.ts'

export function formatTable({ title, columns, rows, notes }: ResultTable): string {
  const table = new Table({
    head: columns.map(({ name }) => name),
    colAligns: columns.map((_, index) => (typeof rows[0]?.[index] === 'string' ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
    wordWrap: true,
  })
  for (const row of rows) table.push(row.map((cell, index) => formatCell(cell, columns[index])))
  return `${title}\n${table.toString()}\n${notes.map(note => `  ${note}\n`).join('')}`
}

export function formatAims(aims: readonly Aim[]): string {
  const table = new Table({ head: ['', 'aim', 'measured', 'what'], style: { head: [], border: [], compact: true } })
  for (const { what, aim, measured, met } of aims) table.push([wordOf(met), aim, measured, what])
  return `Aims\n${table.toString()}\n`
}

function wordOf(met: boolean | undefined): string {
  if (met === undefined) return '-'
  return met ? 'met' : 'NOT MET'
}

function formatCell(cell: Cell, column: Column | undefined): string {
  if (cell === undefined) return '-'
  if (typeof cell === 'string') return cell
  return cell.toLocaleString('en', {
    maximumFractionDigits: column?.digits ?? 0,
    minimumFractionDigits: column?.digits ?? 0,
  })
}
