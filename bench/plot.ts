import type { LatencyCurve } from './bench.ts'
import { Histogram } from './histogram.ts'

// The distribution as operators read it: which latency is not exceeded by 90 %, 99 %, 99.9 % of the frames. Both axes are
// logarithmic; on the horizontal one every nine is as wide as the one before.

const width = 860
const height = 480
const plot = { left: 70, right: 34, top: 46, bottom: 54 }
const colours = ['#1b6ca8', '#c8553d', '#3a7d44', '#7b4b94', '#b8860b', '#4a4a4a']
const shareMax = 0.9999
const latencyTicks = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]

export function plotLatency(curves: readonly LatencyCurve[]): string {
  const histograms = curves.map(({ counts }) => new Histogram(counts))
  const worst = Math.max(...histograms.map(histogram => histogram.quantileMillis(shareMax) ?? 1))
  const best = Math.min(...histograms.map(histogram => histogram.quantileMillis(0.001) ?? 1))
  const top = latencyTicks.find(tick => tick >= worst) ?? worst
  const bottom = latencyTicks.findLast(tick => tick <= best) ?? 0.1
  const x = (share: number): number =>
    plot.left + (-Math.log10(1 - share) / -Math.log10(1 - shareMax)) * (width - plot.left - plot.right)
  const y = (millis: number): number =>
    height -
    plot.bottom -
    (Math.log(Math.max(millis, bottom) / bottom) / Math.log(top / bottom)) * (height - plot.top - plot.bottom)

  const columns = [0, 0.5, 0.9, 0.99, 0.999, 0.9999].map(
    share => `<line x1="${x(share)}" x2="${x(share)}" y1="${plot.top}" y2="${height - plot.bottom}" class="grid"/>
<text x="${x(share)}" y="${height - plot.bottom + 18}" text-anchor="middle">${+(share * 100).toFixed(2)} %</text>`,
  )
  const rows = latencyTicks
    .filter(tick => tick >= bottom && tick <= top)
    .map(
      tick => `<line x1="${plot.left}" x2="${width - plot.right}" y1="${y(tick)}" y2="${y(tick)}" class="grid"/>
<text x="${plot.left - 8}" y="${y(tick) + 4}" text-anchor="end">${tick}</text>`,
    )
  const lines = histograms.map((histogram, index) => {
    const points = shares().map(share => `${x(share).toFixed(1)},${y(histogram.quantileMillis(share) ?? 0).toFixed(1)}`)
    return `<polyline points="${points.join(' ')}" fill="none" stroke="${colours[index % colours.length]}" stroke-width="2"/>`
  })
  const legend = curves.map(
    ({ name }, index) =>
      `<rect x="${plot.left + 14}" y="${plot.top + 12 + index * 18}" width="14" height="4" fill="${colours[index % colours.length]}"/>
<text x="${plot.left + 36}" y="${plot.top + 18 + index * 18}">${name}</text>`,
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<style>.grid { stroke: #ddd } text { fill: #333 }</style>
<rect width="${width}" height="${height}" fill="white"/>
<text x="${plot.left}" y="24" font-size="15">Acknowledgement latency: from when a frame was due until it was durable</text>
${[...columns, ...rows, ...lines, `<rect x="${plot.left + 6}" y="${plot.top + 4}" width="330" height="${legend.length * 18 + 6}" fill="white" fill-opacity="0.85"/>`, ...legend].join('\n')}
<text x="${(plot.left + width - plot.right) / 2}" y="${height - 10}" text-anchor="middle">share of frames that waited no longer</text>
<text transform="translate(18 ${(plot.top + height - plot.bottom) / 2}) rotate(-90)" text-anchor="middle">milliseconds</text>
</svg>
`
}

function shares(): number[] {
  return Array.from({ length: 161 }, (_, index) => 1 - 10 ** (-index / 40))
}
