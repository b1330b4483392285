import { parentPort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import type { VpgId } from '../base/ids.ts'
import { serveRpc } from '../base/rpc.ts'
import type { DumpPage } from '../control/service.ts'
import { realDisk } from '../disk/disk.ts'
import { dumpLog, verifyLog } from '../journal/journal.ts'
import { dumpVpg, verifyVpg } from '../manifest/manifest.ts'
import { verifySegment } from '../segment/segment.ts'
import { openStore, type ObjectStore } from '../store/store.ts'
import type { ObjectRef } from '../timeline/state.ts'
import type { VerifyNotices, VerifyService } from './verify-service.ts'

// The thread of one verification or one page of a dump; see verify-service.ts.

assert(parentPort !== null, 'this file is the start of a worker thread')
const never = new AbortController().signal // the thread itself is ended, where this has to stop

const notify = serveRpc<VerifyService>(parentPort, {
  verifyJournal: async ({ dataDirectory, vpg }) => {
    const totals = verifyLog(realDisk, dataDirectory, fault => {
      finding({
        vpg,
        place: `log file ${fault.fileIdentity}`,
        offsetBytes: fault.offsetBytes,
        sentence: fault.sentence,
      })
    })
    progress(totals.recordCount, totals.sizeBytes, totals.sizeBytes)
  },
  verifyMirror: async ({ store: config, vpgs }) => {
    const store = await openStore(config)
    let checkedCount = 0
    for (const { id, name } of vpgs) {
      const report = {
        whole: () => progress(++checkedCount, 0, undefined),
        damage: (found: { readonly key: string; readonly sentence: string; readonly affects: string }) =>
          finding({
            vpg: name,
            place: found.key,
            offsetBytes: undefined,
            sentence: `${found.sentence}; affects ${found.affects}`,
          }),
      }
      await verifyVpg(store, id, report, faultsOfSegment, never)
    }
    await store.close()
  },
  dumpJournal: async ({ dataDirectory, from, limit }) => {
    const facts = dumpLog(realDisk, dataDirectory)
    return pageOf(asynchronous(facts), from, limit, fact => ({ ...fact }))
  },
  dumpMirror: async ({ store: config, vpgs, from, limit }) => {
    const store = await openStore(config)
    try {
      return await pageOf(linesOf(store, vpgs), from, limit, line => line)
    } finally {
      await store.close()
    }
  },
})

/** A segment's findings as sentences. */
async function faultsOfSegment(
  store: ObjectStore,
  object: ObjectRef,
  signal: AbortSignal,
): Promise<{ readonly faults: readonly string[] }> {
  const findings = await verifySegment(store, object.key, object.sizeBytes, signal)
  return { faults: findings.map(({ what, offsetBytes }) => `offset ${offsetBytes}: ${what}`) }
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

async function* asynchronous<T>(facts: Iterable<T>): AsyncGenerator<T> {
  yield* facts
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
