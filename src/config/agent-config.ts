import { z } from 'zod'
import {
  frameSizeBytesMax,
  holdTimeoutMillisDefault,
  holdTimeoutMillisMax,
  holdTimeoutMillisMin,
  volumesPerVpgMax,
} from '../base/limits.ts'
import { GiB, MiB } from '../base/units.ts'
import {
  address,
  described,
  file,
  host,
  isLoopback,
  isWildcard,
  millis,
  name,
  port,
  related,
  sizeBytes,
} from './fields.ts'
import { controlSchema, logSchema, tlsSchema } from './vra-config.ts'

const peersSchema = z
  .strictObject({
    listen: related(
      z.strictObject({
        host: described(host(), 'Where they reach this agent.', '10.0.0.11'),
        port: described(port(), 'Its port.').default(7423),
        allowPlaintextBeyondLoopback: described(
          z.boolean(),
          'Without vra.tls: whoever reaches it may hold writes for a moment, again and again.',
        ).default(false),
      }),
      {
        key: 'port',
        message: 'must be a port from 1: the others must know it',
        holds: listen => listen.port !== 0,
      },
    ).optional(),
    advertise: described(
      address(),
      'host:port as they reach it, where that is not where it listens.',
      'host1.lan:7423',
    ).optional(),
    holdTimeoutMillis: described(
      millis({ min: holdTimeoutMillisMin, max: holdTimeoutMillisMax }),
      "How long guests' writes wait at most while a checkpoint is cut.",
    ).default(holdTimeoutMillisDefault),
  })
  .prefault({})

const agentObject = z.strictObject({
  agentId: described(name(), "This agent's name, as the VPG lists it and as its certificate says.", 'host1'),
  vpg: described(name(), 'The VPG whose disks these are.', 'web'),
  vra: related(
    z.strictObject({
      host: described(host(), 'Where the VRA listens for agents.').default('127.0.0.1'),
      port: described(port(), 'Its port.').default(7420),
      tls: described(tlsSchema, "TLS 1.3 with this agent's certificate. See `vra certs`.").optional(),
      allowPlaintextBeyondLoopback: described(z.boolean(), "Send the disks' contents in the clear.").default(false),
    }),
    {
      key: 'host',
      message: 'is beyond loopback without tls; configure vra.tls, or set allowPlaintextBeyondLoopback: true',
      holds: vra => vra.tls !== undefined || vra.allowPlaintextBeyondLoopback || isLoopback(vra.host),
    },
  ).prefault({}),
  stateDirectory: described(file(), 'What the agent must remember across restarts.').default('./vra-agent-state'),
  nbd: related(
    z.strictObject({
      host: described(host(), 'Where guests (qemu, nbd-client, nbdfuse) find their disks.').default('127.0.0.1'),
      port: described(port(), 'Its port.').default(10809),
      allowBeyondLoopback: described(
        z.boolean(),
        'NBD has no authentication: whoever reaches it may read and write the disks.',
      ).default(false),
    }),
    {
      key: 'host',
      message: 'is beyond loopback, and NBD has no authentication; set allowBeyondLoopback: true if that is meant',
      holds: nbd => nbd.allowBeyondLoopback || isLoopback(nbd.host),
    },
  ).prefault({}),
  peers: described(
    peersSchema,
    'The other agents of the VPG, where it has several: their checkpoints are cut together. With TLS, as the VRA is reached.',
  ),
  queueSizeBytesMax: described(
    sizeBytes({ min: 2 * frameSizeBytesMax, max: 64 * GiB }),
    'Writes that wait for the VRA, in memory; past it the volumes need a sync, the guest goes on.',
  ).default(256 * MiB),
  volumes: described(
    z
      .array(
        z.strictObject({
          name: described(name(), "The volume's name in the VPG, and its NBD export.", 'root'),
          path: described(file(), 'A raw file or a block device; a multiple of 512 bytes.', '/var/lib/disks/root.img'),
        }),
      )
      .min(1, 'must list at least one volume')
      .max(volumesPerVpgMax, `must list at most ${volumesPerVpgMax} volumes`)
      .superRefine((volumes, context) => {
        for (const [index, volume] of volumes.entries()) {
          const first = volumes.findIndex(other => other.name === volume.name)
          if (first < index)
            context.addIssue({ code: 'custom', path: [index, 'name'], message: `"${volume.name}" is listed twice` })
        }
      }),
    'The disks that are served and protected.',
  ),
  control: controlSchema(7422, { serves: '/v1/status and /metrics listen', risk: 'sees what is protected' }),
  log: logSchema,
})

export const agentSchema = related(
  related(agentObject, {
    key: 'peers',
    message:
      'listens beyond loopback without vra.tls; configure vra.tls, or set peers.listen.allowPlaintextBeyondLoopback: true',
    holds: ({ peers, vra }) => {
      const listen = peers?.listen
      if (listen === undefined || vra?.tls !== undefined) return true
      return listen.allowPlaintextBeyondLoopback || isLoopback(listen.host)
    },
  }),
  {
    key: 'peers',
    message: 'listens on every address: peers.advertise must say which one the others reach',
    holds: ({ peers }) =>
      peers?.listen === undefined || peers.advertise !== undefined || !isWildcard(peers.listen.host),
  },
)

/** Paths are absolute; sizes in bytes; every relation between the values holds. */
export type AgentConfig = z.output<typeof agentSchema>
