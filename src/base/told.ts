export interface Told<T> {
  readonly told: Promise<T>
  readonly tell: (value: T) => void
}

/** A promise of what `tell` is given first. */
export function untilTold<T>(): Told<T> {
  let tell: (value: T) => void = () => undefined
  const told = new Promise<T>(resolve => (tell = resolve))
  return { told, tell }
}
