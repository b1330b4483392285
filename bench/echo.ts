import * as net from 'node:net'
import { once } from 'node:events'

// node echo.js serve ADDRESS PORT, and node echo.js ask ADDRESS PORT COUNT: what one small message there and back takes, as JSON, in
// milliseconds. It is what a hold is compared with: the same program, the same sockets, nothing in between.

const messageSizeBytes = 40
const [mode, host, port, count] = process.argv.slice(2)

if (mode === 'serve') {
  const server = net.createServer(socket => {
    socket.setNoDelay(true)
    socket.on('error', () => undefined)
    socket.on('data', chunk => socket.write(chunk))
  })
  server.listen(Number(port), host, () => console.log('serving'))
  process.once('SIGTERM', () => process.exit(0))
} else {
  const socket = net.connect({ host: host ?? '', port: Number(port) })
  socket.setNoDelay(true)
  await once(socket, 'connect')
  const message = Buffer.alloc(messageSizeBytes)
  const tripMillis: number[] = []
  for (let at = 0; at < Number(count); at++) {
    const startMillis = performance.now()
    socket.write(message)
    await once(socket, 'data')
    tripMillis.push(performance.now() - startMillis)
    await new Promise(resolve => setTimeout(resolve, 2)) // as holds are: not back to back
  }
  socket.destroy()
  console.log(JSON.stringify(tripMillis))
}
