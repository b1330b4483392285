/**
 * What keeps tries from adding to the load of a server that is in trouble, shared by all calls to it: each try after the first takes a token, ten calls that
 * succeed give one back.
 */
export class RetryBudget {
  readonly #tokensMax: number
  #tokens: number

  constructor(tokensMax: number) {
    this.#tokensMax = tokensMax
    this.#tokens = tokensMax
  }

  succeeded(): void {
    this.#tokens = Math.min(this.#tokensMax, this.#tokens + 0.1)
  }

  /** False where there is none left. */
  take(): boolean {
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}
