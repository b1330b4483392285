import type { VpgId } from '../base/ids.ts'
import { crc32c } from '../codec/crc32c.ts'
import type { CommitsAtRest } from '../manifest/manifest.ts'
import type { Checkpoint } from '../timeline/checkpoint.ts'
import type { MirrorSums, StopNote } from './service.ts'
import type { NotedTerms } from './sleep.ts'

// What a process notes of each VPG, when it has nothing to do there and at its end, so that the next one opens it asleep, and reads no page of it, where
// the store still has the commit that the note is about, and nothing behind it but segments, whose footers are read. It is kept in the index, by whoever
// knows that all of that commit is in there too.
//
//   first line: JSON as VpgNote; second line: its CRC-32C, 8 hexadecimal digits
//
// Whatever does not fit (another appliance, another commit, another manifest since, damage) costs a start that reads the store.

const formatVersion = 2

export interface VpgNote {
  readonly applianceId: string
  readonly commits: CommitsAtRest
  readonly sums: MirrorSums
  /** The newest checkpoint that is in the store. */
  readonly newest?: Checkpoint | undefined
  /** Until when nothing is due; undefined where nobody has looked. */
  readonly terms?: NotedTerms | undefined
}

export function encodeNote(note: VpgNote): StopNote {
  const text = JSON.stringify({ formatVersion, ...note })
  return { vpg: idOf(note), text: `${text}\n${checksumOf(text)}\n` }
}

/** Undefined where it is damaged, of another version, another appliance's, or about another VPG. */
export function decodeNote({ vpg, text }: StopNote, applianceId: string): VpgNote | undefined {
  const [json = '', checksum] = text.split('\n')
  if (checksum !== checksumOf(json)) return undefined
  const { formatVersion: version, ...note } = JSON.parse(json) as VpgNote & { readonly formatVersion: number }
  if (version !== formatVersion || note.applianceId !== applianceId) return undefined
  return idOf(note) === vpg ? note : undefined
}

function idOf({ commits }: VpgNote): VpgId {
  return commits.contents.state.definition.id
}

function checksumOf(text: string): string {
  return crc32c(Buffer.from(text)).toString(16).padStart(8, '0')
}
