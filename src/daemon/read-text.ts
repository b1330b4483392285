import { readFileSync } from 'node:fs'
import { Failure } from '../base/failure.ts'

/** Fails CONFIG_INVALID, naming the file. */
export function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new Failure('CONFIG_INVALID', `cannot read ${file}: ${(error as Error).message}`, { file }, { cause: error })
  }
}
