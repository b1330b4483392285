import t from 'tap'
import { FaultyDisk, type Fault, PowerCut } from '../support/faulty-disk.ts'
import { Random } from '../support/journal-random.ts'
import { BrokenPromise, Scenario } from '../support/journal-scenario.ts'

// The power fails, the process is killed, or the disk refuses, at every operation of a log's life in turn; see
// journal-scenario.ts for what must hold then.

const groupCount = 18

/** How many operations a life has, and (with `error`) where a sync fails within it. */
function live(scenario: Scenario, disk: FaultyDisk): void {
  scenario.open(disk)
  scenario.live(groupCount)
}

function operationCountOf(seed: number): number {
  const disk = new FaultyDisk()
  live(new Scenario(seed), disk)
  return disk.operationCount
}

/** Lives until the power fails, then looks at what is left, lives on, and so on. */
function liveThroughPowerCut(
  seed: number,
  operation: number,
  options: { ignoresSync?: boolean; error?: number },
): void {
  const disk = new FaultyDisk(options)
  const random = new Random(seed * 1_000 + operation)
  if (options.error !== undefined) disk.failAt(options.error, random.chance(0.5) ? 'EIO' : 'short')
  disk.failAt(operation, 'power')
  const scenario = new Scenario(seed)
  try {
    live(scenario, disk)
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error
  }
  let survivor = disk.crash(random)
  survivor.failAt(random.integer(1, 25), 'power')
  try {
    scenario.open(survivor)
    scenario.live(3)
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error
  }
  survivor = survivor.crash(random)
  scenario.open(survivor)
  scenario.live(3)
  scenario.open(survivor.crash(random))
}

for (const seed of [1, 2, 3]) {
  t.test(
    `whatever operation power fails at, and again during recovery, every acknowledged record survives (seed ${seed})`,
    async t => {
      const operationCount = operationCountOf(seed)
      for (let operation = 1; operation <= operationCount; operation++) {
        try {
          liveThroughPowerCut(seed, operation, {})
        } catch (error) {
          t.fail(`operation ${operation}: ${error instanceof Error ? error.stack : String(error)}`)
          return
        }
      }
      t.ok(operationCount > 60, `${operationCount} operations`)
    },
  )
}

for (const seed of [5, 6]) {
  t.test(`after an error of the disk as well, whatever operation power fails at (seed ${seed})`, async t => {
    const operationCount = operationCountOf(seed)
    const random = new Random(seed)
    for (let operation = 5; operation <= operationCount; operation++) {
      const error = random.integer(Math.max(4, operation - 12), operation - 1)
      try {
        liveThroughPowerCut(seed, operation, { error })
      } catch (failure) {
        t.fail(
          `error at ${error}, power at ${operation}: ${failure instanceof Error ? failure.stack : String(failure)}`,
        )
        return
      }
    }
    t.ok(operationCount > 60, `${operationCount} operations`)
  })
}

t.test('what a killed process left unsynced counts only once it is on disk', async t => {
  for (let operation = 1; operation <= operationCountOf(8); operation++) {
    const disk = new FaultyDisk()
    const random = new Random(operation)
    if (operation > 6 && random.chance(0.5)) disk.failAt(operation - random.integer(1, 3), 'EIO')
    disk.failAt(operation, 'power')
    const scenario = new Scenario(8)
    try {
      live(scenario, disk)
    } catch (error) {
      if (!(error instanceof PowerCut)) throw error
    }
    disk.restartProcess()
    try {
      scenario.open(disk)
      scenario.open(disk.crash(random))
    } catch (error) {
      t.fail(`operation ${operation}: ${error instanceof Error ? error.stack : String(error)}`)
      return
    }
  }
  t.pass('every operation')
})

t.test('any single refusal of the disk delays, and loses nothing', async t => {
  const faults: readonly Fault[] = ['EIO', 'ENOSPC', 'short']
  const operationCount = operationCountOf(9)
  for (let operation = 6; operation <= operationCount; operation++) {
    const fault = faults[operation % faults.length] ?? 'EIO'
    const disk = new FaultyDisk()
    disk.failAt(operation, fault)
    const scenario = new Scenario(9)
    try {
      live(scenario, disk)
      scenario.open(disk.crash(new Random(operation)))
    } catch (error) {
      t.fail(`${fault} at operation ${operation}: ${error instanceof Error ? error.stack : String(error)}`)
      return
    }
  }
  t.pass(`${operationCount} operations`)
})

t.test('the check itself is sharp: a disk that only pretends to sync does not pass it', async t => {
  let brokenCount = 0
  for (let operation = 20; operation < 60; operation++) {
    try {
      liveThroughPowerCut(1, operation, { ignoresSync: true })
    } catch (error) {
      if (!(error instanceof BrokenPromise)) throw error
      brokenCount++
    }
  }
  t.ok(brokenCount > 30, `${brokenCount} of 40 crashes were noticed`)
})
