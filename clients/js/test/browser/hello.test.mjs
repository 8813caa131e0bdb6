// The README's first example: a message published with curl appears in the page.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { admin, check, external, origin, root, run } from '../support.mjs'
import { open } from './support.mjs'

/** The README's curl command, as arguments, to the server under test. */
function curl() {
  const readme = readFileSync(root('README.md'), 'utf8')
  const [command] = readme.match(/^curl --header 'Authorization: Bearer hello[^]*?\/api\/publish$/m)
  const words = command.replaceAll('\\\n', '').match(/'[^']*'|\S+/g).slice(1)
  return words.map((word) => word.replace(/^'|'$/g, '').replace('127.0.0.1:8001', admin))
}

check('a message published with curl appears in the page', { skip: !!external }, async (t) => {
  const server = await run(['--config=examples/hello/murre.toml', '--drain-timeout=0.1'])
  t.after(() => server.stop())
  const page = await open(t, `http://${origin}/`)
  await page.getByText('subscribed', { exact: true }).waitFor()
  await promisify(execFile)('curl', ['--silent', '--fail', ...curl()])
  await page.locator('li').waitFor()
  assert.equal(await page.locator('li').textContent(), 'A murre lays one egg')
  assert.deepEqual(page.problems, [])
})
