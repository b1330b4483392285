import { vpgId } from '../../src/base/ids.ts'
import { crc32c } from '../../src/codec/crc32c.ts'
import type { JournalEvents } from '../../src/journal/events.ts'
import type { JournalWriter } from '../../src/journal/writer.ts'

/** Events kept as lines: name and what was told. */
export class RecordedEvents implements JournalEvents {
  readonly lines: { readonly name: keyof JournalEvents; readonly value: unknown }[] = []

  groupDurable(value: unknown): void {
    this.#add('groupDurable', value)
  }
  fileRotated(value: unknown): void {
    this.#add('fileRotated', value)
  }
  journalFull(value: unknown): void {
    this.#add('journalFull', value)
  }
  journalResumed(value: unknown): void {
    this.#add('journalResumed', value)
  }
  diskFailed(value: unknown): void {
    this.#add('diskFailed', value)
  }
  tornTailCut(value: unknown): void {
    this.#add('tornTailCut', value)
  }
  damageFound(value: unknown): void {
    this.#add('damageFound', value)
  }

  named(name: keyof JournalEvents): unknown[] {
    return this.lines.filter(line => line.name === name).map(line => line.value)
  }

  #add(name: keyof JournalEvents, value: unknown): void {
    this.lines.push({ name, value })
  }
}

export const loadVpg = vpgId('c'.repeat(32))

/** The frame of this sequence: any reader can tell whether it is whole and the right one. */
export function loadFrame(stream: number, sequence: number): Uint8Array {
  const sizeBytes = 1_000 + ((sequence * 7_919 + stream * 104_729) % 150_000)
  return Buffer.alloc(sizeBytes, `stream ${stream} sequence ${sequence}; `)
}

/** Appends one record; resolves when it is durable. Waits for room where there is none. */
export async function appendLoad(journal: JournalWriter, stream: number, sequence: number): Promise<void> {
  const frame = loadFrame(stream, sequence)
  let slot = journal.reserve(frame.length)
  while (slot === undefined) {
    slot = await new Promise(resolve => journal.whenRoom(frame.length, () => resolve(journal.reserve(frame.length))))
  }
  const room = slot
  room.frame.set(frame)
  await new Promise<void>(resolve =>
    journal.append(
      room,
      {
        kind: 'batch',
        vpg: loadVpg,
        stream,
        epoch: 1,
        generation: 1,
        firstSequence: sequence,
        lastSequence: sequence,
        frameCrc32c: crc32c(frame),
        timestampMicros: sequence,
        historyMillis: 0,
      },
      resolve,
    ),
  )
}
