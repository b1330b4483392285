import * as path from 'node:path'
import { parentPort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import type { VpgId } from '../base/ids.ts'
import { serveRpc } from '../base/rpc.ts'
import type { DumpPage } from '../control/service.ts'
import { realDisk } from '../disk/disk.ts'
import { dumpLog, logFilePath, verifyLog, type LogFact } from '../journal/journal.ts'
import { dumpVpg, verifyVpg, type Finding as DamagedObject } from '../manifest/manifest.ts'
import { verifySegment } from '../segment/segment.ts'
import { hiddenVersionsOf, openStore, type ObjectStore } from '../store/store.ts'
import type { ObjectRef } from '../timeline/state.ts'
import type { VerifyNotices, VerifyService } from './verify-service.ts'

// The thread of one verification or one page of a dump; see verify-service.ts.

assert(parentPort !== null, 'this file is the start of a worker thread')
const never = new AbortController().signal // the thread itself is ended, where this has to stop

const notify = serveRpc<VerifyService>(parentPort, {
  verifyJournal: async ({ dataDirectory, vpgs, only }) => {
    const nameOf = (id: VpgId): string => vpgs.find(vpg => vpg.id === id)?.name ?? id
    const totals = verifyLog(realDisk, dataDirectory, fault => {
      if (only !== undefined && fault.vpgs.length > 0 && !fault.vpgs.includes(only)) return
      finding({
        vpg: fault.vpgs.length === 0 ? undefined : fault.vpgs.map(nameOf).join(', '),
        place: path.relative(dataDirectory, logFilePath(dataDirectory, fault.fileIdentity)),
        offsetBytes: fault.offsetBytes,
        sentence: fault.sentence,
      })
    })
    progress(totals.recordCount, totals.sizeBytes, totals.sizeBytes)
  },
  verifyMirror: async ({ store: config, vpgs }) => {
    const store = await openStore(config)
    let [checkedCount, checkedSizeBytes] = [0, 0]
    for (const { id, name } of vpgs) {
      const report = {
        whole: ({ sizeBytes }: ObjectRef) => progress(++checkedCount, (checkedSizeBytes += sizeBytes), undefined),
        damage: ({ key, offsetBytes, sentence, affects }: DamagedObject) =>
          finding({ vpg: name, place: key, offsetBytes, sentence: `${sentence}; affects ${affects}` }),
      }
      await verifyVpg(store, id, report, faultsOfSegment, never)
    }
    await store.close()
  },
  dumpJournal: async ({ dataDirectory, only, from, limit }) => {
    return pageOf(factsAbout(dumpLog(realDisk, dataDirectory), only), from, limit, lineOf)
  },
  dumpMirror: async ({ store: config, vpgs, from, limit }) => {
    const store = await openStore(config)
    try {
      return await pageOf(linesOf(store, vpgs), from, limit, line => line)
    } finally {
      await store.close()
    }
  },
  hiddenVersions: ({ store, vpg }) => hiddenVersionsOf(store, `${vpg}/`, never),
})

/** A segment's findings as sentences. */
async function faultsOfSegment(
  store: ObjectStore,
  object: ObjectRef,
  signal: AbortSignal,
): Promise<{ readonly faults: readonly { readonly offsetBytes: number; readonly sentence: string }[] }> {
  const findings = await verifySegment(store, object.key, object.sizeBytes, signal)
  return { faults: findings.map(({ what, offsetBytes }) => ({ offsetBytes, sentence: what })) }
}

function progress(checkedCount: number, checkedSizeBytes: number, totalSizeBytes: number | undefined): void {
  notify('progress', { checkedCount, checkedSizeBytes, totalSizeBytes } satisfies VerifyNotices['progress'])
}

function finding(found: VerifyNotices['finding']): void {
  notify('finding', found)
}

async function* linesOf(
  store: Awaited<ReturnType<typeof openStore>>,
  vpgs: readonly VpgId[],
): AsyncGenerator<{ readonly vpg: string; readonly line: string }> {
  for (const vpg of vpgs) for await (const line of dumpVpg(store, vpg, never)) yield { vpg, line }
}

/** All of them, or those that may be about this VPG: its records, and what nobody can say whose it is. */
async function* factsAbout(facts: Iterable<LogFact>, only: VpgId | undefined): AsyncGenerator<LogFact> {
  for (const fact of facts) {
    if (only === undefined || fact.type === 'file') yield fact
    else if (fact.type === 'record' && fact.vpg === only) yield fact
    else if (fact.type === 'fault' && (fact.vpgs.length === 0 || fact.vpgs.includes(only))) yield fact
  }
}

function lineOf(fact: LogFact): DumpPage['lines'][number] {
  if (fact.type !== 'fault') return { ...fact }
  const { vpgs, ...rest } = fact
  return vpgs.length === 0 ? rest : { ...rest, vpgs: vpgs.join(',') }
}

/** Lines `from` to `from + limit`; a page further back costs reading those before it. */
async function pageOf<T>(
  lines: AsyncIterable<T>,
  from: number,
  limit: number,
  format: (line: T) => DumpPage['lines'][number],
): Promise<DumpPage> {
  const page: DumpPage['lines'][number][] = []
  let index = 0
  for await (const line of lines) {
    if (index >= from + limit) return { lines: page, next: String(index) }
    if (index >= from) page.push(format(line))
    index++
  }
  return { lines: page, next: undefined }
}
