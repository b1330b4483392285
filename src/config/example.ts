import { z } from 'zod'
import { agentSchema } from './agent-config.ts'
import { formatSizeExactly } from './sizes.ts'
import { unwrap } from './faults.ts'
import { vraSchema } from './vra-config.ts'

// The documented example file of a role, written from the schema, so that it can't say anything else than the program does.

/** YAML that loads as the role's defaults; what has no default stands with an example value. */
export function exampleConfig(role: 'vra' | 'agent'): string {
  const head =
    role === 'vra'
      ? ["# The VRA: the recovery site's appliance. `vra serve --config FILE`"]
      : ["# The agent: the protected site's side. `vra protect --config FILE`"]
  const body = sectionLines(role === 'vra' ? vraSchema : agentSchema, '')
  return [
    ...head,
    '# Every key is shown with its default; keys that are commented out have none. Sizes are bytes or text ("64 MiB").',
    '# Relative paths are taken from the directory of this file. `vra config check FILE` checks it.',
    ...body,
    '',
  ].join('\n')
}

function sectionLines(schema: z.ZodType, indent: string): string[] {
  const inner = unwrap(schema)
  if (!(inner instanceof z.ZodObject)) return []
  return Object.entries(inner.shape).flatMap(([key, value]) => {
    const blank = indent === '' ? [''] : []
    return [...blank, ...keyLines(key, value as z.ZodType, indent)]
  })
}

function keyLines(key: string, schema: z.ZodType, indent: string): string[] {
  const inner = unwrap(schema)
  const comment = commentLines(schema, indent)
  if (inner instanceof z.ZodDiscriminatedUnion) {
    const lines = unionLines(key, inner.options as z.ZodType[], indent)
    const isOptional = schema instanceof z.ZodOptional
    return [...comment, ...lines.map(line => (isOptional && !isComment(line) ? commentedOut(line, indent) : line))]
  }
  if (inner instanceof z.ZodArray) {
    const entry = sectionLines(inner.element as z.ZodType, `${indent}    `)
    const lines = [`${indent}${key}:`, ...asListEntry(entry, indent)]
    return [...comment, ...(schema instanceof z.ZodOptional ? lines.map(line => commentedOut(line, indent)) : lines)]
  }
  if (inner instanceof z.ZodObject) {
    const lines = [`${indent}${key}:`, ...sectionLines(inner, `${indent}  `)]
    return [...comment, ...(schema instanceof z.ZodOptional ? lines.map(line => commentedOut(line, indent)) : lines)]
  }
  const value = valueText(schema)
  const line = `${indent}${key}: ${value}`
  return [...comment, schema instanceof z.ZodOptional ? commentedOut(line, indent) : line]
}

/** The first kind stands, the others are commented out below it. */
function unionLines(key: string, options: readonly z.ZodType[], indent: string): string[] {
  return options.flatMap((option, index) => {
    const lines = [`${indent}${key}:`, ...sectionLines(option, `${indent}  `)]
    return index === 0 ? lines : lines.map(line => commentedOut(line, indent))
  })
}

function isComment(line: string): boolean {
  return line.trimStart().startsWith('#')
}

function asListEntry(lines: readonly string[], indent: string): string[] {
  const first = lines.findIndex(line => !line.trimStart().startsWith('#'))
  return lines.map((line, index) => (index === first ? `${indent}  - ${line.trimStart()}` : line))
}

function commentLines(schema: z.ZodType, indent: string): string[] {
  const description = descriptionOf(schema)
  return description === undefined ? [] : [`${indent}# ${description}`]
}

function descriptionOf(schema: z.ZodType): string | undefined {
  return schema.meta()?.description ?? (schema === unwrap(schema) ? undefined : descriptionOf(innerOf(schema)))
}

function innerOf(schema: z.ZodType): z.ZodType {
  return (schema as unknown as { readonly def: { readonly innerType: z.ZodType } }).def.innerType
}

function valueText(schema: z.ZodType): string {
  const inner = unwrap(schema)
  if (schema instanceof z.ZodDefault) return scalarText(schema.def.defaultValue, inner)
  if (inner instanceof z.ZodLiteral) return String(inner.value)
  return scalarText(inner.meta()?.['example'], inner)
}

function scalarText(value: unknown, schema: z.ZodType): string {
  if (typeof value === 'number' && schema instanceof z.ZodPipe) return formatSizeExactly(value)
  return value === '' ? "''" : String(value)
}

/** Such that taking "# " away at the indent gives the lines back. */
function commentedOut(line: string, indent: string): string {
  return `${indent}# ${line.slice(indent.length)}`
}
