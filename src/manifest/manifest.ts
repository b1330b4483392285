// One commit sequence a VPG: numbered objects, each a segment or a manifest. What the newest manifest says, together with
// the segments numbered after it, is the VPG; anything else under its prefix is garbage or not committed yet.
//
//   <vpg>/commit/…41  manifest ──> pages (copy-on-write), deltas, base regions, segments that wait for a fold
//   <vpg>/commit/…42  segment      its own PUT is its commit
//   <vpg>/commit/…43  segment
//
// A start reads: a LIST of the numbers, the newest manifest's root with the few pages that serve the VPG, the footers of the segments after it; of a small
// manifest all. The other pages are carried, unread, into what it commits, and read beside serving. Of a VPG of which it
// was noted how it was at a commit that is still there, with nothing but segments behind it: the LIST, whose that commit is, and those footers. README.md has the formats; commits.ts says how a commit comes to count, and how an
// appliance learns that it is not the writer any more.

export { readCheckpointPage } from './read.ts'
export {
  announcedName,
  claimKey,
  commitKey,
  listAnnounced,
  listNews,
  listVpgs,
  newObjectKey,
  registryKey,
  tenureKey,
  type ApplianceNews,
  type Claim,
  type ObjectKind,
} from './keys.ts'
export { dumpVpg } from './dump.ts'
export { loadVpg, type LoadedVpg } from './load.ts'
export { newNonce } from './commits.ts'
export type { Takeover, VpgContents } from './contents.ts'
export {
  createOnce,
  takenKeys,
  VpgCommits,
  type CommitsAtRest,
  type OpenedCommits,
  type NewestCommit,
  type PendingManifest,
  type PendingSegment,
  type ResumedCommits,
  type SinceAsleep,
  type VpgBrief,
  type WriterIdentity,
} from './vpg-commits.ts'
export { decodeCheckpoints, encodeCheckpoints } from '../timeline/checkpoint-page.ts'
export { removeRemains } from './remains.ts'
export {
  checksOf,
  damageIn,
  isDamage,
  manifestCheck,
  verifyVpg,
  type Finding,
  type ObjectCheck,
  type VerifyReport,
} from './verify.ts'
