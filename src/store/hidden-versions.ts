import { ListObjectVersionsCommand } from '@aws-sdk/client-s3'
import { Failure } from '../base/failure.ts'
import { failureOfAttempt } from './s3-failures.ts'
import { versionsOf } from './s3-probes.ts'
import { newS3Client, type S3Config, type S3Credentials } from './s3-store.ts'

// In a bucket with versions what is removed stays, behind a marker, and is paid for until a lifecycle rule removes it. A store never sees it; whoever pays may want to.

/** A listing of a thousand each: so much is counted, one page after the other, and no more. */
const pagesMaxDefault = 500

export interface HiddenVersions {
  /** Undefined: the role may not ask, or the server cannot say; nothing was counted then. */
  readonly isVersioned: boolean | undefined
  /** A lifecycle rule removes noncurrent versions below the store's prefix. */
  readonly expire: boolean
  /** By the part of the key behind the prefix that was asked for, up to its first slash. */
  readonly parts: readonly { readonly part: string; readonly count: number; readonly sizeBytes: number }[]
  readonly markerCount: number
  /** False: there are more than were counted. */
  readonly isWhole: boolean
}

export const noHiddenVersions: HiddenVersions = {
  ...{ isVersioned: false, expire: false, parts: [], markerCount: 0, isWhole: true },
}

/** What of removed objects below the prefix is still kept. Lists only where the bucket has versions. Fails as a listing of a store does. */
export async function hiddenVersions(
  config: S3Config,
  credentials: S3Credentials | undefined,
  prefix: string,
  signal: AbortSignal,
  pagesMax = pagesMaxDefault,
): Promise<HiddenVersions> {
  const versions = await versionsOf(config, credentials, signal)
  if (versions?.isVersioned !== true) return { ...noHiddenVersions, isVersioned: versions?.isVersioned }
  const place = `${config.prefix}${prefix}`
  const parts = new Map<string, { count: number; sizeBytes: number }>()
  let markerCount = 0
  const told = (isWhole: boolean): HiddenVersions => ({
    ...versions,
    ...{ parts: [...parts].map(([part, counted]) => ({ part, ...counted })), markerCount, isWhole },
  })
  const client = newS3Client(config, credentials)
  try {
    let from: { readonly KeyMarker?: string; readonly VersionIdMarker?: string } = {}
    for (let pageCount = 0; pageCount < pagesMax; pageCount++) {
      const command = new ListObjectVersionsCommand({ Bucket: config.bucket, Prefix: place, ...from })
      const page = await client.send(command, {
        abortSignal: signal,
        requestTimeout: config.requestTimeoutMillis,
      })
      for (const { Key = '', Size = 0, IsLatest } of page.Versions ?? []) {
        if (IsLatest === true) continue
        const part = Key.slice(place.length).split('/')[0] ?? ''
        const known = parts.get(part) ?? { count: 0, sizeBytes: 0 }
        parts.set(part, { count: known.count + 1, sizeBytes: known.sizeBytes + Size })
      }
      markerCount += page.DeleteMarkers?.length ?? 0
      const { IsTruncated, NextKeyMarker, NextVersionIdMarker } = page
      if (IsTruncated !== true) return told(true)
      if (NextKeyMarker === undefined)
        throw new Failure('STORE_UNAVAILABLE', 'the bucket says that a listing goes on, but not where', { prefix })
      from = {
        KeyMarker: NextKeyMarker,
        ...(NextVersionIdMarker === undefined ? {} : { VersionIdMarker: NextVersionIdMarker }),
      }
    }
    return told(false)
  } catch (error) {
    signal.throwIfAborted()
    throw failureOfAttempt(error, prefix)
  } finally {
    client.destroy()
  }
}
