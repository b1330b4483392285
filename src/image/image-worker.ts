import { parentPort } from 'node:worker_threads'
import { assert } from '../base/assert.ts'
import { serveRpc } from '../base/rpc.ts'
import { ImageServer } from './image-server.ts'
import type { ImageService } from './service.ts'

// The image thread: an ImageServer at the other end of the parent's port.

assert(parentPort !== null, 'this file is the start of a worker thread')
const port = parentPort
const server = new ImageServer(progress => notify('exportProgress', progress))
const notify = serveRpc<ImageService>(port, {
  open: config => server.open(config),
  exportRaw: argument => server.exportRaw(argument),
  cancel: argument => server.cancel(argument),
  openHashes: argument => server.openHashes(argument),
  hashBlocks: argument => server.hashBlocks(argument),
  closeHashes: argument => server.closeHashes(argument),
  cacheFacts: () => server.cacheFacts(),
  close: async () => {
    await server.close()
    setImmediate(() => port.close()) // after the answer to this call
  },
})
