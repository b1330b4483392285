// The numbers of the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md). All integers are big-endian.

export const serverMagic = Buffer.from('NBDMAGICIHAVEOPT', 'latin1')
export const optionMagic = Buffer.from('IHAVEOPT', 'latin1')
export const optionReplyMagic = Buffer.from('0003e889045565a9', 'hex')

export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const

const errorReply = 2 ** 31
export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: errorReply + 1,
  policy: errorReply + 2,
  invalid: errorReply + 3,
  unknown: errorReply + 6,
  shutdown: errorReply + 7,
  tooBig: errorReply + 9,
} as const

export const infoType = { export: 0, name: 1, description: 2, blockSize: 3 } as const

export const transmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
  sendDf: 128,
  canMultiConn: 256,
} as const

export const requestMagic = 0x25609513
export const simpleReplyMagic = 0x67446698
export const structuredReplyMagic = 0x668e33ef
export const requestSizeBytes = 28

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  writeZeroes: 6,
  blockStatus: 7,
} as const

export const commandFlag = { fua: 1, noHole: 2, df: 4, reqOne: 8 } as const

export const chunkFlagDone = 1
export const chunkType = { none: 0, offsetData: 1, blockStatus: 5, error: 2 ** 15 + 1 } as const

export const nbdError = { EPERM: 1, EIO: 5, ENOMEM: 12, EINVAL: 22, ENOSPC: 28, ESHUTDOWN: 108 } as const
export type NbdErrorName = keyof typeof nbdError

/** The one metadata context that is served, and the number that it goes by. */
export const allocationContext = { name: 'base:allocation', id: 1 } as const
export const extentState = { data: 0, zero: 2, hole: 3 } as const

/** The longest read or write; longer ones are refused. Trim and write-zeroes have no such bound. */
export const requestSizeBytesMax = 32 * 1024 * 1024
/** A write that is too long is skipped and refused up to here; past it the connection is closed. */
export const skippedSizeBytesMax = 64 * 1024 * 1024
/** An option's data; an export's name has at most 4,096 bytes. */
export const optionSizeBytesMax = 64 * 1024
export const nameSizeBytesMax = 4096
export const preferredBlockSizeBytes = 4096
