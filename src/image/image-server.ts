import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import { regionSizeBytes } from '../base/limits.ts'
import type { ObjectStore } from '../store/object-store.ts'
import type { ExportArgument, ExportResult, ImageConfig, ImageNotices, ImageService } from './service.ts'

export class ImageServer implements ImageService {
  constructor(_notify: (progress: ImageNotices['exportProgress']) => void) {}
  open(_config: ImageConfig): Promise<void> {
    assert(regionSizeBytes > 0, '')
    throw new Failure('CLOSING', '')
  }
  exportRaw(_argument: ExportArgument): Promise<ExportResult> {
    throw new Failure('CLOSING', '')
  }
  cancel(_argument: { readonly id: string }): Promise<void> {
    throw new Failure('CLOSING', '')
  }
  close(): Promise<void> {
    throw new Failure('CLOSING', '')
  }
  store: ObjectStore | undefined
}
