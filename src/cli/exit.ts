import { CommanderError } from 'commander'
import { assertNever } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'

/** What the process ends with; scripts may rely on it. */
export const exitStatus = {
  done: 0,
  failed: 1,
  refused: 2,
  missing: 3,
  unavailable: 4,
  damaged: 5,
  stoodDown: 6,
  notProven: 7,
  interrupted: 130,
} as const

export const exitStatusHelp = `
Exit status:
  0  done
  1  failed in a way that nobody expected
  2  refused: the arguments, the request or the configuration cannot be meant
  3  nothing of that name (checkpoint, VPG, volume, tag, export)
  4  not now: the daemon, its store or its disk does not answer, or a limit is reached; try again
  5  damage was found
  6  another appliance owns this VPG, or another process is this appliance
  7  the check of a drill has not passed
  130  interrupted

A command with --json that fails says so in one line of JSON, the last of standard error:
  {"error":{"code":"NOT_FOUND","sentence":"...","details":{},"exitStatus":3}}; arguments that are not understood are told as text.`

export function exitStatusOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitStatus.done : exitStatus.refused
  if (!(error instanceof Failure)) return exitStatus.failed
  if (error.code === 'UNKNOWN_VPG' || error.code === 'UNKNOWN_VOLUME') return exitStatus.missing
  switch (error.reaction) {
    case 'refuse':
      return exitStatus.refused
    case 'missing':
      return exitStatus.missing
    case 'shed':
    case 'retry':
      return exitStatus.unavailable
    case 'quarantine':
      return exitStatus.damaged
    case 'stand-down':
      return exitStatus.stoodDown
    case 'cancelled':
      return exitStatus.interrupted
    default:
      return assertNever(error.reaction)
  }
}
