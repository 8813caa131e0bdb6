// The delays between attempts, with a simulated clock and chosen random numbers.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { after, before } from 'node:test'
import { WebSocketServer } from 'ws'
import { check, connect, Proxy, startServer, until } from './support.mjs'

let server
before(async () => (server = await startServer()))
after(() => server.stop())

/** A simulated clock: it advances only when a test says so. */
class Clock {
  #now = 0
  #timers = new Set()

  now = () => this.#now

  setTimeout = (then, milliseconds) => {
    const timer = { then, due: this.#now + milliseconds }
    this.#timers.add(timer)
    return timer
  }

  clearTimeout = (timer) => this.#timers.delete(timer)

  elapse(milliseconds) {
    this.#now += milliseconds
    for (const timer of [...this.#timers]) {
      if (timer.due <= this.#now && this.#timers.delete(timer)) timer.then()
    }
  }
}

/** The address of a port on which nothing listens. */
async function nowhere() {
  const listener = net.createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address()
  listener.close()
  await once(listener, 'close')
  return `ws://127.0.0.1:${port}/ws`
}

/** A client with the default delays. */
function patient(clock, random, address) {
  return connect({ backoffBase: 500, backoffMax: 30_000, clock, random }, address)
}

const delays = (client) =>
  client.heard.filter(({ event }) => event === 'closed').map(({ detail }) => detail.retryIn)

check('the n-th delay is a random part of 0.5 s * 2^n, and of at most 30 s', async () => {
  const parts = [0.75, 0, 0.5, 0.25, 0.75, 0.125, 0.75, 0.5]
  const rolled = [...parts]
  const clock = new Clock()
  const client = patient(clock, () => rolled.shift(), await nowhere())
  for (let attempt = 0; attempt < parts.length; attempt++) {
    await until(() => delays(client).length > attempt)
    const delay = delays(client)[attempt]
    clock.elapse(delay - 1)
    assert.equal(client.state, 'closed')
    clock.elapse(1)
    assert.equal(client.state, 'connecting')
    assert.deepEqual(client.heard.at(-1), { event: 'connecting', detail: { attempt: attempt + 1 } })
  }
  const ranges = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
  assert.deepEqual(delays(client), ranges.map((range, n) => parts[n] * range))
})

check('1,000 clients that lose the server at once reconnect evenly spread', async () => {
  const address = await nowhere()
  const clients = Array.from({ length: 1_000 }, () => patient(new Clock(), Math.random, address))
  await until(() => clients.every((client) => delays(client).length === 1))
  const fifths = [0, 0, 0, 0, 0]
  for (const client of clients) {
    const [delay] = delays(client)
    assert.ok(delay >= 0 && delay < 500)
    fifths[Math.floor(delay / 100)]++
  }
  // 200 expected in each; eight standard deviations allowed.
  assert.ok(fifths.every((count) => count > 100 && count < 300), String(fifths))
})

check('the delays start again after a stable connection, and not before', async () => {
  const proxy = await Proxy.start()
  const clock = new Clock()
  const client = patient(clock, () => 0.5, proxy.url)
  for (const [lasted, expected] of [[0, 250], [9_999, 500], [10_000, 250], [100, 500]]) {
    await until(() => client.state === 'open')
    // In steps shorter than the ping interval.
    clock.elapse(lasted)
    const before = delays(client).length
    proxy.cut()
    await until(() => delays(client).length > before)
    assert.equal(delays(client).at(-1), expected, `after ${lasted} ms`)
    clock.elapse(expected)
  }
})

check('a server that shuts down sets the earliest reconnect', async () => {
  const goodbyes = [
    [1012, 'service restart, retry=3', 3_500],
    [1012, 'service restart', 500],
    [1012, 'service restart, retry=0', 1_000],
    [1012, 'service restart, retry=1', 2_000],
    [1001, 'service restart, retry=60', 4_000],
    [1012, 'service restart, retry=soon', 8_000],
  ]
  const said = [...goodbyes]
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 })
  server.on('connection', (socket) => socket.close(...said.shift().slice(0, 2)))
  await once(server, 'listening')
  const clock = new Clock()
  const client = patient(clock, () => 0.5, `ws://127.0.0.1:${server.address().port}/ws`)
  for (const [code, reason, expected] of goodbyes) {
    const before = delays(client).length
    await until(() => delays(client).length > before)
    assert.equal(delays(client).at(-1), expected, `${code} ${reason}`)
    if (said.length > 0) clock.elapse(expected)
  }
  client.close()
  server.close()
})

check('connect skips the rest of the delay', async () => {
  const clock = new Clock()
  const client = patient(clock, () => 0.9, await nowhere())
  await until(() => delays(client).length === 1)
  client.connect()
  assert.equal(client.state, 'connecting')
  await until(() => delays(client).length === 2)
  client.close()
  clock.elapse(60_000)
  assert.equal(client.state, 'closed')
  assert.deepEqual(delays(client), [450, 900, null])
})
