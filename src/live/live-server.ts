import * as path from 'node:path'
import type { ImagePlan } from '../aging/service.ts'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { liveImagesMax } from '../base/limits.ts'
import { serveRpc } from '../base/rpc.ts'
import {
  changedExtents,
  ImageSources,
  openImage,
  spoolFailedSentence,
  spoolInThread,
  SpoolRoom,
  type ChangedExtents,
} from '../image/image.ts'
import { NbdServer, type NbdEvents, type NbdListen, type NbdServerOptions } from '../nbd/nbd.ts'
import { realMachine, type LiveMachine } from './machine.ts'
import { onDisk } from './on-disk.ts'
import { Attachment, needsImage, type AttachmentTools, type ExportServer } from './attachment.ts'
import {
  hasImage,
  tooManyImages,
  type AttachArgument,
  type DiffArgument,
  type LiveConfig,
  type LiveNotices,
  type LiveService,
  type LiveStatus,
} from './service.ts'

export type Notify = <K extends keyof LiveNotices>(name: K, value: LiveNotices[K]) => void

/** Where the service finds what it serves, and who serves it. */
export interface LiveSurroundings {
  readonly machine: LiveMachine
  openSources(config: LiveConfig): Promise<Pick<ImageSources, 'tools' | 'close'>>
  openServer(options: NbdServerOptions): Promise<ExportServer>
}

const realSurroundings: LiveSurroundings = {
  machine: realMachine,
  openSources: config => ImageSources.open(config.store, config.dataDirectory, config.cache),
  openServer: options => NbdServer.open(options),
}

interface Opened {
  readonly config: LiveConfig
  readonly sources: Pick<ImageSources, 'tools' | 'close'>
  readonly room: SpoolRoom
}

/** The live service itself, in the thread that it runs in. */
export class LiveServer implements LiveService {
  readonly #notify: Notify
  readonly #surroundings: LiveSurroundings
  readonly #attachments = new Map<string, Attachment>()
  /** Calls about one id follow one another. */
  readonly #turns = new Map<string, Promise<unknown>>()
  /** Of images that are being opened, and are not attached yet. */
  #openingCount = 0
  #opened: Opened | undefined
  #nbd: Promise<ExportServer> | undefined

  constructor(notify: Notify, surroundings = realSurroundings) {
    this.#notify = notify
    this.#surroundings = surroundings
  }

  async open(config: LiveConfig): Promise<void> {
    const room = SpoolRoom.open(config.spoolRoom, 'live')
    this.#opened = { config, room, sources: await this.#surroundings.openSources(config) }
  }

  async listen(): Promise<NbdListen> {
    return (await this.#server()).address()
  }

  attach(argument: AttachArgument): Promise<void> {
    return this.#inTurn(argument.id, async () => {
      if (this.#attachments.has(argument.id)) return
      const tools = await this.#tools()
      const takeBack = needsImage(argument, this.#surroundings.machine.disk)
        ? this.#reserveImage(tools.server)
        : undefined
      try {
        const attachment = await Attachment.open(argument, tools)
        this.#attachments.set(argument.id, attachment)
      } finally {
        takeBack?.()
      }
    })
  }

  /** Counts and takes in one step: others are opened meanwhile. */
  #reserveImage(server: ExportServer): () => void {
    const attached = [...this.#attachments.values()].filter(each => hasImage(each.status(server)))
    if (attached.length + this.#openingCount >= liveImagesMax) throw new Failure('BUSY', tooManyImages)
    this.#openingCount++
    return () => void this.#openingCount--
  }

  /** Not in turn: a keep() goes on for long, and reads by whatever plan there is. */
  async replan({ id, plan }: { readonly id: string; readonly plan: ImagePlan }): Promise<void> {
    await this.#attachments.get(id)?.replan(plan)
  }

  detach({ id }: { readonly id: string }): Promise<void> {
    this.#attachments.get(id)?.cancelKeep()
    return this.#inTurn(id, async () => {
      const attachment = this.#attachments.get(id)
      this.#attachments.delete(id)
      await attachment?.close()
    })
  }

  keep({ id }: { readonly id: string }): Promise<void> {
    return this.#inTurn(id, async () => {
      const attachment = this.#attachments.get(id)
      if (attachment === undefined) throw new Failure('NOT_FOUND', `nothing is served for ${id}`, { id })
      await attachment.keep((volume, doneBytes, totalBytes) =>
        this.#notify('keepProgress', { id, volume, doneBytes, totalBytes }),
      )
    })
  }

  cancelKeep({ id }: { readonly id: string }): Promise<void> {
    this.#attachments.get(id)?.cancelKeep()
    return Promise.resolve()
  }

  async discard({ id, directory }: { readonly id: string; readonly directory: string }): Promise<void> {
    assert(path.basename(directory) === id, 'the directory is of this recovery, and of nothing else')
    this.#attachments.get(id)?.cancelKeep()
    await this.#inTurn(id, async () => {
      const attachment = this.#attachments.get(id)
      this.#attachments.delete(id)
      await attachment?.abandon()
      await onDisk(directory, async () => {
        const { disk, removeTree } = this.#surroundings.machine
        await removeTree(directory)
        const parent = path.dirname(directory)
        if (disk.exists(parent)) disk.syncDirectory(parent)
      })
    })
  }

  async status(): Promise<readonly LiveStatus[]> {
    const server = await this.#nbd
    if (server === undefined) return []
    return [...this.#attachments.values()].map(attachment => attachment.status(server))
  }

  async changedExtents({ from, to, volume }: DiffArgument): Promise<ChangedExtents> {
    const { sources, config } = this.#open
    const { signal } = new AbortController()
    const tools = sources.tools(config.cacheSizeBytes)
    return await changedExtents({ from, to, volume }, tools, plan => openImage(plan, tools, signal), signal)
  }

  /** What was written is durable then. */
  async close(): Promise<void> {
    for (const id of [...this.#attachments.keys()]) await this.detach({ id })
    await (await this.#nbd?.catch(() => undefined))?.close()
    await this.#opened?.sources.close()
    this.#opened = undefined
  }

  get #open(): Opened {
    assert(this.#opened !== undefined, 'open() is the first call')
    return this.#opened
  }

  /** Where it cannot listen now, the next call tries again. */
  async #server(): Promise<ExportServer> {
    const { listen } = this.#open.config
    this.#nbd ??= this.#surroundings.openServer({ listen, exports: [], events: this.#events() })
    try {
      return await this.#nbd
    } catch (error) {
      this.#nbd = undefined
      throw error
    }
  }

  async #tools(): Promise<AttachmentTools> {
    const { sources, config, room } = this.#open
    return {
      server: await this.#server(),
      machine: this.#surroundings.machine,
      openImage: (plan, signal) => openImage(plan, sources.tools(config.cacheSizeBytes), signal),
      spool: (image, plan, volumes, signal) => {
        const { store, dataDirectory } = config
        const fileName = path.join(dataDirectory, 'scratch', 'live.spool')
        const failed = (cause: unknown): void => this.#notify('spoolFailed', { sentence: spoolFailedSentence(cause) })
        return spoolInThread(image, plan, volumes, { store, dataDirectory }, { fileName, failed, room }, signal)
      },
    }
  }

  #events(): NbdEvents {
    return {
      clientConnected: (exportName, { connectionCount }) => this.#notify('clients', { exportName, connectionCount }),
      clientGone: (exportName, { connectionCount }) => this.#notify('clients', { exportName, connectionCount }),
      clientRefused: (address, reason) => this.#notify('clientRefused', { address, reason }),
      requestFailed: (exportName, { command, error }) => {
        const code = (error as NodeJS.ErrnoException).code ?? 'none'
        const sentence = error instanceof Error ? error.message : String(error)
        this.#notify('requestFailed', { exportName, command, sentence, code })
      },
    }
  }

  #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(id) ?? Promise.resolve()
    const turn = before.then(work, work)
    const over = turn.then(
      () => undefined,
      () => undefined,
    )
    this.#turns.set(id, over)
    return turn.finally(() => {
      if (this.#turns.get(id) === over) this.#turns.delete(id)
    })
  }
}

/** A LiveServer at the other end of the port. `onClosed` is called when it has closed, before that is answered. */
export function serveLive(
  port: Parameters<typeof serveRpc>[0],
  { surroundings, onClosed }: { readonly surroundings?: LiveSurroundings; readonly onClosed?: () => void } = {},
): void {
  const server = new LiveServer((name, value) => notify(name, value), surroundings)
  const notify = serveRpc<LiveService>(port, {
    open: config => server.open(config),
    listen: () => server.listen(),
    attach: argument => server.attach(argument),
    replan: argument => server.replan(argument),
    detach: argument => server.detach(argument),
    keep: argument => server.keep(argument),
    cancelKeep: argument => server.cancelKeep(argument),
    discard: argument => server.discard(argument),
    status: () => server.status(),
    changedExtents: argument => server.changedExtents(argument),
    close: async () => {
      await server.close()
      onClosed?.()
    },
  })
}
