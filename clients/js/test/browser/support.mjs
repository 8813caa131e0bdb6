// Debian's Chromium, headless.

import { mkdirSync } from 'node:fs'
import { after, before } from 'node:test'
import { chromium } from 'playwright-core'
import { target } from '../support.mjs'

const screenshots = target('screenshots')

let browser
before(async () => {
  const quiet = ['background-networking', 'component-update', 'gpu', 'quic', 'sync']
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--no-first-run', ...quiet.map((what) => `--disable-${what}`)],
  })
})
after(() => browser?.close())

/** A page at `url`, closed after the test `t`. Its uncaught errors and console errors are in `problems`. */
export async function open(t, url, options) {
  const context = await browser.newContext(options)
  t.after(() => context.close())
  const page = await context.newPage()
  page.problems = []
  page.on('pageerror', (error) => page.problems.push(String(error)))
  page.on('console', (message) => {
    // The page itself handles a failed connection, and a browser always requests an icon.
    const { url } = message.location()
    const expected = /^WebSocket connection to/.test(message.text()) || url.endsWith('/favicon.ico')
    if (message.type() === 'error' && !expected) page.problems.push(message.text())
  })
  await page.goto(url)
  return page
}

/** Saves a picture of the page in target/screenshots. */
export async function keep(page, name) {
  mkdirSync(screenshots, { recursive: true })
  await page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true })
}
