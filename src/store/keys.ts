import { Failure } from '../base/failure.ts'

const keyPattern = /^[A-Za-z0-9._=-]{1,200}(\/[A-Za-z0-9._=-]{1,200})*$/
const keySizeCharactersMax = 800

/**
 * Fails REQUEST_INVALID unless the key is slash-separated segments of [A-Za-z0-9._=-], none of them "." or "..". Keys
 * come out of manifests as well, so that a forged one must not lead out of the store's directory.
 */
export function checkKey(key: string): void {
  const whole = keyPattern.test(key) && key.length <= keySizeCharactersMax
  if (whole && !key.split('/').some(isDots)) return
  throw new Failure('REQUEST_INVALID', `"${key.slice(0, 100)}" is not an object's name`)
}

/** The same for a prefix, which may be empty or end anywhere in a key. */
export function checkPrefix(prefix: string): void {
  if (prefix !== '') checkKey(prefix.endsWith('/') ? prefix.slice(0, -1) : prefix.endsWith('.') ? `${prefix}x` : prefix)
}

function isDots(segment: string): boolean {
  return segment === '.' || segment === '..'
}
