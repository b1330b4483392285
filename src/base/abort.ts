import { assert } from './assert.ts'

// One signal ends all the work of its owner, and many wait for it at a time. Each with a listener of its own would look like a leak
// to Node, and cost it a search for every one that goes; so a signal has one listener, and the set of those who wait.

const waiting = new WeakMap<AbortSignal, Set<() => void>>()

/** Calls back when the signal, which is not aborted yet, is. Returns what takes that back; when all have, nothing is left at the signal. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  assert(!signal.aborted, 'a signal is aborted once')
  const callbacks = waiting.get(signal) ?? listen(signal)
  const own = (): void => callback() // the same callback may wait twice
  callbacks.add(own)
  return () => {
    callbacks.delete(own)
    if (callbacks.size > 0 || waiting.get(signal) !== callbacks) return
    waiting.delete(signal)
    signal.removeEventListener('abort', tellAll)
  }
}

function listen(signal: AbortSignal): Set<() => void> {
  const callbacks = new Set<() => void>()
  waiting.set(signal, callbacks)
  signal.addEventListener('abort', tellAll, { once: true })
  return callbacks
}

function tellAll(event: Event): void {
  const signal = event.target as AbortSignal
  const callbacks = waiting.get(signal) ?? []
  waiting.delete(signal)
  for (const callback of callbacks) callback()
}
