import * as path from 'node:path'
import type { ImagePlan } from '../aging/service.ts'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { liveKeepPieceSizeBytes, liveKeepPiecesAtOnce } from '../base/limits.ts'
import type { Disk } from '../disk/disk.ts'
import type { SpoolableImage, Spooled } from '../image/image.ts'
import type { NbdExport, NbdServer } from '../nbd/nbd.ts'
import { CurrentImage } from './current-image.ts'
import { KeptDisk } from './kept-disk.ts'
import { LiveDisk } from './live-disk.ts'
import type { LiveMachine } from './machine.ts'
import { onDisk } from './on-disk.ts'
import { Overlay } from './overlay.ts'
import { identityOf } from './overlay-format.ts'
import { ReadAhead } from './read-ahead.ts'
import { ScratchBudget } from './scratch-budget.ts'
import type { AttachArgument, AttachedDisk, LiveFiles, LiveStatus } from './service.ts'

/** What serves the disks. */
export type ExportServer = Pick<NbdServer, 'address' | 'addExport' | 'removeExport' | 'connectionCount' | 'close'>

export interface AttachmentTools {
  readonly server: ExportServer
  readonly machine: LiveMachine
  readonly openImage: (plan: ImagePlan, signal: AbortSignal) => Promise<SpoolableImage>
  readonly spool: (
    image: SpoolableImage,
    plan: ImagePlan,
    volumes: readonly number[],
    signal: AbortSignal,
  ) => Promise<Spooled | undefined>
}

/** A write of a guest that fails while a disk is kept leaves who knows what: the disk is gone through once more, so often. */
const keepPassesMax = 4

type Progress = (volume: number, doneBytes: number, totalBytes: number) => void

interface LiveForm {
  readonly form: 'live'
  readonly served: LiveDisk
  readonly attached: AttachedDisk
  readonly overlay: Overlay
  readonly files: LiveFiles
  isKept: boolean
}

/** A disk that is served, in one of its three forms. */
type ServedDisk =
  | { readonly form: 'mounted'; readonly served: NbdExport; readonly attached: AttachedDisk }
  | LiveForm
  | { readonly form: 'kept'; readonly served: KeptDisk; readonly attached: AttachedDisk }

/**
 * The disks of one recovery, or one mount, as they are served: one image, one scratch limit.
 *
 *   files of a disk           what it is
 *   NAME.scratch, NAME.map    live: an overlay over the image
 *   NAME.raw                  kept: whole, and the map counts no more
 */
export class Attachment {
  readonly #argument: AttachArgument
  readonly #tools: AttachmentTools
  readonly #budget: ScratchBudget
  readonly #abort = new AbortController()
  readonly #disks: ServedDisk[] = []
  #keeping: AbortController | undefined
  #image: CurrentImage | undefined

  private constructor(argument: AttachArgument, tools: AttachmentTools) {
    this.#argument = argument
    this.#tools = tools
    this.#budget = new ScratchBudget(argument.scratchSizeBytesMax)
  }

  /** Every disk is served on return; none where it fails. */
  static async open(argument: AttachArgument, tools: AttachmentTools): Promise<Attachment> {
    const attachment = new Attachment(argument, tools)
    try {
      const { plan } = argument
      if (plan !== undefined && needsImage(argument, tools.machine.disk)) {
        const volumes = argument.disks.map(({ volume }) => volume)
        attachment.#image = new CurrentImage(
          await tools.openImage(plan, attachment.#abort.signal),
          plan,
          (image, itsPlan, signal) => tools.spool(image, itsPlan, volumes, signal),
        )
      }
      for (const attached of argument.disks) {
        const open = (): Promise<ServedDisk> => attachment.#openDisk(attached)
        attachment.#disks.push(await (attached.files === undefined ? open() : onDisk(attached.files.dataFile, open)))
      }
      for (const { served } of attachment.#disks) tools.server.addExport(served)
      return attachment
    } catch (error) {
      await attachment.abandon()
      throw error
    }
  }

  /** Every disk is a raw file of its own on return; see LiveService. */
  async keep(onProgress: Progress): Promise<void> {
    const keeping = (this.#keeping = new AbortController())
    try {
      for (const disk of this.#disks) {
        if (disk.form !== 'live' || disk.isKept) continue
        await onDisk(disk.files.dataFile, () => this.#keepDisk(disk, onProgress, keeping.signal))
      }
      await this.#image?.drop()
      this.#image = undefined
    } catch (error) {
      throw keeping.signal.aborted ? keeping.signal.reason : error
    } finally {
      this.#keeping = undefined
    }
  }

  /** Reads by another plan of the same checkpoint; on return nothing reads by the one before. */
  async replan(plan: ImagePlan): Promise<void> {
    if (this.#image === undefined) return
    await this.#image.replace(await this.#tools.openImage(plan, this.#abort.signal), plan)
  }

  cancelKeep(): void {
    this.#keeping?.abort(new Failure('CLOSING', 'the commit was stopped; a second one goes on with it'))
  }

  status(server: ExportServer): LiveStatus {
    return {
      id: this.#argument.id,
      scratchSizeBytes: this.#budget.usedSizeBytes,
      scratchSizeBytesMax: this.#budget.sizeBytesMax,
      refusedWriteCount: this.#budget.refusedCount,
      disks: this.#disks.map(disk => ({
        exportName: disk.attached.exportName,
        connectionCount: server.connectionCount(disk.attached.exportName),
        isKept: disk.form === 'kept' || (disk.form === 'live' && disk.isKept),
      })),
    }
  }

  /** Clients are cut off, and what they wrote is durable on return; fails where it is not. */
  async close(): Promise<void> {
    await this.#stopServing()
    const failures: unknown[] = []
    for (const disk of this.#disks) {
      try {
        if (disk.form === 'live') await onDisk(disk.files.dataFile, () => disk.overlay.close())
        if (disk.form === 'kept') await onDisk(disk.attached.files!.keptFile, () => disk.served.close())
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** The same where nobody needs what was written. */
  async abandon(): Promise<void> {
    await this.#stopServing()
    for (const disk of this.#disks) {
      if (disk.form === 'live') await disk.overlay.abandon()
      if (disk.form === 'kept') await disk.served.close()
    }
  }

  async #stopServing(): Promise<void> {
    this.#abort.abort(new Failure('CLOSING', 'the disk is served no more')) // what waits for the image need not
    for (const { attached } of this.#disks) await this.#tools.server.removeExport(attached.exportName)
    await this.#image?.drop()
  }

  async #openDisk(attached: AttachedDisk): Promise<ServedDisk> {
    const { files, exportName, description, sizeBytes, volume } = attached
    const { disk, openFile, bootId } = this.#tools.machine
    if (files !== undefined && disk.exists(files.keptFile)) {
      publish(disk, files) // where a process was killed in between
      const served = await KeptDisk.open(exportName, description, openFile(files.keptFile))
      return { form: 'kept', served, attached }
    }
    const { signal } = this.#abort
    const image = this.#image
    assert(image !== undefined, 'a disk that is not kept comes with a plan')
    const readAhead = new ReadAhead(sizeBytes, range => image.prefetch(volume, range, signal))
    const options = { name: exportName, description, sizeBytes, volume, image, readAhead, signal }
    if (files === undefined) {
      return { form: 'mounted', served: new LiveDisk({ ...options, overlay: undefined }), attached }
    }
    const overlay = await Overlay.open({
      disk,
      openFile,
      dataFile: files.dataFile,
      mapFile: files.mapFile,
      isMade: this.#argument.isMade,
      sizeBytes,
      identity: this.#identityOf(volume),
      bootId: bootId(),
      budget: this.#budget,
    })
    return { form: 'live', served: new LiveDisk({ ...options, overlay }), attached, overlay, files, isKept: false }
  }

  #identityOf(volume: number): string {
    const { id, checkpoint, scratchId } = this.#argument
    return identityOf(`${id}/${volume}@${checkpoint}${scratchId === undefined ? '' : `#${scratchId}`}`)
  }

  async #keepDisk(disk: LiveForm, onProgress: Progress, signal: AbortSignal): Promise<void> {
    const { served, overlay, files } = disk
    const kept = await overlay.kept(served.name, served.description)
    for (let pass = 1; !disk.isKept; pass++) {
      if (pass > keepPassesMax) throw new Failure('DISK_FAILED', `writes to ${files.dataFile} fail: commit again`)
      const { strayCount } = overlay
      await this.#materialise(served, disk.attached, onProgress, signal)
      await overlay.seal() // most of it, while the disk is in use
      const outcome = await served.becomeKept(async () => {
        if (overlay.strayCount !== strayCount) return undefined // where the walk has been already, perhaps
        await overlay.seal() // the bytes are on disk
        publish(this.#tools.machine.disk, files) // ...and the file has its name
        return kept
      })
      disk.isKept = outcome === 'kept'
    }
  }

  async #materialise(disk: LiveDisk, attached: AttachedDisk, onProgress: Progress, signal: AbortSignal): Promise<void> {
    const { volume, sizeBytes } = attached
    let next = 0
    let doneBytes = 0
    disk.beginKeeping()
    const walk = async (): Promise<void> => {
      while (next < sizeBytes) {
        signal.throwIfAborted()
        const at = next
        next += liveKeepPieceSizeBytes
        const lengthBytes = Math.min(liveKeepPieceSizeBytes, sizeBytes - at)
        await disk.materialise(at, lengthBytes)
        doneBytes += lengthBytes
        onProgress(volume, doneBytes, sizeBytes)
      }
    }
    const walks = await Promise.allSettled(Array.from({ length: liveKeepPiecesAtOnce }, walk))
    for (const each of walks) if (each.status === 'rejected') throw each.reason
  }
}

/** Not where all disks are kept already. */
export function needsImage({ disks }: AttachArgument, disk: Disk): boolean {
  return !disks.every(({ files }) => files !== undefined && disk.exists(files.keptFile))
}

/** The data file gets its name, and the map, which counts no more, goes; in steps of which each may be the last. */
function publish(disk: Disk, { dataFile, mapFile, keptFile }: LiveFiles): void {
  const directory = path.dirname(keptFile)
  if (!disk.exists(keptFile)) {
    disk.link(dataFile, keptFile)
    disk.syncDirectory(directory)
  }
  disk.remove(mapFile)
  disk.remove(dataFile)
  disk.syncDirectory(directory)
}
