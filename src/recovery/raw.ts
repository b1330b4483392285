import { constants, type BigIntStats } from 'node:fs'
import { access } from 'node:fs/promises'
import * as path from 'node:path'
import type { ImagePlan } from '../aging/service.ts'
import type { Clock } from '../base/clock.ts'
import { Failure, isSystemError } from '../base/failure.ts'
import { rawVolumesAtOnce } from '../base/limits.ts'
import { Permits } from '../base/permits.ts'
import { MiB } from '../base/units.ts'
import { claimName, publishDurably, syncDirectory, type FileCalls } from '../disk/disk.ts'
import type { ExportArgument, ExportResult } from '../image/service.ts'
import type { VpgDefinition } from '../timeline/definition.ts'
import type { Json, RecoveryRecord, RecoveryVm } from '../timeline/recovery.ts'
import type { RecoveredThing, RecoveryTarget, TargetContext, TargetPlan, TargetRequest } from './target.ts'

// Recovery into sparse raw files of the VRA's own host, one a volume, several at once:
//
//   <directory>/<vm>-<volume>.raw.<id>.partial   while it is being written
//   <directory>/<vm>-<volume>.raw.<id>.progress  how much of that is on disk (image/resumed-export.ts)
//   <directory>/<vm>-<volume>.raw.partial        a second name of the first: whose it is writes the file, of all that want to
//   <directory>/<vm>-<volume>.raw.<id>           whole, and on disk
//   <directory>/<vm>-<volume>.raw                what a person sees, when the memory says which file it is
//
// What bears the recovery's id is ours wherever it is found. The last is ours only when it is the very file that the memory names: what
// somebody else has put there is neither replaced nor removed. A process that is killed is followed by one that goes on where it was, span by span.

export interface RawTools {
  readonly clock: Clock
  readonly calls: FileCalls
  /** Free bytes for this process on the file system that holds the directory. */
  readonly freeBytes: (directory: string) => number
  /** As ImageService.exportRaw. When the signal is aborted it ends soon, failing CLOSING. */
  readonly write: (
    argument: Omit<ExportArgument, 'id'>,
    onProgress: (doneBytes: number, totalBytes: number) => void,
    signal: AbortSignal,
  ) => Promise<ExportResult>
  /** Of the VRA itself: nothing is recovered into them. */
  readonly ownDirectories: readonly string[]
}

/**
 * A file for certain, whatever its name: a number that is used again has another time of birth. Nothing of the device: it may have another number when it is
 * mounted again.
 */
type FileIdentity = string

interface Memory {
  /** By the number of its volume: which file it is. */
  readonly files: { readonly [volume: string]: FileIdentity }
}

/** What bears the id of a recovery. */
const stagedPattern = /^(.+\.raw)\.(r-[0-9a-f]{12})(?:\..+)?$/

/** Until this process has measured its own. */
const rateBytesPerSecondFirst = 150 * MiB

export class RawTarget implements RecoveryTarget {
  readonly kind = 'raw'
  readonly #tools: RawTools
  #rateBytesPerSecond = rateBytesPerSecondFirst

  constructor(tools: RawTools) {
    this.#tools = tools
  }

  async plan({ definition, vms, sizes, settings }: TargetRequest): Promise<TargetPlan> {
    const directory = directoryIn(settings)
    for (const own of this.#tools.ownDirectories)
      if (isBelow(own, directory))
        throw new Failure(
          'REQUEST_INVALID',
          `${directory} is among the VRA's own files; name a directory outside ${own}`,
        )
    await this.#requireDirectory(directory)
    const files = filesOf(directory, vms, definition)
    for (const { file } of files)
      if ((await this.#identityOf(file)) !== undefined)
        throw new Failure('ALREADY_EXISTS', `${file} exists; name another directory, or move it away`, { file })
    await this.#refuseTaken(directory, files)
    for (const { file } of files)
      if ((await this.#identityOf(claimOf(file))) !== undefined)
        throw new Failure('ALREADY_EXISTS', `${claimOf(file)} exists; name another directory, or move it away`, {
          file,
        })
    const copySizeBytes = sizes.reduce((sum, { dataSizeBytes }) => sum + dataSizeBytes, 0)
    const freeSizeBytes = this.#tools.freeBytes(directory)
    if (copySizeBytes > freeSizeBytes) {
      const sentence = `the volumes hold up to ${inGiB(copySizeBytes)} of data, and ${directory} has room for ${inGiB(freeSizeBytes)}: name a directory on a larger file system, or fewer volumes`
      throw new Failure('REQUEST_INVALID', sentence, { copySizeBytes, freeSizeBytes })
    }
    const names = files.map(({ file }) => path.basename(file)).join(', ')
    return {
      settings: { directory },
      copySizeBytes,
      expectedMillis: Math.ceil((copySizeBytes / this.#rateBytesPerSecond) * 1000),
      remarks: [
        `it writes ${files.length === 1 ? 'one sparse file' : `${files.length} sparse files`} in ${directory} on the host of the VRA: ${names}`,
        'each file is whole when it has its name; the volumes look as after a power cut at that instant',
      ],
    }
  }

  async prepare(context: TargetContext): Promise<void> {
    const plan = await context.openPlan()
    const failed = new AbortController()
    const signal = AbortSignal.any([context.signal, failed.signal])
    const permits = new Permits(rawVolumesAtOnce)
    const memory = new FileMemory(context)
    const startMillis = this.#tools.clock.monotonicMillis()
    let writtenBytes = 0
    const bring = async (file: VolumeFile): Promise<void> => {
      try {
        signal.throwIfAborted()
        const ownBytes = await this.#bring(file, { context, plan, memory, signal })
        writtenBytes += ownBytes // not in one: what others have added meanwhile would be lost
      } catch (error) {
        failed.abort(new Failure('CLOSING', 'another volume could not be written'))
        throw error
      }
    }
    try {
      const files = filesIn(context.record, context.definition)
      for (const file of files) await this.#claim(file, memory)
      const outcomes = await Promise.allSettled(files.map(file => permits.with(() => bring(file))))
      const [first] = outcomes.filter(outcome => outcome.status === 'rejected').sort(closingLast)
      if (first !== undefined) throw onDisk(first.reason, directoryIn(context.record.target.settings))
    } finally {
      await context.release(plan)
    }
    const millis = this.#tools.clock.monotonicMillis() - startMillis
    if (writtenBytes > 64 * MiB && millis > 0) this.#rateBytesPerSecond = (writtenBytes / millis) * 1000
  }

  async resume(): Promise<void> {
    // Files stay where they are.
  }

  async commit(): Promise<void> {
    // They are whole and durable since they have their names.
  }

  async remove({ record, definition }: TargetContext): Promise<void> {
    const { calls } = this.#tools
    const { files: identities } = memoryIn(record)
    const directory = directoryIn(record.target.settings)
    const entries = await calls.readdir(directory).catch(() => []) // it may be one that is written only, or gone
    for (const { volume, file, staged } of filesIn(record, definition)) {
      await this.#giveUp({ file, staged })
      const name = path.basename(staged)
      const others = entries.filter(entry => entry.startsWith(`${name}.`)).map(entry => path.join(directory, entry))
      for (const own of new Set([...others, `${staged}.progress`, `${staged}.partial`, staged]))
        await calls.unlink(own).catch(unlessMissing)
      const identity = identities[volume]
      if (identity !== undefined && (await this.#identityOf(file)) === identity)
        await calls.unlink(file).catch(unlessMissing)
    }
    await syncDirectory(calls, directory).catch(unlessMissing)
  }

  things(record: RecoveryRecord, definition: VpgDefinition): readonly RecoveredThing[] {
    const { files: identities } = memoryIn(record)
    return filesIn(record, definition)
      .filter(({ volume }) => identities[volume] !== undefined)
      .map(({ vm, volume, file }) => ({ vm, volume, kind: 'file', place: file }))
  }

  async close(): Promise<void> {
    // What it writes ends with the signals of those who asked for it.
  }

  /** The volume's file has its name, durably, on return; how many bytes were written for it in this call. */
  async #bring(
    { volume, file, staged }: VolumeFile,
    at: {
      readonly context: TargetContext
      readonly plan: ImagePlan
      readonly memory: FileMemory
      readonly signal: AbortSignal
    },
  ): Promise<number> {
    const { context, plan, memory, signal } = at
    const sizeBytes = plan.checkpoint.volumes.find(({ number }) => number === volume)?.sizeBytes ?? 0
    const known = memory.identityOf(volume)
    if (known !== undefined && (await this.#identityOf(file)) === known) {
      await this.#giveUp({ file, staged })
      await this.#tools.calls.unlink(staged).catch(unlessMissing)
      await this.#tidy(staged)
      context.progress(volume, sizeBytes, sizeBytes)
      return 0
    }
    let writtenBytes = 0
    if ((await this.#identityOf(staged)) === undefined) {
      const onProgress = (done: number, total: number): void =>
        context.progress(volume, total === 0 ? 0 : Math.floor((done / total) * sizeBytes), sizeBytes)
      const argument = { plan, volume, file: staged, existing: 'resume' } as const
      writtenBytes = (await this.#tools.write(argument, onProgress, signal)).writtenSizeBytes
    }
    const identity = await this.#identityOf(staged)
    if (identity === undefined) throw new Failure('DISK_FAILED', `${staged} was removed by somebody else`)
    await memory.note(volume, identity) // the file is known for ours before it has a name that others use
    try {
      await publishDurably(this.#tools.calls, staged, file)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      if ((await this.#identityOf(file)) !== identity)
        throw new Failure(
          'ALREADY_EXISTS',
          `${file} was put there by somebody else meanwhile`,
          { file },
          { cause: error },
        )
      await this.#tools.calls.unlink(staged).catch(unlessMissing)
    }
    await this.#giveUp({ file, staged: file })
    await this.#tidy(staged)
    context.progress(volume, sizeBytes, sizeBytes)
    return writtenBytes
  }

  /** What a process has left that was killed when the file was whole. */
  async #tidy(staged: string): Promise<void> {
    for (const left of [`${staged}.progress`, `${staged}.progress.staged`, `${staged}.partial`])
      await this.#tools.calls.unlink(left).catch(unlessMissing)
  }

  /** Of several recoveries that want the file one has it from here on; the others fail ALREADY_EXISTS. */
  async #claim({ volume, file, staged }: VolumeFile, memory: FileMemory): Promise<void> {
    const { calls } = this.#tools
    const known = memory.identityOf(volume)
    if (known !== undefined && (await this.#identityOf(file)) === known) return // it has its name
    let own = staged
    if ((await this.#identityOf(staged)) === undefined) {
      own = `${staged}.partial`
      await (await calls.open(own, 'a', 0o640)).close()
    }
    if (await claimName(calls, own, claimOf(file))) return
    throw new Failure(
      'ALREADY_EXISTS',
      `another recovery, or somebody, has ${claimOf(file)} already: name another directory, or end that recovery; if no VRA knows it any more, remove the file`,
      { file },
    )
  }

  /** The claim goes, where it is ours. */
  async #giveUp({ file, staged }: Pick<VolumeFile, 'file' | 'staged'>): Promise<void> {
    const claim = await this.#identityOf(claimOf(file))
    if (claim === undefined) return
    for (const own of [staged, `${staged}.partial`, file])
      if ((await this.#identityOf(own)) === claim) return await this.#tools.calls.unlink(claimOf(file))
  }

  async #requireDirectory(directory: string): Promise<void> {
    const found = await this.#tools.calls.stat(directory).catch(() => undefined)
    const isOurs = await access(directory, constants.W_OK).then(
      () => true,
      () => false,
    )
    if (found?.isDirectory() === true && isOurs) return
    const sentence =
      found?.isDirectory() === true
        ? `the VRA may not write into ${directory}: give it to the user that the VRA runs as (a unit needs ReadWritePaths= as well)`
        : `there is no directory ${directory} on the host of the VRA, or it may not look there: make it first, for the user that the VRA runs as`
    throw new Failure('REQUEST_INVALID', sentence, { directory })
  }

  /** Another recovery writes a file of the same name there, by whatever name it knows the directory: what is there says so. */
  async #refuseTaken(directory: string, files: readonly { readonly file: string }[]): Promise<void> {
    const names = new Set(files.map(({ file }) => path.basename(file)))
    const entries = await this.#tools.calls.readdir(directory).catch(() => []) // it may be one that is written only
    for (const entry of entries) {
      const [, name, id] = stagedPattern.exec(entry) ?? []
      if (name === undefined || !names.has(name)) continue
      const sentence = `recovery ${id} is writing ${name} in ${directory}: name another directory, or end that recovery; if no VRA knows it any more, remove ${entry}`
      throw new Failure('ALREADY_EXISTS', sentence, { file: path.join(directory, entry) })
    }
  }

  async #identityOf(file: string): Promise<FileIdentity | undefined> {
    try {
      const { ino, birthtimeNs }: BigIntStats = await this.#tools.calls.stat(file, { bigint: true })
      return `${ino}:${birthtimeNs}`
    } catch (error) {
      unlessMissing(error)
      return undefined
    }
  }
}

function claimOf(file: string): string {
  return `${file}.partial`
}

interface VolumeFile {
  readonly vm: string
  readonly volume: number
  readonly file: string
  readonly staged: string
}

/** Notes of volumes that become whole side by side; each is whole memory when it is remembered. */
class FileMemory {
  readonly #context: TargetContext
  #files: Memory['files']

  constructor(context: TargetContext) {
    this.#context = context
    this.#files = memoryIn(context.record).files
  }

  identityOf(volume: number): FileIdentity | undefined {
    return this.#files[volume]
  }

  async note(volume: number, identity: FileIdentity): Promise<void> {
    if (this.#files[volume] === identity) return
    this.#files = { ...this.#files, [volume]: identity }
    await this.#context.remember({ files: this.#files })
  }
}

function memoryIn({ memory }: RecoveryRecord): Memory {
  if (memory === null) return { files: {} }
  const { files } = memory as unknown as Memory
  const withoutDevice = (identity: FileIdentity): FileIdentity => identity.split(':').slice(-2).join(':')
  return {
    files: Object.fromEntries(Object.entries(files).map(([volume, identity]) => [volume, withoutDevice(identity)])),
  }
}

function filesIn({ id, vms, target }: RecoveryRecord, definition: VpgDefinition): VolumeFile[] {
  return filesOf(directoryIn(target.settings), vms, definition).map(each => ({ ...each, staged: `${each.file}.${id}` }))
}

/** Where two volumes would have one name, each has its number as well. */
function filesOf(
  directory: string,
  vms: readonly RecoveryVm[],
  { volumes, removedVolumes }: VpgDefinition,
): Omit<VolumeFile, 'staged'>[] {
  const named = vms.flatMap(vm =>
    vm.volumes.map(volume => {
      const name = [...volumes, ...removedVolumes].find(({ number }) => number === volume)?.name ?? `volume${volume}`
      return { vm: vm.name, volume, name: `${vm.name}-${name}` }
    }),
  )
  return named.map(({ vm, volume, name }) => {
    const isUnique = named.every(other => other.volume === volume || other.name !== name)
    return { vm, volume, file: path.join(directory, `${isUnique ? name : `${name}-${volume}`}.raw`) }
  })
}

function directoryIn(settings: Json): string {
  const { directory, ...others } = (typeof settings === 'object' && settings !== null ? settings : {}) as Record<
    string,
    Json
  >
  const [unknown] = Object.keys(others)
  if (unknown !== undefined)
    throw new Failure('REQUEST_INVALID', `the target raw has no setting "${unknown}"; it has directory (--to)`)
  if (typeof directory !== 'string' || !path.isAbsolute(directory) || directory.includes('\0'))
    throw new Failure('REQUEST_INVALID', "the target raw needs a directory (--to): an absolute path on the VRA's host")
  return path.resolve(directory)
}

function isBelow(directory: string, file: string): boolean {
  const way = path.relative(path.resolve(directory), file)
  return way === '' || (way !== '..' && !way.startsWith(`..${path.sep}`))
}

function unlessMissing(error: unknown): void {
  const { code } = error as NodeJS.ErrnoException
  if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error
}

function closingLast(a: PromiseRejectedResult, b: PromiseRejectedResult): number {
  const isClosing = ({ reason }: PromiseRejectedResult): number =>
    Number(reason instanceof Failure && reason.code === 'CLOSING')
  return isClosing(a) - isClosing(b)
}

function onDisk(error: unknown, directory: string): unknown {
  if (!isSystemError(error)) return error
  return new Failure(
    'DISK_FAILED',
    `nothing can be written in ${directory}: ${error.code}`,
    { directory },
    { cause: error },
  )
}

function inGiB(sizeBytes: number): string {
  return `${(sizeBytes / 2 ** 30).toFixed(2)} GiB`
}
