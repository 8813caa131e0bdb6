// The client on a browser's own WebSocket.

import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import * as support from '../support.mjs'
import { open } from './support.mjs'

const { check, connect, fresh, Proxy, startServer, until } = support

let server
before(async () => (server = await startServer()))
after(() => server.stop())

/** A page behind a proxy of its own, with a client in `murre` and its publications in `heard`. */
async function behindProxy(t, options) {
  const proxy = await Proxy.start()
  // /healthz has the same origin as the server, and no script.
  const page = await open(t, `http://${proxy.origin}/healthz`)
  await page.evaluate(async (options) => {
    const { Murre } = await import('/demo/murre.js')
    const murre = new Murre('/ws', { backoffBase: 20, backoffMax: 100, ...options })
    const opened = new Promise((resolve) => murre.on('open', resolve))
    Object.assign(globalThis, { murre, heard: [], changes: [], closes: [] })
    murre.on('closed', (detail) => globalThis.closes.push(detail))
    await opened
  }, options)
  return { proxy, page }
}

/** Subscribes in the page and waits until that is active. */
async function subscribe(page, channel) {
  await page.evaluate((channel) => {
    const { murre, heard, changes } = globalThis
    return new Promise((resolve) => {
      const onState = (change) => {
        changes.push(change)
        resolve()
      }
      murre.subscribe(channel, (data) => heard.push(data), { onState })
    })
  }, channel)
}

check('text, bytes, history and requests', async (t) => {
  const { page } = await behindProxy(t)
  const [channel, service] = [fresh('kept'), fresh('service')]
  await subscribe(page, channel)
  const found = await page.evaluate(
    async ([channel, service]) => {
      const { murre, heard } = globalThis
      const { position } = await murre.publish(channel, { text: 'ü' })
      await murre.publish(channel, new Uint8Array([0, 255]))
      await murre.publish(channel, null)
      const { publications } = await murre.history(channel)
      const served = new Promise((resolve) => {
        murre.serve(service, (number) => number * 2, { onState: resolve })
      })
      await served
      const reply = await murre.request(service, 21)
      const nobody = await murre.request('nobody').catch(({ code }) => code)
      const data = publications.map(({ data }) => data)
      const plain = (all) => all.map((one) => (one instanceof Uint8Array ? [...one] : one))
      return { offset: position.offset, heard: plain(heard), data: plain(data), reply, nobody }
    },
    [channel, service],
  )
  const published = [{ text: 'ü' }, [0, 255], null]
  const expected = { offset: 1, heard: published, data: published, reply: 42, nobody: 'no_responders' }
  assert.deepEqual(found, expected)
  assert.deepEqual(page.problems, [])
})

check('over many lost connections nothing is lost, doubled or out of order', async (t) => {
  const { proxy, page } = await behindProxy(t)
  const channel = fresh('kept')
  await subscribe(page, channel)
  const publisher = connect()
  const breaks = 10
  for (let round = 0; round < breaks; round++) {
    for (let n = 0; n < 20; n++) {
      if (n === 10) proxy.cut()
      await publisher.publish(channel, round * 20 + n)
    }
    const known = 1 + 2 * (round + 1)
    await page.waitForFunction((known) => globalThis.changes.length >= known, known)
  }
  await page.waitForFunction((count) => globalThis.heard.length >= count, breaks * 20)
  const { heard, changes } = await page.evaluate(() => ({ heard, changes }))
  assert.deepEqual(heard, Array.from({ length: breaks * 20 }, (_, n) => n))
  const recoveries = changes.filter(({ state }) => state === 'active').slice(1)
  assert.equal(recoveries.length, breaks)
  assert.ok(recoveries.every(({ recovered }) => recovered))
  assert.deepEqual(page.problems, [])
})

check('a connection that hangs is detected and replaced', async (t) => {
  const { proxy, page } = await behindProxy(t, { pingInterval: 50, pongTimeout: 500 })
  const channel = fresh('kept')
  await subscribe(page, channel)
  proxy.hang()
  await connect().publish(channel, 'meanwhile')
  await page.waitForFunction(() => globalThis.heard.length === 1)
  const { closes, changes } = await page.evaluate(() => ({ closes, changes }))
  assert.equal(closes[0].reason, 'the server is silent')
  assert.equal(changes.at(-1).recovered, true)
})

check('a token from the page, and none', async (t) => {
  const channel = fresh('members')
  const { page } = await behindProxy(t, { token: support.token('ann') })
  await subscribe(page, channel)
  const { page: stranger } = await behindProxy(t)
  await subscribe(stranger, channel)
  const states = [page, stranger].map((page) => page.evaluate(() => globalThis.changes[0].state))
  assert.deepEqual(await Promise.all(states), ['active', 'ended'])
})
