import { regionSizes, type RegionSizes } from '../timeline/region-sizes.ts'

// The JSON of a manifest's items, without an object for each pair of region sizes: a month of one large volume has a million of them.
//
//   …,"regionRawSizeBytes":[[17,4096],[18,8192]]}}   ──>   …,"regionRawSizeBytes":0}}  and  sizes[0] = 17, 4096, 18, 8192
//
// What is written other than we write it is left as it is, for JSON.parse to say what it is. (In a string the quotation mark behind the name would have a
// backslash before it.)

const name = Buffer.from('"regionRawSizeBytes":')

/** What the text of a pack has for its region sizes: as JSON, or a number in a list of them. */
export type RegionSizesText = number | readonly (readonly [number, number])[]

export interface ManifestText {
  readonly parsed: unknown
  /** By the numbers that stand in `parsed` in their place. */
  readonly sizes: readonly RegionSizes[]
}

/** Throws what JSON.parse does where the text is none. */
export function parseManifestText(body: Uint8Array): ManifestText {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const sizes: RegionSizes[] = []
  const rest: string[] = []
  let from = 0
  for (let at = bytes.indexOf(name); at >= 0; at = bytes.indexOf(name, at + name.length)) {
    const found = pairsAt(bytes, at + name.length)
    if (found === undefined) continue
    rest.push(bytes.toString('utf8', from, at + name.length), String(sizes.length))
    sizes.push(found.sizes)
    from = found.end
  }
  rest.push(bytes.toString('utf8', from))
  return { parsed: JSON.parse(rest.join('')) as unknown, sizes }
}

export function regionSizesOf(text: RegionSizesText, sizes: readonly RegionSizes[]): RegionSizes {
  return (typeof text === 'number' ? sizes[text] : undefined) ?? regionSizes(typeof text === 'number' ? [] : text)
}

/** The pairs that begin here, and where they end; undefined where they are not as manifestText writes them. */
function pairsAt(bytes: Uint8Array, start: number): { readonly sizes: RegionSizes; readonly end: number } | undefined {
  if (bytes[start] !== 0x5b || bytes[start + 1] !== 0x5b) return undefined // [[
  let last = start + 2
  while (last < bytes.length && (bytes[last] !== 0x5d || bytes[last + 1] !== 0x5d)) last++ // ]]
  if (last >= bytes.length) return undefined
  const values = new Uint32Array((last - start) >>> 1)
  let [count, value, first] = [0, 0, start + 2]
  for (let at = first; at <= last; at++) {
    const byte = bytes[at] as number
    if (byte >= 0x30 && byte <= 0x39) {
      value = value * 10 + byte - 0x30
      continue
    }
    // A number ends: of a region with a comma, of its bytes with a bracket, behind which the next pair begins with two more.
    const isSize = count % 2 === 1
    const isNumber = at > first && value <= 0xffff_ffff && (bytes[first] !== 0x30 || at === first + 1)
    if (!isNumber || byte !== (isSize ? 0x5d : 0x2c)) return undefined
    values[count++] = value
    value = 0
    if (isSize && at < last) {
      if (bytes[at + 1] !== 0x2c || bytes[at + 2] !== 0x5b) return undefined // ,[
      at += 2
    }
    first = at + 1
  }
  return count % 2 === 0 ? { sizes: values.slice(0, count), end: last + 2 } : undefined
}
