import t from 'tap'
import { manifestText } from '../../src/manifest/contents.ts'
import { parseManifestText, regionSizesOf, type RegionSizesText } from '../../src/manifest/manifest-text.ts'
import { regionSizes } from '../../src/timeline/region-sizes.ts'

function parsed(text: string): unknown {
  const { parsed, sizes } = parseManifestText(Buffer.from(text))
  return JSON.parse(JSON.stringify(parsed), (key, value: unknown) =>
    key === 'regionRawSizeBytes' ? [...regionSizesOf(value as RegionSizesText, sizes)] : value,
  )
}

/** As it was read before there was anything but JSON. */
function parsedAsJson(text: string): unknown {
  return JSON.parse(text, (key, value: unknown) =>
    key === 'regionRawSizeBytes' ? [...regionSizes(value as [number, number][])] : value,
  )
}

t.test('region sizes come back as they were written, whatever stands around them', async t => {
  const all = [
    [],
    [[0, 0]],
    [
      [7, 4096],
      [8, 2 ** 32 - 1],
      [2 ** 32 - 1, 10],
    ],
  ] as [number, number][][]
  const items = all.map((pairs, index) => ({
    name: `é "regionRawSizeBytes":[[1,2]] ${index}`,
    pack: { regionRawSizeBytes: regionSizes(pairs), sizeBytes: index },
  }))
  const text = manifestText(items)
  t.strictSame(
    parsed(text),
    items.map(({ name, pack }) => ({ name, pack: { ...pack, regionRawSizeBytes: [...pack.regionRawSizeBytes] } })),
  )
})

t.test('what is written in another way is what JSON says that it is', async t => {
  for (const pairs of ['[ [1, 2] ]', '[[1,2], [3,4]]', '[]', '[[1,2],[3,4]]', '[[10,20]]', '[[1e2,3]]'])
    t.strictSame(parsed(`{"regionRawSizeBytes":${pairs}}`), parsedAsJson(`{"regionRawSizeBytes":${pairs}}`), pairs)
  for (const damaged of ['[[1,2]', '[[01,2]]', '[[1,,2]]', '[[1,2][3,4]]', '[[1,2],]]', '[[,1]]', '[[1]]x'])
    t.throws(() => parseManifestText(Buffer.from(`{"regionRawSizeBytes":${damaged}}`)), SyntaxError, damaged)
})
