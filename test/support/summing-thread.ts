import { crc32c } from '../../src/codec/crc32c.ts'

// A thread whose first sum loads the fast checksum's library, as many of the daemon's do at some time.

crc32c(new Uint8Array(4096))
