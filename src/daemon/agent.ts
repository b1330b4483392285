import { Agent, type AgentConfig as AgentOptions, type AgentTls } from '../agent/agent.ts'
import type { AgentEvents } from '../agent/events.ts'
import { systemClock } from '../base/clock.ts'
import { agentStopMillisMax } from '../base/limits.ts'
import { Shutdown } from '../base/shutdown.ts'
import { prepareCrc32c } from '../codec/crc32c.ts'
import type { AgentConfig } from '../config/config.ts'
import type { OpenVolumeFile } from '../disk/disk.ts'
import { AgentApi } from '../control/agent-api.ts'
import { AgentMetrics } from '../metrics/agent-metrics.ts'
import { nbdUri } from '../nbd/nbd.ts'
import { both } from './events.ts'
import type { Log } from './log.ts'
import { endWithin, untilAborted } from './lifetime.ts'
import { certificateEndSeconds, readTls } from './tls-files.ts'
import { software } from './software.ts'

export interface AgentControls {
  /** Ends it in order. */
  readonly signal: AbortSignal
  /** Ends the process at once, as a kill does; it may have threads that wait for a disk, for which an exit would wait. */
  readonly die?: () => void
  /** Instead of the system's disks. */
  readonly openVolumeFile?: OpenVolumeFile
  /** Instead of the usual bound. */
  readonly stopMillisMax?: number
  /** Reads the configuration again; undefined where there is no file of it. */
  readonly readConfig: (() => AgentConfig) | undefined
}

/** Runs the agent of one host until the signal: the protected site's daemon. Rejects when it cannot go on. */
export async function openAgent(
  config: AgentConfig,
  log: Log,
  onReady: () => void,
  { signal, readConfig, openVolumeFile, die = killThisProcess, stopMillisMax = agentStopMillisMax }: AgentControls,
): Promise<void> {
  const parts = new Shutdown()
  let opened: Agent | undefined
  let isReloadDue = false
  // From the first moment to the last: a signal that nobody listens to would end the process.
  const reload = (): void => {
    if (readConfig === undefined) return
    if (opened === undefined) isReloadDue = true
    else reloadVolumes(opened, { running: config, read: readConfig }, log)
  }
  if (readConfig !== undefined) process.on('SIGHUP', reload)
  try {
    prepareCrc32c()
    const metrics = parts.own(
      new AgentMetrics({
        version: software,
        certificateEndSeconds: certificateEndSeconds(config.vra.tls, log),
        status: () => opened?.status(),
      }),
    )
    const deps = {
      events: both(metrics.events, agentLog(log)),
      ...(openVolumeFile === undefined ? {} : { openVolumeFile }),
    }
    const agent = parts.own(await Agent.open(agentOptions(config), deps))
    opened = agent
    const api = parts.own(
      await AgentApi.open({ ...config.control, status: () => agent.status(), metrics: () => metrics.render() }),
    )
    const { nbd, volumes } = agent.status()
    log.info(
      {
        disks: config.volumes.map(({ name }) => nbdUri(nbd, name)).join(' '),
        vra: `${config.vra.host}:${config.vra.port}`,
        status: `${api.url}/v1/status`,
      },
      'agentReady',
    )
    for (const { name, sync, reason } of volumes)
      if (sync !== 'none') log.warn({ volume: name, kind: sync, reason }, 'syncOpened')
    if (isReloadDue) reload()
    onReady()
    await untilAborted(signal, [])
  } catch (error) {
    log.fatal({ reason: error instanceof Error ? error.message : String(error) }, 'agentFailed')
    throw error
  } finally {
    // What the disks are at this stop is then not written down: the next start finds a killed agent's state, and compares what is marked.
    await endWithin(parts.closeAll(), stopMillisMax, systemClock, () => {
      const waitsFor = opened?.closingWaitsFor ?? 'a part of it'
      log.fatal({ waitsFor, waitedMillis: stopMillisMax }, 'agentStopHangs')
      die()
    })
    process.removeListener('SIGHUP', reload)
    log.info('agentStopped')
  }
}

function killThisProcess(): void {
  process.kill(process.pid, 'SIGKILL')
}

/** The list of volumes takes effect; anything else that has changed is named, and waits for a restart. Never rejects: it is told in the log. */
function reloadVolumes(
  agent: Agent,
  { running, read }: { readonly running: AgentConfig; readonly read: () => AgentConfig },
  log: Log,
): void {
  const reloading = async (): Promise<void> => {
    const config = read()
    const others = (Object.keys(config) as (keyof AgentConfig)[]).filter(
      key => key !== 'volumes' && JSON.stringify(config[key]) !== JSON.stringify(running[key]),
    )
    if (others.length > 0) log.warn({ keys: others }, 'configChangeWantsRestart')
    await agent.changeVolumes(config.volumes)
    log.info({ volumes: agent.status().volumes.map(({ name, sizeBytes }) => ({ name, sizeBytes })) }, 'volumesReloaded')
  }
  reloading().catch((error: unknown) => log.error({ error: String(error) }, 'reloadFailed'))
}

function agentOptions(config: AgentConfig): AgentOptions {
  const { agentId, vpg, vra, stateDirectory, nbd, peers, queueSizeBytesMax, volumes } = config
  const { listen, advertise, holdTimeoutMillis } = peers
  return {
    agentId,
    vpg,
    vra: { host: vra.host, port: vra.port, ...(vra.tls === undefined ? {} : { tls: agentTls(vra.tls) }) },
    stateDirectory,
    volumes,
    nbd: { listen: { host: nbd.host, port: nbd.port } },
    queueSizeBytesMax,
    peers: {
      holdTimeoutMillis,
      ...(listen === undefined ? {} : { listen: { host: listen.host, port: listen.port } }),
      ...(advertise === undefined ? {} : { advertise }),
    },
  }
}

function agentTls(files: NonNullable<AgentConfig['vra']['tls']>): AgentTls {
  const { authority: certificateAuthority, ...own } = readTls(files)
  return { certificateAuthority, ...own }
}

function agentLog(log: Log): Partial<AgentEvents> {
  let lastFailure = ''
  return {
    linkUp: link => log.info(link, 'linkUp'),
    linkDown: reason => log.warn(reason, 'linkDown'),
    detached: reason => log.warn({ reason }, 'detached'),
    generationOpened: opened => log.info(opened, 'generationOpened'),
    paused: isPaused => log.info({ isPaused }, 'paused'),
    quiesced: by => log.warn({ by }, by === '' ? 'guests write again' : 'guests write no more'),
    volumeRefused: (volume, sentence) => log.error({ volume, sentence }, 'volumeRefused'),
    syncOpened: (volume, { kind, reason }) => log.warn({ volume, kind, reason }, 'syncOpened'),
    syncNumbered: () => undefined,
    syncReadFailed: (volume, { offsetBytes, error }) =>
      log.error({ volume, offsetBytes, error: String(error) }, 'syncReadFailed'),
    syncEnded: (volume, sync) => log.info({ volume, ...sync }, 'syncEnded'),
    marksNotCleared: (volume, error) => log.error({ volume, error: String(error) }, 'marksNotCleared'),
    localDiskFailed: (volume, { command, error }) =>
      log.error({ volume, command, error: String(error) }, 'localDiskFailed'),
    stateNotSaved: error => log.error({ error: String(error) }, 'stateNotSaved'),
    sealingThreadEnded: reason => log.error({ reason }, 'sealingThreadEnded'),
    markerNumbered: marker => log.debug(marker, 'markerNumbered'),
    clientConnected: (volume, address) => log.info({ volume, address }, 'clientConnected'),
    clientGone: (volume, address) => log.info({ volume, address }, 'clientGone'),
    holdRefused: refusal => log.warn(refusal, 'holdRefused'),
    holdEnded: hold => (hold.end === 'cut' ? log.debug(hold, 'holdEnded') : log.warn(hold, 'holdEnded')),
    // It is tried again and again: said once for each reason.
    checkpointFailed: failure => {
      if (failure.sentence === lastFailure) log.debug(failure, 'checkpointFailed')
      else log.warn(failure, 'checkpointFailed')
      lastFailure = failure.sentence
    },
    checkpointCut: checkpoint => {
      lastFailure = ''
      log.debug(checkpoint, 'checkpointCut')
    },
    peerUp: peer => log.info(peer, 'peerUp'),
    peerDown: peer => log.warn(peer, 'peerDown'),
    peerRefused: peer => log.warn(peer, 'peerRefused'),
    clientRefused: (address, reason) => log.warn({ address, reason }, 'clientRefused'),
  }
}
