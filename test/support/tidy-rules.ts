// The table that test/tidy/tidy.ts holds the code against.

/** Folders of src/ from the ground up; a folder may import from its own level's left and from every level before. */
export const levels: readonly (readonly string[])[] = [
  ['base'],
  ['codec', 'disk', 'config', 'certs'],
  ['store', 'wire', 'timeline', 'nbd'],
  ['journal', 'catalog', 'cut'],
  ['segment'],
  ['manifest', 'mirror'],
  ['aging', 'image'],
  ['recovery'],
  ['live', 'aws'],
  ['ingest', 'agent'],
  ['metrics'],
  ['control'],
  ['daemon'],
  ['demo'],
  ['cli'],
]

/** Imports inside one level that are meant: from → to. */
export const sideways: readonly (readonly [string, string])[] = [
  ['codec', 'disk'],
  ['catalog', 'timeline'],
  ['manifest', 'mirror'],
  ['image', 'aging'],
]

/** What another folder may import of a folder, beside its front door `<folder>/<folder>.ts`. */
export const doors: Readonly<Record<string, readonly string[]>> = {
  base: ['*'],
  codec: ['*'],
  timeline: ['*'],
  disk: ['directory-lock', 'durable-create', 'volume-file'],
  store: ['object-store', 'check'],
  wire: ['messages', 'batch-builder'],
  journal: ['record', 'writer', 'log-reader'],
  segment: ['record-source'],
  ingest: ['registry'],
  config: ['*'],
  control: ['agent-api', 'client', 'reference', 'words'],
  metrics: ['agent-metrics'],
  recovery: ['target', 'check'],
  cli: [],
  '*': ['events', 'service'],
}

/** Packages that only one folder may know. */
export const packageOwners: Readonly<Record<string, readonly string[]>> = {
  '@aws-sdk/client-s3': ['store'],
  '@aws-sdk/client-kms': ['store'],
  '@aws-sdk/client-ebs': ['aws'],
  '@aws-sdk/client-ec2': ['aws'],
  '@aws-sdk/client-service-quotas': ['aws'],
  '@smithy/node-http-handler': ['store', 'aws'],
  protobufjs: ['wire'],
  lz4: ['codec'],
  '@node-rs/crc32': ['codec'],
  'aws-crt': ['codec'],
  'better-sqlite3': ['catalog'],
  'prom-client': ['metrics'],
  fastify: ['control'],
  '@fastify/swagger': ['control'],
  yaml: ['config'],
  zod: ['config', 'control'],
  commander: ['cli'],
  'cli-progress': ['cli', 'demo'],
  'cli-table3': ['cli', 'demo'],
  pino: ['daemon'],
  '@peculiar/x509': ['certs'],
  'reflect-metadata': ['certs'],
}
