import { Socket } from 'node:net'

// Node reads what a server's connection receives into a new buffer of 64 KiB each time: at a gigabyte a second 16,000 a
// second, which wait for a garbage collection of the whole heap. Its `onread` option has a socket read into memory of ours
// instead, but there is no way to pass it for a connection that a server accepts. The option only sets three fields and tells the
// handle; so which fields they are is learned, by value, from a socket that is made with it, and the same is done here.
// Where another version of Node keeps it otherwise, 'data' events bring the bytes: slower, and no less right.

/** Who takes the bytes of a connection. */
export interface ByteTaker {
  /** Memory for what is received next; never empty. */
  nextBuffer(): Uint8Array
  /** So many bytes were received, at the start of `buffer`: what nextBuffer() gave last, or memory of Node's own. */
  take(buffer: Uint8Array, sizeBytes: number): void
}

export interface SocketReader {
  /** False where 'data' events bring the bytes. */
  readonly readsIntoBuffers: boolean
  /** From here on nothing is written to memory that nextBuffer() gave before this call. */
  renew(): void
}

/** Passes what the socket receives to the taker, until the socket is closed. */
export function readSocket(socket: Socket, taker: ByteTaker): SocketReader {
  const handle = (socket as unknown as { readonly _handle?: Partial<StreamHandle> | null })._handle
  const fields = onreadFields
  if (fields === undefined || typeof handle?.useUserBuffer !== 'function' || !fields.every(field => field in socket)) {
    socket.on('data', chunk => taker.take(chunk, chunk.length))
    return { readsIntoBuffers: false, renew: () => undefined }
  }
  const [bufferField, generatorField, callbackField] = fields
  const slots = socket as unknown as Record<symbol, unknown>
  const renew = (): void => {
    if (socket.destroyed) return
    const buffer = taker.nextBuffer()
    slots[bufferField] = buffer
    handle.useUserBuffer?.(buffer)
  }
  slots[callbackField] = (sizeBytes: number, buffer: Uint8Array) => taker.take(buffer, sizeBytes)
  slots[generatorField] = () => taker.nextBuffer()
  renew()
  const early = socket.read() as Uint8Array | null // what came before, under TLS
  if (early !== null) {
    taker.take(early, early.length)
    renew()
  }
  socket.resume()
  return { readsIntoBuffers: true, renew }
}

interface StreamHandle {
  useUserBuffer(buffer: Uint8Array): void
}

type OnreadFields = readonly [buffer: symbol, generator: symbol, callback: symbol]

const onreadFields = learnOnreadFields()

function learnOnreadFields(): OnreadFields | undefined {
  const memory = new Uint8Array(1)
  const buffer = (): Uint8Array => memory
  const callback = (): boolean => true
  const generated = socketReadingInto(buffer, callback)
  const given = socketReadingInto(memory, callback)
  const fields = [fieldOf(given, memory), fieldOf(generated, buffer), fieldOf(generated, callback)] as const
  const [first, second, third] = fields
  return first === undefined || second === undefined || third === undefined ? undefined : [first, second, third]
}

/** The types of Node 20 have the option for connect() only. */
function socketReadingInto(buffer: Uint8Array | (() => Uint8Array), callback: () => boolean): Socket {
  const options = { onread: { buffer, callback } }
  return new Socket(options as ConstructorParameters<typeof Socket>[0])
}

function fieldOf(socket: Socket, value: unknown): symbol | undefined {
  const slots = socket as unknown as Record<symbol, unknown>
  return Object.getOwnPropertySymbols(socket).find(field => slots[field] === value)
}
