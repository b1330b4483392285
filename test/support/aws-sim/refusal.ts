/** What a service answers when it does not do what it was asked. */
export class Refusal extends Error {
  readonly status: number
  readonly code: string
  /** Of the EBS direct APIs. */
  readonly reason: string | undefined

  constructor(status: number, code: string, message: string, reason?: string) {
    super(message)
    this.status = status
    this.code = code
    this.reason = reason
  }
}

/** Of the EC2 API most refusals are 400. */
export function refuse(code: string, message: string): never {
  throw new Refusal(400, code, message)
}
