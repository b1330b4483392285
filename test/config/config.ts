import { writeFileSync } from 'node:fs'
import * as path from 'node:path'
import t, { type Test } from 'tap'
import { Failure } from '../../src/base/failure.ts'
import { GiB, MiB } from '../../src/base/units.ts'
import { agentConfigFrom, exampleConfig, loadAgentConfig, loadVraConfig, parseSize } from '../../src/config/config.ts'

function fileWith(t: Test, text: string): string {
  const file = path.join(t.testdir(), 'vra.yaml')
  writeFileSync(file, text)
  return file
}

/** The sentences, one for each fault, without the file's directory. */
function faultsOf(
  file: string | undefined,
  environment: Record<string, string> = {},
  load: (file: string | undefined, environment: Record<string, string>) => unknown = loadVraConfig,
): string[] {
  try {
    load(file, environment)
  } catch (error) {
    if (error instanceof Failure && error.code === 'CONFIG_INVALID')
      return error.message
        .split('\n')
        .map(line => (file === undefined ? line : line.replace(`${path.dirname(file)}/`, '')))
    throw error
  }
  return []
}

t.test('without a file and environment the defaults hold', async t => {
  const config = loadVraConfig(undefined, {})
  t.equal(config.dataDirectory, path.resolve('vra-data'))
  t.strictSame(config.store, { kind: 'directory', directory: path.resolve('vra-data/store') })
  t.match(config.listen, { host: '127.0.0.1', port: 7420, allowPlaintextBeyondLoopback: false })
  t.match(config.control, { host: '127.0.0.1', port: 7421 })
  t.equal(config.journal.logSizeBytesMax, 8 * GiB)
})

t.test('every misspelt key is refused by name, with line and the key that is meant, all at once', async t => {
  const file = fileWith(
    t,
    `dataDir: /data
listen:
  prot: 7420
  hosst: 127.0.0.1
aging:
  segmentAgeMilis: 1000
  foldSizeMin: 1 GiB
log:
  levl: info
wholly: different
`,
  )
  t.strictSame(faultsOf(file), [
    'vra.yaml:1: dataDir is not a known key; did you mean dataDirectory?',
    'vra.yaml:3: listen.prot is not a known key; did you mean port?',
    'vra.yaml:4: listen.hosst is not a known key; did you mean host?',
    'vra.yaml:6: aging.segmentAgeMilis is not a known key; did you mean segmentAgeMillisMax?',
    'vra.yaml:7: aging.foldSizeMin is not a known key; did you mean foldSizeBytesMin?',
    'vra.yaml:9: log.levl is not a known key; did you mean level?',
    'vra.yaml:10: wholly is not a known key; known here: dataDirectory, listen, control, store, journal, aging, live, cache, prices, aws, drillChecks, log',
  ])
})

t.test('a key of the other kind of store is unknown', async t => {
  const file = fileWith(t, 'store:\n  kind: directory\n  bucket: b\n')
  t.match(faultsOf(file)[0], /^vra.yaml:3: store.bucket is not a known key/)
  t.match(faultsOf(fileWith(t, 'store: {kind: s4}\n'))[0], /store.kind must be one of directory, s3 \(is "s4"\)/)
  t.match(faultsOf(fileWith(t, 'store: {kind: s3}\n'))[0], /store.bucket is missing/)
})

t.test('bounds are held at both ends, and said', async t => {
  const cases: [string, RegExp][] = [
    ['listen: {port: 65536}', /listen.port must be a port/],
    ['listen: {port: 1.5}', /listen.port must be a port/],
    ['listen: {port: "7420"}', /listen.port must be a number \(is "7420"\)/],
    ['journal: {logSizeBytesMax: 1 MiB}', /journal.logSizeBytesMax must lie between 256 MiB and 16 TiB \(is "1 MiB"\)/],
    ['journal: {logSizeBytesMax: 64 MB}', /journal.logSizeBytesMax is not a size/],
    ['aging: {segmentAgeMillisMax: 3600001}', /between 200 and 3600000 milliseconds/],
    ['aging: {segmentAgeMillisMax: 199}', /between 200 and 3600000 milliseconds/],
    ['aging: {deltaShareMax: 0}', /aging.deltaShareMax must lie between 0.05 and 4/],
    ['log: {level: warning}', /log.level must be one of .*; did you mean warn\?/],
    ['listen: []', /listen must be a section of keys/],
    [
      'journal: {logSizeBytesMax: 1 GiB}',
      /aging.logSizeBytesPressure must be less than journal.logSizeBytesMax \(1 GiB\)/,
    ],
  ]
  for (const [text, expected] of cases) t.match(faultsOf(fileWith(t, `${text}\n`)).join('\n'), expected, text)
  const greatest = fileWith(t, 'listen: {port: 65535}\naging: {segmentAgeMillisMax: 200}\n')
  t.strictSame(faultsOf(greatest), [])
})

t.test('what listens beyond loopback must say that it is meant', async t => {
  t.match(faultsOf(fileWith(t, 'listen: {host: 0.0.0.0}\n'))[0], /listen.host is beyond loopback without tls/)
  t.match(
    faultsOf(fileWith(t, 'control: {host: 10.0.0.1}\n'))[0],
    /control.host is beyond loopback, and the API has no auth/,
  )
  t.strictSame(faultsOf(fileWith(t, 'listen: {host: 0.0.0.0, allowPlaintextBeyondLoopback: true}\n')), [])
  t.strictSame(faultsOf(fileWith(t, 'listen: {host: "::1"}\ncontrol: {host: 127.9.9.9}\n')), [])
})

t.test('broken YAML, doubled keys and aliases are faults with their line', async t => {
  t.match(faultsOf(fileWith(t, 'listen:\n  port: 1\n  port: 2\n'))[0], /^vra.yaml:3: /)
  t.match(faultsOf(fileWith(t, 'listen: {port: 1\n'))[0], /^vra.yaml:\d+: /)
  t.match(faultsOf(fileWith(t, 'a: &a {port: 1}\nlisten: *a\n'))[0], /^vra.yaml:2: aliases/)
  t.match(faultsOf('/nowhere/vra.yaml')[0], /cannot read the configuration .*vra.yaml: there is no such file/)
  t.match(faultsOf(fileWith(t, 'just text\n'))[0], /must be a section of keys/)
  t.strictSame(faultsOf(fileWith(t, '')), [], 'an empty file is the defaults')
})

t.test('the environment goes over the file, and its faults name the variable', async t => {
  const file = fileWith(t, 'listen: {port: 1000}\ndataDirectory: data\nstore: {kind: directory, directory: objects}\n')
  const config = loadVraConfig(file, {
    VRA_LISTEN_PORT: '2000',
    VRA_S3_BUCKET: 'bucket',
    VRA_S3_ENDPOINT: 'http://127.0.0.1:9000',
    VRA_S3_FORCE_PATH_STYLE: 'true',
  })
  t.equal(config.listen.port, 2000)
  t.equal(config.dataDirectory, path.join(path.dirname(file), 'data'), 'a path is taken from the directory of the file')
  t.match(config.store, {
    kind: 's3',
    bucket: 'bucket',
    endpoint: 'http://127.0.0.1:9000',
    forcePathStyle: true,
    serverSideEncryption: 'bucket-default',
    kmsKeyId: undefined,
    prefix: '',
  })
  t.equal(loadVraConfig(file, { VRA_DATA_DIRECTORY: 'elsewhere' }).dataDirectory, path.resolve('elsewhere'))
  t.equal(loadVraConfig(file, { VRA_LOG_SIZE_BYTES_MAX: '4 GiB' }).journal.logSizeBytesMax, 4 * GiB)
  t.strictSame(faultsOf(undefined, { VRA_LISTEN_PORT: 'http' }), [
    'environment: VRA_LISTEN_PORT, which sets listen.port, must be a number (is "http")',
  ])
  t.strictSame(faultsOf(undefined, { VRA_S3_BUKET: 'b' }), [
    'environment: VRA_S3_BUKET is not a known variable; did you mean VRA_S3_BUCKET?',
  ])
  t.strictSame(faultsOf(undefined, { VRA_LISTEN_PORT: '' }), [], 'an empty variable is none')
})

t.test('the example files load as the defaults, and document every key', async t => {
  const vra = loadVraConfig(fileWith(t, exampleConfig('vra')), {})
  const defaults = loadVraConfig(fileWith(t, ''), {})
  t.strictSame(vra, defaults)
  const agent = loadAgentConfig(fileWith(t, exampleConfig('agent')), {})
  t.match(agent, { agentId: 'host1', queueSizeBytesMax: 256 * MiB, volumes: [{ name: 'root' }] })
  for (const key of ['certificateFile', 'bucket', 'endpoint', 'garbageGraceMillis'])
    t.match(exampleConfig('vra'), `${key}: `)
  const keys = exampleConfig('vra')
    .split('\n')
    .filter(line => /^\s*(# )?\s*[a-zA-Z]+: \S/.test(line))
  for (const line of keys) {
    const at = exampleConfig('vra').split('\n').indexOf(line)
    t.match(exampleConfig('vra').split('\n')[at - 1], /^\s*#/, `a comment stands above "${line.trim()}"`)
  }
})

t.test('what is commented out in the example loads when the comment marks are taken away', async t => {
  const shown = (section: string): string => section.replace(/^( {2})# (tls:|  )/gm, '$1$2')
  const tls = exampleConfig('vra').replace(/^listen:[^]*?^control:/m, shown)
  t.equal(loadVraConfig(fileWith(t, tls), {}).listen.tls?.certificateFile, '/etc/vra/tls/own.crt')
})

t.test('checks of drills have names of their own', async t => {
  const of = (text: string) => loadVraConfig(fileWith(t, `drillChecks: ${text}\n`), {}).drillChecks
  t.strictSame(of('[{name: fsck, command: e2fsck -fn "$VRA_FILE_root"}]'), [
    { name: 'fsck', command: 'e2fsck -fn "$VRA_FILE_root"', timeoutMillis: 600_000 },
  ])
  t.throws(() => of('[{name: a, command: x}, {name: a, command: y}]'), /drillChecks names "a" twice/)
  t.throws(() => of('[{name: a}]'), /command is missing/)
})

t.test('a key of the user’s encrypts the store: a file, or one of KMS', async t => {
  const of = (text: string) =>
    loadVraConfig(fileWith(t, `store:\n  kind: directory\n  clientEncryption: ${text}\n`), {}).store.clientEncryption
  t.strictSame(of('{key: file, keyFile: /etc/vra/store.key}'), { key: 'file', keyFile: '/etc/vra/store.key' })
  t.match(of('{key: kms, kmsKeyId: alias/vra}'), { key: 'kms', kmsKeyId: 'alias/vra', region: 'us-east-1' })
  t.throws(() => of('{key: file}'), /clientEncryption.keyFile is missing/)
  t.throws(() => of('{key: file, kmsKeyId: alias/vra}'), { code: 'CONFIG_INVALID' })
})

t.test("an agent's configuration names what is missing, and a volume that is listed twice", async t => {
  const faults = faultsOf(
    fileWith(t, 'volumes:\n  - {name: a, path: /x}\n  - {name: a, path: /y}\n  - {name: b, pth: /y}\n'),
    {},
    loadAgentConfig,
  )
  t.strictSame(faults, [
    'vra.yaml: agentId is missing',
    'vra.yaml: vpg is missing',
    'vra.yaml:4: volumes[2].path is missing',
    'vra.yaml:4: volumes[2].pth is not a known key; did you mean path?',
  ])
  const twice = faultsOf(
    fileWith(t, 'agentId: a\nvpg: b\nvolumes:\n  - {name: a, path: /x}\n  - {name: a, path: /y}\n'),
    {},
    loadAgentConfig,
  )
  t.match(twice[0], /^vra.yaml:5: volumes\[1\].name "a" is listed twice/)
  const flags = agentConfigFrom({
    agentId: 'a',
    vpg: 'b',
    volumes: [{ name: 'root', path: 'disk.img' }],
    vra: { host: '::1' },
  })
  t.equal(flags.volumes[0]?.path, path.resolve('disk.img'))
})

t.test('sizes are binary, exact, and never guessed', async t => {
  t.equal(parseSize('64 MiB'), 64 * MiB)
  t.equal(parseSize('1.5GiB'), 1.5 * GiB)
  t.equal(parseSize('512'), 512)
  for (const text of ['64 MB', '64M', '-1', '', '1e3', '1 mib', 'GiB']) t.equal(parseSize(text), undefined, text)
})
