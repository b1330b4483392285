import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

// A thread that is ended while it loads the AWS Common Runtime would end the process with 255, without a word of ours.

t.test('a process lives on whenever its threads are ended, and ends in order itself', t => {
  const program = fileURLToPath(new URL('../support/ending-threads.js', import.meta.url))
  for (let seed = 1; seed <= 6; seed++) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, String(seed), String(200 * seed)], {
      encoding: 'utf8',
    })
    t.equal(status, 0, `seed ${seed}: ${stderr}`)
    t.match(stdout, /in order/)
  }
  t.end()
})
