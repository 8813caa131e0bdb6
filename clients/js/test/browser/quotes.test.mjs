// The quotes page: it shows quotes that rise and fall, and recovers after a restart of the server.

import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import * as support from '../support.mjs'
import { keep, open } from './support.mjs'

const { origin, startServer } = support
const check = (name, options, body = options) =>
  support.check(name, { timeout: 90_000, ...(body === options ? {} : options) }, body)

let server
before(async () => (server = await startServer()))
after(() => server.stop())

const address = `http://${origin}/demo/quotes`
const wide = { width: 1200, height: 800 }
const sizes = { wide, medium: { width: 720, height: 800 }, narrow: { width: 390, height: 844 } }

const row = (page, symbol) => page.locator(`tr[data-symbol="${symbol}"]`)
const number = (text) => Number(text.replaceAll(',', ''))
const figure = async (page, id) => number(await page.locator(`#${id}`).textContent())

/** Waits until the page shows quotes of all its symbols. */
async function shown(page) {
  await page.locator('body[data-state="open"]').waitFor()
  await page.waitForFunction(() => {
    const counters = [...document.querySelectorAll('td[data-of="counter"]')]
    return counters.length > 0 && counters.every((cell) => /\d/.test(cell.textContent))
  })
}

check('quotes arrive; prices are green after a rise and red after a fall', async (t) => {
  const page = await open(t, address, { viewport: wide, colorScheme: 'light' })
  await shown(page)
  assert.equal(await page.locator('tbody tr').count(), 8)

  const bid = row(page, 'AAPL').locator('[data-of="bid"]')
  const look = () =>
    bid.evaluate((cell) => ({
      price: Number(cell.textContent.replaceAll(',', '')),
      move: cell.dataset.move,
      color: getComputedStyle(cell).color,
      flashes: cell.getAnimations().length,
    }))
  const colors = { rise: 'rgb(8, 120, 74)', fall: 'rgb(195, 40, 60)' }
  const seen = new Set()
  let before = await look()
  while (seen.size < 2) {
    await page.waitForFunction(
      ([cell, price]) => Number(cell.textContent.replaceAll(',', '')) !== price,
      [await bid.elementHandle(), before.price],
    )
    const now = await look()
    // If several quotes came meanwhile, the direction of the last one is not known.
    if (now.color === colors[now.move]) seen.add(now.move)
    assert.equal(now.color, colors[now.move])
    before = now
  }
  const text = await row(page, 'AAPL').locator('[data-of="ask"]').textContent()
  assert.match(text, /^[\d,]+\.\d\d$/)

  const sequence = await figure(page, 'sequence')
  await page.waitForFunction(
    (before) => Number(document.querySelector('#sequence').textContent) > before,
    sequence,
  )
  await page.waitForFunction(() => Number(document.querySelector('#rate').textContent) > 0)
  assert.ok((await figure(page, 'messages')) > 8)
  const points = await row(page, 'AAPL').locator('polyline').getAttribute('points')
  assert.ok(points.split(' ').length >= 2)
  assert.deepEqual(page.problems, [])
})

check('symbols are subscribed to and unsubscribed from, on the page and on the wire', async (t) => {
  const page = await open(t, 'about:blank', { viewport: wide })
  const [sent, received] = [[], []]
  page.on('websocket', (socket) => {
    socket.on('framesent', ({ payload }) => sent.push(...[JSON.parse(payload)].flat()))
    socket.on('framereceived', ({ payload }) => received.push(JSON.parse(payload)))
  })
  await page.goto(address)
  await shown(page)
  const heard = (symbol) =>
    received.filter(({ type, identifier }) => type === 'publication' && identifier === `quotes:${symbol}`)
  await support.until(() => heard('AAPL').length > 0)

  await row(page, 'AAPL').getByRole('button').click()
  assert.equal(await row(page, 'AAPL').count(), 0)
  const gone = ({ type, identifier }) => type === 'unsubscribed' && identifier === 'quotes:AAPL'
  await support.until(() => received.some(gone))
  const [before, sequence] = [heard('AAPL').length, heard('sequence').length]
  await support.until(() => heard('sequence').length >= sequence + 3)
  assert.equal(heard('AAPL').length, before)

  await page.locator('#offered').getByText('AAPL', { exact: true }).click()
  await page.getByLabel('Symbol', { exact: true }).fill('brk.b')
  await page.keyboard.press('Enter')
  await page.getByLabel('Symbol', { exact: true }).fill('not a symbol')
  await page.keyboard.press('Enter')
  await shown(page)
  assert.match(await row(page, 'BRK.B').locator('[data-of="bid"]').textContent(), /\d\.\d\d$/)
  assert.equal(await page.locator('tbody tr').count(), 9)
  const actions = sent.map(({ action, identifier }) => `${action} ${identifier}`)
  assert.deepEqual(actions.slice(-3), [
    'unsubscribe quotes:AAPL', 'subscribe quotes:AAPL', 'subscribe quotes:BRK.B',
  ])

  const buttons = page.locator('tbody button')
  while (await buttons.count()) await buttons.first().click()
  await page.getByText('Nothing is subscribed to').waitFor()
  assert.deepEqual(page.problems, [])
})

check('the page reconnects after a restart of the server', { skip: support.external }, async (t) => {
  const page = await open(t, address, { viewport: wide })
  await shown(page)
  await server.stop('SIGKILL')
  await page.locator('body[data-state="closed"]').waitFor()
  await page.waitForFunction(() => /^Retry in \d+\.\d s$/.test(document.querySelector('#state').textContent))
  await page.getByRole('button', { name: 'Now' }).waitFor()
  await page.waitForFunction(() => document.querySelector('#rate').textContent === '0')
  const messages = await figure(page, 'messages')

  server = await startServer()
  await page.locator('body[data-state="open"]').waitFor()
  assert.equal(await figure(page, 'reconnects'), 1)
  assert.equal(await page.locator('#state').textContent(), 'Connected')
  await page.waitForFunction(
    (before) => Number(document.querySelector('#messages').textContent.replaceAll(',', '')) > before + 18,
    messages,
  )
  assert.equal(await page.locator('tbody tr').count(), 8)
  assert.deepEqual(page.problems, [])
})

check('the page fits every width, in light and dark', async (t) => {
  const page = await open(t, address, { deviceScaleFactor: 2 })
  await shown(page)
  // So that there is something to be seen.
  await page.waitForFunction(() => document.querySelector('polyline').points.length > 24)
  for (const width of [320, 360, 480, 640, 832, 1920]) {
    await page.setViewportSize({ width, height: 800 })
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${width}`)
  }
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme })
    for (const [name, size] of Object.entries(sizes)) {
      await page.setViewportSize(size)
      await keep(page, `quotes-${colorScheme}-${name}`)
    }
  }
  assert.deepEqual(page.problems, [])
})

check('with reduced motion nothing flashes', async (t) => {
  const page = await open(t, address, { reducedMotion: 'reduce' })
  await shown(page)
  await page.locator('.price[data-move]').first().waitFor()
  const flashes = await page.evaluate(() =>
    document.getAnimations().filter((animation) => animation.effect.target.matches('.price')).length)
  assert.equal(flashes, 0)
})
