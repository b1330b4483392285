import type { Clock } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'
import type { RpcMethods } from '../base/rpc.ts'
import type { AgingNotices, AgingService, LogMark } from './service.ts'

export type Notify = <K extends keyof AgingNotices>(name: K, notice: AgingNotices[K]) => void

async function absent(): Promise<never> {
  throw new Failure('BUSY', 'the aging thread is being built')
}

export class MirrorWorker implements RpcMethods<AgingService> {
  readonly clock: Clock
  readonly notify: Notify

  constructor(clock: Clock, notify: Notify) {
    this.clock = clock
    this.notify = notify
  }

  open: AgingService['open'] = absent
  start: AgingService['start'] = absent
  createVpg: AgingService['createVpg'] = absent
  deleteVpg: AgingService['deleteVpg'] = absent
  changeVpg: AgingService['changeVpg'] = absent
  tag: AgingService['tag'] = absent
  untag: AgingService['untag'] = absent
  openImage: AgingService['openImage'] = absent
  closeImage: AgingService['closeImage'] = absent
  status: AgingService['status'] = absent
  seal: AgingService['seal'] = absent
  async close(): Promise<void> {}

  durable(_mark: LogMark): void {}
}
