import { execFile } from 'node:child_process'

// Readiness and watchdog, told to systemd.
//
// systemd listens on a Unix datagram socket (NOTIFY_SOCKET). Node has no Unix datagram sockets, and a native package for three words a
// minute is one more thing to compile, so the words go through `systemd-notify`, which is there wherever a systemd is that asks. It is a
// child of the daemon, hence NotifyAccess=all in the units; beside it an agent starts `flock`, once for each
// disk that is a file, before it is ready.

type Environment = Readonly<Record<string, string | undefined>>

const notifyMillisMax = 10_000

export class SystemdNotifier {
  readonly #environment: Environment
  readonly #onFailure: (error: Error) => void
  #watchdog: NodeJS.Timeout | undefined
  #last: Promise<void> = Promise.resolve()

  /** Without NOTIFY_SOCKET in the environment every call does nothing. */
  constructor(environment: Environment, onFailure: (error: Error) => void) {
    this.#environment = environment
    this.#onFailure = onFailure
  }

  /**
   * The daemon takes work now. From here on the watchdog is fed twice in its time while `alive` says so: it runs on the event loop, so a
   * loop that hangs feeds nothing, and systemd restarts the unit.
   */
  ready(status: string, alive: () => boolean = () => true): void {
    this.#send(['READY=1', `STATUS=${status}`])
    const intervalMillis = this.#watchdogIntervalMillis()
    if (intervalMillis === undefined || this.#watchdog !== undefined) return
    this.#watchdog = setInterval(() => {
      if (alive()) this.#send(['WATCHDOG=1'])
    }, intervalMillis)
    this.#watchdog.unref()
  }

  /** One line for `systemctl status`. */
  status(text: string): void {
    this.#send([`STATUS=${text}`])
  }

  /** Closing has begun; the watchdog is not fed any more, TimeoutStopSec counts. Returns when what was sent has arrived. */
  async close(): Promise<void> {
    clearInterval(this.#watchdog)
    this.#send(['STOPPING=1'])
    await this.#last
  }

  /** Half of WATCHDOG_USEC, where it is meant for this process. */
  #watchdogIntervalMillis(): number | undefined {
    const { WATCHDOG_USEC: micros, WATCHDOG_PID: pid } = this.#environment
    if (this.#environment['NOTIFY_SOCKET'] === undefined || micros === undefined || !/^\d+$/.test(micros))
      return undefined
    if (pid !== undefined && pid !== String(process.pid)) return undefined
    return Math.max(100, Number(micros) / 2000)
  }

  /** In order, one at a time: READY must not overtake STOPPING. */
  #send(words: readonly string[]): void {
    if (this.#environment['NOTIFY_SOCKET'] === undefined) return
    this.#last = this.#last.then(() => this.#run(words.map(word => word.replaceAll('\n', ' ')))).catch(this.#onFailure)
  }

  #run(words: readonly string[]): Promise<void> {
    return new Promise((resolve, reject) => {
      const options = { timeout: notifyMillisMax, env: { ...this.#environment } }
      execFile('systemd-notify', [...words], options, error => (error === null ? resolve() : reject(error)))
    })
  }
}
