import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import type { World } from './world.ts'

// What the product draws by itself (delays, names of objects) and how it measures its own slices is decided by the seed, too, while a
// history runs: nothing else in the process asks meanwhile.

let current: World | undefined
let isInstalled = false
let immediateCount = 0

/** Callbacks of setImmediate that a history has planned and that have not come. */
export function plannedImmediates(): number {
  return immediateCount
}

/** On return the process's own randomness and monotonic time are the world's, until another is given, or undefined. */
export function drawFrom(world: World | undefined): void {
  current = world
  immediateCount = 0
  if (isInstalled) return
  isInstalled = true
  const { random } = Math
  Math.random = () => current?.random.fraction() ?? random()
  const now = performance.now.bind(performance)
  performance.now = () => current?.nowMillis ?? now()
  const setImmediateOfNode = globalThis.setImmediate
  const counted = (call: (...argument: unknown[]) => void, ...argument: unknown[]): NodeJS.Immediate => {
    const planner = current
    immediateCount++
    return setImmediateOfNode(() => {
      if (planner === current) immediateCount--
      call(...argument)
    })
  }
  globalThis.setImmediate = Object.assign(counted, setImmediateOfNode) as typeof setImmediate
  const { randomUUID, randomBytes } = crypto
  crypto.randomUUID = () => (current === undefined ? randomUUID() : uuidOf(current))
  const drawn = (sizeBytes: number): Buffer =>
    current === undefined ? randomBytes(sizeBytes) : bytesOf(current, sizeBytes)
  crypto.randomBytes = drawn as typeof crypto.randomBytes
  syncBuiltinESMExports()
}

function bytesOf({ random }: World, sizeBytes: number): Buffer {
  return Buffer.from(Array.from({ length: sizeBytes }, () => random.integer(0, 255)))
}

function uuidOf(world: World): ReturnType<typeof crypto.randomUUID> {
  const hex = bytesOf(world, 16).toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`
}
