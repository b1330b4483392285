import * as http from 'node:http'
import * as https from 'node:https'
import { EBSClient } from '@aws-sdk/client-ebs'
import { EC2Client } from '@aws-sdk/client-ec2'
import { ServiceQuotasClient } from '@aws-sdk/client-service-quotas'
import type { AwsConfig } from './service.ts'

// The SDK's clients as every request here is sent: one try each (see attempts.ts), a bound on its time, and sockets for as many as are under way.

// The version in use is pinned: what later versions will need of Node is no news for an operator's log.
process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true'

const connectionTimeoutMillis = 5_000
const ec2SocketsMax = 16
const quotaSocketsMax = 2

export function newEbsClient(config: AwsConfig, socketsMax: number): EBSClient {
  const client = new EBSClient(clientConfig(config, config.endpoints.ebs, socketsMax))
  // The signature needs the SHA-256 of the body, which for a block is the checksum that it bears anyway: it is not computed twice.
  client.middlewareStack.add(
    next => async args => {
      const { headers } = args.request as { readonly headers: Record<string, string> }
      const checksum = headers['x-amz-checksum']
      if (checksum !== undefined && headers['x-amz-data-length'] !== undefined)
        headers['x-amz-content-sha256'] = Buffer.from(checksum, 'base64').toString('hex')
      return await next(args)
    },
    { step: 'build', name: 'blockDigest' },
  )
  return client
}

export function newEc2Client(config: AwsConfig): EC2Client {
  return new EC2Client(clientConfig(config, config.endpoints.ec2, ec2SocketsMax))
}

/** None where other endpoints are not AWS's own, and this one is not told: what stands there may have no Service Quotas, and AWS's is not that account's. */
export function newQuotaClient(config: AwsConfig): ServiceQuotasClient | undefined {
  const { ebs, ec2, quotas } = config.endpoints
  if (quotas === undefined && (ebs ?? ec2) !== undefined) return undefined
  return new ServiceQuotasClient(clientConfig(config, quotas, quotaSocketsMax))
}

function clientConfig({ region, requestTimeoutMillis }: AwsConfig, endpoint: string | undefined, socketsMax: number) {
  const agentOptions = { keepAlive: true, maxSockets: socketsMax }
  return {
    region,
    ...(endpoint === undefined ? {} : { endpoint }),
    maxAttempts: 1,
    requestHandler: {
      connectionTimeout: connectionTimeoutMillis,
      requestTimeout: requestTimeoutMillis,
      throwOnRequestTimeout: true,
      socketTimeout: requestTimeoutMillis,
      httpAgent: new http.Agent(agentOptions),
      httpsAgent: new https.Agent(agentOptions),
    },
  }
}
