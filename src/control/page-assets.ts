// The status page's style and script, inline because the page loads nothing else.

export const pageStyle = `
:root{--bg:#f6f7f9;--card:#fff;--text:#1c2128;--soft:#667080;--line:#e3e6eb;--accent:#1f6feb;--good:#1a7f37;--goodbg:#dafbe1;--warn:#8a5a00;--warnbg:#fff3c9;--bad:#b3261e;--badbg:#ffe3e0;--idle:#667080;--idlebg:#eaedf1;--shadow:0 1px 2px rgba(20,30,50,.06)}
@media (prefers-color-scheme:dark){:root{--bg:#0e1116;--card:#171b22;--text:#e4e8ee;--soft:#8d98a8;--line:#282e38;--accent:#6cb0ff;--good:#56d364;--goodbg:#12351d;--warn:#e3b341;--warnbg:#3a2d08;--bad:#ff8a80;--badbg:#451a18;--idle:#8d98a8;--idlebg:#252b35;--shadow:none}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 40px}
header{margin-bottom:18px}
h1{font-size:22px;margin:0;display:flex;gap:12px;align-items:center;letter-spacing:-.01em}
header p{margin:4px 0 0;color:var(--soft);font-size:13px}
h2{font-size:13px;margin:28px 0 10px;color:var(--soft);text-transform:uppercase;letter-spacing:.06em;font-weight:600}
h3{font-size:17px;margin:0}
code{font:13px ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.pill{font-size:12px;font-weight:600;padding:2px 10px;border-radius:99px;white-space:nowrap;letter-spacing:0}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}.idle{color:var(--idle)}.busy{color:var(--accent)}
.pill.good{background:var(--goodbg)}.pill.warn{background:var(--warnbg)}.pill.bad{background:var(--badbg)}.pill.idle{background:var(--idlebg)}
.alert{margin:8px 0;padding:9px 14px;border-radius:8px;font-size:14px}
.alert.warn{background:var(--warnbg)}.alert.bad{background:var(--badbg)}
.tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:12px;margin-top:16px}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;box-shadow:var(--shadow)}
.tile{padding:13px 16px 12px;display:flex;flex-direction:column;min-height:118px}
.label{font-size:12.5px;color:var(--soft)}
.value{font-size:25px;font-weight:600;letter-spacing:-.02em;font-variant-numeric:tabular-nums;line-height:1.3}
.note{font-size:12.5px;color:var(--soft)}
.spark,.meter{width:100%;display:block;margin-top:auto}
.spark{height:24px;padding-top:6px}.meter{height:5px;border-radius:3px;margin-bottom:4px}
.spark path{fill:none;stroke:var(--accent);stroke-width:1.5;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.meter .back{fill:var(--idlebg)}.meter .fill{fill:currentColor}
td .meter{width:120px;margin:4px 0 0}
.card{padding:15px 18px 8px;margin-bottom:12px}
.card.empty{padding-bottom:14px;color:var(--soft)}
.card pre{margin:10px 0 0;color:var(--text);font:13px ui-monospace,Menlo,"DejaVu Sans Mono",monospace;overflow-x:auto}
.title{display:flex;gap:10px;align-items:center;flex-wrap:wrap}
.reason{color:var(--soft);font-size:13.5px}
dl{display:grid;grid-template-columns:repeat(5,1fr);gap:12px 18px;margin:14px 0 12px}
dt{font-size:12px;color:var(--soft)}dd{margin:1px 0 0;font-variant-numeric:tabular-nums;font-size:14.5px}
.tags{margin:0 0 8px;display:flex;flex-wrap:wrap;gap:6px}
.tag{font-size:12px;border:1px solid var(--line);border-radius:6px;padding:1px 8px;color:var(--soft)}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:500;color:var(--soft);font-size:12px;padding:7px 10px 5px 0;border-top:1px solid var(--line)}
.card>table:first-child th{border-top:0;padding-top:0}
td{padding:6px 10px 7px 0;border-top:1px solid var(--line);vertical-align:top}
.number{text-align:right;padding-right:22px;white-space:nowrap}
.dot{display:inline-block;width:8px;height:8px;border-radius:50%;background:currentColor;margin-right:7px}
footer{margin-top:24px;color:var(--soft);font-size:12.5px;display:flex;flex-wrap:wrap;gap:4px 22px}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
#stale{color:var(--bad);font-weight:600}
@media (max-width:860px){.tiles{grid-template-columns:repeat(2,1fr)}dl{grid-template-columns:repeat(2,1fr)}.card{overflow-x:auto}}
@media (max-width:480px){.tiles{grid-template-columns:1fr}}
`

export const pageScript = `
(() => {
  const facts = document.getElementById('facts'), kept = new Map()
  const draw = () => {
    for (const svg of facts.querySelectorAll('[data-series]')) {
      const values = kept.get(svg.dataset.series) || []
      values.push(Number(svg.dataset.value))
      if (values.length > 90) values.shift()
      kept.set(svg.dataset.series, values)
      if (values.length < 2) continue
      const top = Math.max(...values) || 1
      const points = values.map((value, i) => (i * 120 / (values.length - 1)).toFixed(1) + ' ' + (23 - value / top * 21).toFixed(1))
      const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
      path.setAttribute('d', 'M' + points.join('L'))
      svg.replaceChildren(path)
    }
    const pill = facts.querySelector('h1 [data-title]')
    if (pill) document.title = 'VRA: ' + pill.dataset.title
  }
  const refresh = async () => {
    try {
      const answer = await fetch('/facts', { signal: AbortSignal.timeout(5000) })
      if (!answer.ok) throw new Error(String(answer.status))
      const text = await answer.text()
      if (String(getSelection()) === '') { facts.innerHTML = text; draw() }
    } catch {
      const stale = document.getElementById('stale')
      if (stale) stale.hidden = false
    }
    setTimeout(refresh, document.hidden ? 10000 : 2000)
  }
  draw()
  setTimeout(refresh, 2000)
})()
`
