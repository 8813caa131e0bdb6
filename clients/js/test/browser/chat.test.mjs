// The chat page: two browsers talk, see each other and who is typing, and come back after a restart.

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

const address = `http://${origin}/demo/chat`
const wide = { width: 1200, height: 800 }
const narrow = { width: 390, height: 844 }
let rooms = 0

/** A page of a user in a room, connected. Each has a browser profile of its own. */
async function visit(t, name, room, { at = origin, ...options } = {}) {
  const page = await open(t, `http://${at}/demo/chat#${room}`, { viewport: wide, ...options })
  await page.locator('body[data-state="open"]').waitFor()
  await page.getByLabel('Your name').fill(name)
  await page.getByLabel('Your name').press('Enter')
  await page.locator('#people [data-self]').getByText(name, { exact: true }).waitFor()
  return page
}

async function say(page, words) {
  await page.getByLabel('Message', { exact: true }).fill(words)
  await page.keyboard.press('Enter')
}

const fresh = () => `test-${process.pid}-${++rooms}`
const people = (page) => page.locator('#people .name').allTextContents()
const heard = (page) => page.locator('#messages li:not(.notice) p').allTextContents()
const hears = (page, words) => page.locator('#messages p').getByText(words, { exact: true }).waitFor()

/** Waits until a page lists these people. */
async function lists(page, ...names) {
  while ((await people(page)).join() !== names.sort().join()) await page.waitForTimeout(20)
}

check('two browsers talk, and see who is there and who is typing', async (t) => {
  const room = fresh()
  const ann = await visit(t, 'Ann', room)
  const bob = await visit(t, 'Bob', room, { viewport: narrow, colorScheme: 'dark' })
  await Promise.all([lists(ann, 'Ann', 'Bob'), lists(bob, 'Ann', 'Bob')])

  await bob.getByLabel('Message', { exact: true }).pressSequentially('Hello')
  await ann.getByText('Bob is typing …').waitFor()
  await bob.keyboard.press('Enter')
  await hears(ann, 'Hello')
  await ann.waitForFunction(() => document.querySelector('#typing').textContent === '')
  await say(ann, '<b>ü🚀</b>')
  await hears(bob, '<b>ü🚀</b>')
  for (const page of [ann, bob]) {
    assert.deepEqual(await heard(page), ['Hello', '<b>ü🚀</b>'])
    assert.equal(await page.locator('[data-pending]').count(), 0)
  }

  await bob.getByLabel('Your name').fill('Robert')
  await bob.getByLabel('Your name').press('Enter')
  await lists(ann, 'Ann', 'Robert')
  await keep(ann, 'chat-wide')
  await keep(bob, 'chat-narrow')
  await bob.getByRole('button', { name: 'birds' }).click()
  await lists(ann, 'Ann')
  assert.deepEqual([...ann.problems, ...bob.problems], [])
})

check('a page that comes later shows what was said before', async (t) => {
  const room = fresh()
  const ann = await visit(t, 'Ann', room)
  for (let n = 0; n < 60; n += 1) await say(ann, `message ${n}`)
  await hears(ann, 'message 59')
  await ann.waitForFunction(() => !document.querySelector('[data-pending]'))
  const bob = await visit(t, 'Bob', room)
  await hears(bob, 'message 59')
  assert.deepEqual(await heard(bob), Array.from({ length: 50 }, (_, n) => `message ${n + 10}`))
  assert.deepEqual(bob.problems, [])
})

check('a page that was away gets what it has missed, once', async (t) => {
  const room = fresh()
  const proxy = await support.Proxy.start()
  const ann = await visit(t, 'Ann', room)
  const bob = await visit(t, 'Bob', room, { at: proxy.origin })
  await say(ann, 'before')
  await hears(bob, 'before')
  proxy.refuse()
  await bob.locator('body[data-state="closed"]').waitFor()
  await say(ann, 'meanwhile')
  await ann.waitForFunction(() => !document.querySelector('[data-pending]'))
  proxy.admit()
  await bob.locator('body[data-state="open"]').waitFor()
  await say(ann, 'after')
  await hears(bob, 'after')
  assert.deepEqual(await heard(bob), ['before', 'meanwhile', 'after'])
})

check('the pages come back after a restart of the server', { skip: support.external }, async (t) => {
  const room = fresh()
  const [ann, bob] = [await visit(t, 'Ann', room), await visit(t, 'Bob', room)]
  await say(ann, 'before')
  await hears(bob, 'before')
  await server.stop('SIGKILL')
  await ann.locator('body[data-state="closed"]').waitFor()
  await say(ann, 'sent while there was no server')
  assert.equal(await ann.locator('[data-pending]').count(), 1)
  server = await startServer()
  await Promise.all([ann, bob].map((page) => page.locator('body[data-state="open"]').waitFor()))
  await hears(bob, 'sent while there was no server')
  await Promise.all([lists(ann, 'Ann', 'Bob'), lists(bob, 'Ann', 'Bob')])
  await say(bob, 'after')
  await hears(ann, 'after')
  for (const page of [ann, bob]) {
    assert.deepEqual(await heard(page), ['before', 'sent while there was no server', 'after'])
  }
  // History after the restart.
  const cleo = await visit(t, 'Cleo', room)
  await hears(cleo, 'after')
  assert.deepEqual(await heard(cleo), ['sent while there was no server', 'after'])
  assert.deepEqual([...ann.problems, ...bob.problems, ...cleo.problems], [])
})

check('the page fits every width, and works where no WebSocket is let through', async (t) => {
  const room = fresh()
  const page = await open(t, 'about:blank', { viewport: wide })
  await page.routeWebSocket(/websocket/, (socket) => socket.close())
  await page.goto(`${address}#${room}`)
  await page.locator('body[data-state="open"]').waitFor()
  await say(page, 'by polls')
  await page.waitForFunction(() => !document.querySelector('[data-pending]'))
  await hears(page, 'by polls')
  for (const width of [320, 360, 480, 640, 832, 1920]) {
    await page.setViewportSize({ width, height: 800 })
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${width}`)
  }
})
