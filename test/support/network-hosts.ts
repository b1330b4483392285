import { execFileSync } from 'node:child_process'

/** A test is one. */
export interface HostsOwner {
  comment(sentence: string): void
  teardown(end: () => void): void
}

/**
 * Hosts of a LAN on one machine: network namespaces on a bridge, whose own address is this process's. They are gone at the test's end.
 * Undefined, with a comment, where namespaces cannot be made.
 */
export class NetworkHosts {
  /** This process, as the hosts reach it. */
  readonly ownAddress: string
  readonly #bridge: string
  readonly #subnet: string
  readonly #names: string[] = []

  private constructor() {
    const number = process.pid % 65_536
    this.#bridge = `vrat${number}`
    this.#subnet = `10.${200 + ((number >> 8) % 50)}.${number % 256}`
    this.ownAddress = `${this.#subnet}.1`
  }

  static open(owner: HostsOwner, count: number): NetworkHosts | undefined {
    const hosts = new NetworkHosts()
    owner.teardown(() => hosts.close())
    try {
      ip('link', 'add', hosts.#bridge, 'type', 'bridge')
      ip('address', 'add', `${hosts.ownAddress}/24`, 'dev', hosts.#bridge)
      ip('link', 'set', hosts.#bridge, 'up')
      for (let index = 0; index < count; index++) hosts.#add(index)
      return hosts
    } catch (error) {
      owner.comment(`skipped: network namespaces cannot be made here (${String(error).split('\n')[0]})`)
      return undefined
    }
  }

  address(index: number): string {
    return `${this.#subnet}.${index + 11}`
  }

  /** What stands before a command that runs on the host. */
  command(index: number): readonly string[] {
    return ['ip', 'netns', 'exec', this.#names[index] ?? 'none']
  }

  close(): void {
    for (const name of this.#names.splice(0)) tryIp('netns', 'delete', name)
    tryIp('link', 'delete', this.#bridge)
  }

  #add(index: number): void {
    const name = `${this.#bridge}-${index}`
    ip('netns', 'add', name)
    this.#names.push(name)
    const outer = `${this.#bridge}v${index}`
    ip('link', 'add', outer, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
    ip('link', 'set', outer, 'master', this.#bridge, 'up')
    ip('-n', name, 'address', 'add', `${this.address(index)}/24`, 'dev', 'eth0')
    ip('-n', name, 'link', 'set', 'eth0', 'up')
    ip('-n', name, 'link', 'set', 'lo', 'up')
  }
}

function ip(...argv: readonly string[]): void {
  execFileSync('ip', argv, { stdio: ['ignore', 'ignore', 'pipe'] })
}

function tryIp(...argv: readonly string[]): void {
  try {
    ip(...argv)
  } catch {
    // It is gone, or was never there.
  }
}
