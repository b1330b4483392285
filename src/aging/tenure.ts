import { randomUUID } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import { Failure, failedWith } from '../base/failure.ts'
import { ownershipCheckMillis, tenureClaimMillis } from '../base/limits.ts'
import { readWholeFile, replaceFile, type Disk } from '../disk/disk.ts'
import { claimKey, createOnce, tenureKey, type ApplianceNews, type Claim } from '../manifest/manifest.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { AgingNotices, TenureConfig } from './service.ts'

// Which process is the appliance, where its data directory was cloned, or its machine restored beside it: both bear its id, and each VPG's next commit would
// decide for itself. Tenures are numbered objects below the appliance's name, each created only if absent, so every number is one process's; the highest counts.
//
//   new:       is there no tenure, or the last one surely over? ──yes──> begins the next; else claims the next number, and nothing of it is sealed or merged
//   claiming:  20 s without an answer ──> begins that tenure        the number is taken ──> this is the copy: it stops
//   holding:   a claim ──> answers: begins a tenure of that number or above      a higher tenure ──> it was followed: it stops
//
// So one that runs and can be asked stays, its copy stops, and one that did not answer in time stops when it looks again. Waiting decides only which of them it is:
// that it is one of them, the numbers do. What anybody commits meanwhile is fenced by the commits, as ever.
//
// Over for sure is a tenure that this data directory held in this boot of the machine: who holds the directory now has seen its process end.

type State =
  | { readonly kind: 'new' }
  | { readonly kind: 'claiming'; readonly number: number; readonly sinceMillis: number }
  | { readonly kind: 'holding'; readonly number: number }
  | { readonly kind: 'superseded' }

/** What a tenure's object says. */
interface TenureBody {
  readonly nonce: string
  readonly host: string
  readonly processId: number
  readonly atMicros: number
}

export interface TenureSurroundings {
  readonly store: ObjectStore
  readonly clock: Clock
  readonly disk: Disk
  readonly applianceId: string
  readonly config: TenureConfig | undefined
  readonly notify: <K extends 'superseded' | 'tenureTold'>(name: K, notice: AgingNotices[K]) => void
}

export class Tenure {
  readonly #at: TenureSurroundings
  readonly #nonce = randomUUID()
  readonly #startMillis: number
  /** Of claims that were answered, or are of who came before. */
  readonly #answered = new Set<string>()
  #state: State = { kind: 'new' }
  #contestedUntilMillis = -Infinity

  constructor(surroundings: TenureSurroundings) {
    this.#at = surroundings
    this.#startMillis = surroundings.clock.monotonicMillis()
  }

  /** False while another process may be this appliance: what no person asked for waits. A store that takes no claim is not waited for. */
  get mayCommit(): boolean {
    const { kind } = this.#state
    if (kind === 'superseded') return false
    return kind === 'holding' || this.#at.clock.monotonicMillis() - this.#startMillis >= 3 * tenureClaimMillis
  }

  /** True where another process of this id may commit, or may have done so a moment ago. */
  get isContested(): boolean {
    return this.#state.kind !== 'holding' || this.#at.clock.monotonicMillis() < this.#contestedUntilMillis
  }

  /** Acts on what was listed; one request for nearly every step, and none where there is nothing new. Fails as the store does, to be called at the next look. */
  async see(news: ApplianceNews, signal: AbortSignal): Promise<void> {
    const state = this.#state
    const newest = Math.max(0, ...news.tenures.keys())
    switch (state.kind) {
      case 'new':
        if (newest === 0 || newest === this.#endedNumber()) await this.#begin(newest + 1, news, signal)
        else await this.#claim(newest + 1, signal)
        return
      case 'claiming':
        if (newest >= state.number) await this.#settle(newest, news, signal)
        else if (this.#at.clock.monotonicMillis() - state.sinceMillis >= tenureClaimMillis)
          await this.#begin(state.number, news, signal)
        return
      case 'holding':
        if (newest > state.number) await this.#settle(newest, news, signal)
        else await this.#answer(state.number, news, signal)
        return
      case 'superseded':
        return
    }
  }

  async #claim(number: number, signal: AbortSignal): Promise<void> {
    const { store, applianceId, clock } = this.#at
    await createOnce(store, claimKey(applianceId, { number, nonce: this.#nonce }), this.#body(), undefined, signal)
    this.#state = { kind: 'claiming', number, sinceMillis: clock.monotonicMillis() }
  }

  /** Whoever claims will find the number taken, whether it was below ours already or not. */
  async #answer(number: number, news: ApplianceNews, signal: AbortSignal): Promise<void> {
    const strange = news.claims.filter(({ nonce }) => nonce !== this.#nonce && !this.#answered.has(nonce))
    const [first] = strange
    if (first === undefined) return
    const next = strange.reduce((highest, claim) => Math.max(highest, claim.number), number + 1)
    this.#contestedUntilMillis = this.#at.clock.monotonicMillis() + 6 * ownershipCheckMillis
    const claimant = await this.#claimant(first, signal)
    await this.#begin(next, news, signal)
    if (this.#state.kind !== 'holding') return
    const sentence = `a copy of this appliance was started (${claimant}) and is told to stop, for this one runs`
    this.#at.notify('tenureTold', { sentence })
  }

  /** Ours where it is there by an earlier attempt of ours; where it is another's, that goes on and this one does not, unless it has claimed nothing yet. */
  async #begin(number: number, news: ApplianceNews, signal: AbortSignal): Promise<void> {
    const { store, applianceId } = this.#at
    try {
      await store.create(tenureKey(applianceId, number), this.#body(), signal)
    } catch (error) {
      if (!failedWith(error, 'ALREADY_EXISTS')) throw error
      await this.#settle(number, news, signal)
      return
    }
    await this.#hold(number, news, signal)
  }

  /** A tenure of the number is there, and none is above it, as far as is known. */
  async #settle(number: number, news: ApplianceNews, signal: AbortSignal): Promise<void> {
    const key = tenureKey(this.#at.applianceId, number)
    const read = (): Promise<TenureBody | undefined> => this.#read(key, news.tenures.get(number), signal)
    let body = await read()
    if (body?.nonce !== this.#nonce) body = await read() // twice: these bytes bear no checksum, and to stop is final
    if (body?.nonce === this.#nonce) await this.#hold(number, news, signal)
    else if (this.#state.kind !== 'new') this.#standDown(body) // else the next look claims the one after it
  }

  async #hold(number: number, news: ApplianceNews, signal: AbortSignal): Promise<void> {
    this.#state = { kind: 'holding', number }
    for (const { nonce } of news.claims) this.#answered.add(nonce)
    this.#note(number)
    await this.#clear(number, news, signal)
  }

  /** What the store does not remove is in nobody's way. */
  async #clear(number: number, news: ApplianceNews, signal: AbortSignal): Promise<void> {
    const { store, applianceId } = this.#at
    const over = [
      ...news.claims.map(claim => claimKey(applianceId, claim)),
      ...[...news.tenures.keys()].filter(each => each < number).map(each => tenureKey(applianceId, each)),
    ]
    try {
      for (const key of over) await store.remove(key, signal)
    } catch (error) {
      if (!(error instanceof Failure) || signal.aborted) throw error
    }
  }

  #standDown(by: TenureBody | undefined): void {
    const wasHolding = this.#state.kind === 'holding'
    this.#state = { kind: 'superseded' }
    const other = by === undefined ? 'another process of this appliance' : `the same appliance (${inWords(by)})`
    const why = wasHolding
      ? `${other} was started from a copy of this one's data directory, asked whether this one runs, and had no answer in time: it goes on, and this one has stopped.`
      : `${other} runs already, and this is a copy of its data directory: this one has stopped. To run it instead, stop the other one first; ` +
        'to run one beside it, start it with an empty data directory.'
    this.#at.notify('superseded', { sentence: why })
  }

  async #claimant(claim: Claim, signal: AbortSignal): Promise<string> {
    const body = await this.#read(claimKey(this.#at.applianceId, claim), claim.sizeBytes, signal).catch(() => undefined)
    return body === undefined ? 'nobody knows where' : inWords(body)
  }

  /** Undefined where it is not there any more, or cannot be read as one. */
  async #read(key: string, sizeBytes: number | undefined, signal: AbortSignal): Promise<TenureBody | undefined> {
    try {
      const endBytes = sizeBytes ?? (await this.#sizeOf(key, signal))
      if (endBytes === undefined) return undefined
      const bytes = await this.#at.store.readRange(key, { startBytes: 0, endBytes }, signal)
      return JSON.parse(Buffer.from(bytes).toString()) as TenureBody
    } catch (error) {
      if (failedWith(error, 'NOT_FOUND') || error instanceof SyntaxError) return undefined
      throw error
    }
  }

  async #sizeOf(key: string, signal: AbortSignal): Promise<number | undefined> {
    for await (const listed of this.#at.store.list(key, undefined, signal))
      if (listed.key === key) return listed.sizeBytes
    return undefined
  }

  #body(): Uint8Array {
    const { config, clock } = this.#at
    const body: TenureBody = {
      nonce: this.#nonce,
      host: config?.host ?? 'unknown',
      processId: process.pid,
      atMicros: clock.timestampMicros(),
    }
    return Buffer.from(JSON.stringify(body))
  }

  #note(number: number): void {
    const { config, disk } = this.#at
    if (config === undefined) return
    try {
      replaceFile(disk, config.file, Buffer.from(JSON.stringify({ number, place: config.place })))
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error)) throw error // the next start asks, as one that knows nothing
    }
  }

  #endedNumber(): number | undefined {
    const { config, disk } = this.#at
    if (config === undefined) return undefined
    const text = Buffer.from(readWholeFile(disk, config.file) ?? []).toString()
    try {
      const note = JSON.parse(text) as { readonly number: number; readonly place: string }
      return note.place === config.place ? note.number : undefined
    } catch {
      return undefined
    }
  }
}

function inWords({ host, processId, atMicros }: TenureBody): string {
  return `process ${processId} on ${host}, ${new Date(atMicros / 1000).toISOString()}`
}
