/** What /metrics of a role says now. */
export class Scrape {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }

  static async of(controlUrl: string): Promise<Scrape> {
    const answer = await fetch(`${controlUrl}/metrics`)
    if (answer.status !== 200) throw new Error(`/metrics answered ${answer.status}`)
    return new Scrape(await answer.text())
  }

  /** The value of the series; undefined where there is none. Without a VPG: the series without labels. */
  value(name: string, vpg?: string): number | undefined {
    const labels = vpg === undefined ? '' : `{vpg="${vpg}"}`
    const line = this.text.split('\n').find(line => line.startsWith(`${name}${labels} `))
    return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ') + 1))
  }

  has(name: string): boolean {
    return this.text.includes(`\n# TYPE ${name} `) || this.text.startsWith(`# TYPE ${name} `)
  }
}
