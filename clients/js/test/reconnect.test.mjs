// Connections that are lost, hang and are restored, and servers that stop and restart.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { after, before } from 'node:test'
import {
  check, connect, external, fresh, Proxy, startServer, subscribe, until, WebSocket,
} from './support.mjs'

let server
before(async () => (server = await startServer({ commands: 100_000 })))
after(() => server.stop())

const code = (expected) => (error) => error.name === 'MurreError' && error.code === expected
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => from + n)
const opened = (client, times) => () =>
  client.heard.filter(({ event }) => event === 'open').length >= times

/** A client behind a proxy of its own. */
async function behindProxy(options) {
  const proxy = await Proxy.start()
  return { proxy, client: connect(options, proxy.url) }
}

check('over many lost connections nothing is lost, doubled or out of order', async () => {
  const { proxy, client } = await behindProxy()
  const [channel, other] = [fresh('kept'), fresh('kept')]
  const subscriptions = [await subscribe(client, channel), await subscribe(client, other)]
  const publisher = connect()
  const breaks = 20
  for (let round = 0; round < breaks; round++) {
    // Publications under way are lost with the connection, and later ones cannot be sent.
    const sent = numbers(round * 20, round * 20 + 20).flatMap((n) => {
      if (n % 20 === 10) proxy.cut()
      return [publisher.publish(channel, n), publisher.publish(other, String(n))]
    })
    await Promise.all(sent)
    await until(opened(client, round + 2))
    await until(() => subscriptions.every(({ state }) => state === 'active'))
  }
  const all = numbers(0, breaks * 20)
  for (const { heard } of subscriptions) await until(() => heard.length >= all.length)
  assert.deepEqual(subscriptions[0].data(), all)
  assert.deepEqual(subscriptions[1].data(), all.map(String))
  for (const { changes } of subscriptions) {
    const recoveries = changes.filter(({ state }) => state === 'active').slice(1)
    assert.equal(recoveries.length, breaks)
    assert.ok(recoveries.every(({ recovered }) => recovered))
  }
})

check('many missed publications of many channels are received after one connect', async () => {
  const { proxy, client } = await behindProxy()
  const rooms = numbers(0, 100).map(() => fresh('kept'))
  const subscriptions = await Promise.all(rooms.map((room) => subscribe(client, room)))
  proxy.refuse()
  const publisher = connect()
  const text = 'x'.repeat(1_000)
  for (const n of numbers(0, 100)) {
    await Promise.all(rooms.map((room) => publisher.publish(room, { n, text })))
  }
  proxy.admit()
  for (const { heard } of subscriptions) await until(() => heard.length >= 100)
  for (const subscription of subscriptions) {
    assert.deepEqual(subscription.data().map(({ n }) => n), numbers(0, 100))
    assert.deepEqual(subscription.changes.slice(-1), [{ state: 'active', recovered: true }])
  }
  assert.equal(opened(client, 3)(), false, 'one connect')
})

check('missed publications that are no longer kept are not recovered, and live ones go on', async () => {
  const { proxy, client } = await behindProxy()
  const [kept, plain] = [fresh('kept'), fresh('plain')]
  const subscriptions = [await subscribe(client, kept), await subscribe(client, plain)]
  const publisher = connect()
  await until(() => publisher.state === 'open')
  proxy.refuse()
  await Promise.all(numbers(0, 1_100).map((n) => publisher.publish(kept, n)))
  proxy.admit()
  await until(opened(client, 2))
  for (const { changes } of subscriptions) {
    await until(() => changes.length === 3)
    assert.deepEqual(changes, [
      { state: 'active', recovered: undefined },
      { state: 'pending' },
      { state: 'active', recovered: false },
    ])
  }
  await publisher.publish(kept, 'live')
  await publisher.publish(plain, 'live')
  for (const { heard } of subscriptions) {
    await until(() => heard.length > 0)
    assert.deepEqual(heard.map(({ data }) => data), ['live'])
  }
})

check('a restarted server has no missed publications, and says so', { skip: external }, async () => {
  const client = connect()
  const channel = fresh('kept')
  const subscription = await subscribe(client, channel)
  await client.publish(channel, 'before')
  await until(() => subscription.heard.length === 1)
  const { epoch } = subscription.position
  await server.stop()
  await until(() => subscription.state === 'pending')
  server = await startServer()
  await until(() => subscription.state === 'active')
  assert.deepEqual(subscription.changes.at(-1), { state: 'active', recovered: false })
  assert.notEqual(subscription.position.epoch, epoch)
  await client.publish(channel, 'after')
  await until(() => subscription.heard.length === 2)
  assert.deepEqual(subscription.data(), ['before', 'after'])
})

check('a killed server is replaced like a stopped one', { skip: external }, async () => {
  const client = connect()
  const subscription = await subscribe(client, fresh('kept'))
  await server.stop('SIGKILL')
  await until(() => subscription.state === 'pending')
  server = await startServer()
  await until(() => subscription.state === 'active')
})

check('subscriptions and services made without a connection are sent in batches', async () => {
  const sent = []
  class Recorder extends WebSocket {
    send(message) {
      sent.push(JSON.parse(message))
      super.send(message)
    }
  }
  const client = connect({ WebSocket: Recorder })
  const channels = numbers(0, 120).map(() => fresh('plain'))
  const subscriptions = channels.map((channel) => client.subscribe(channel))
  const service = client.serve(fresh('service'), () => 'here')
  subscriptions[0].unsubscribe()
  const published = client.publish(channels[1], 'waits')
  await published
  await until(() => subscriptions.slice(1).every(({ state }) => state === 'active'))
  assert.equal(service.state, 'active')
  assert.deepEqual(sent.map((message) => message.length), [100, 20, undefined])
  const asked = sent.flat().map(({ identifier, service }) => identifier ?? service)
  assert.deepEqual(asked, [...channels.slice(1), service.service, channels[1]])
})

check('without a connection commands wait or fail, according to offline', async () => {
  const { proxy, client } = await behindProxy({ waitingMax: 3 })
  const channel = fresh('kept')
  const subscription = await subscribe(client, channel)
  proxy.refuse()
  await until(() => client.state === 'closed')
  await assert.rejects(client.publish(channel, 0, { offline: 'reject' }), code('offline'))
  await assert.rejects(client.publish(channel, 0, { timeout: 10 }), code('timeout'))
  const waiting = [1, new Uint8Array([2]), 3].map((data) => client.publish(channel, data))
  await assert.rejects(client.request(fresh('service')), code('offline'), 'one too many')
  proxy.admit()
  await Promise.all(waiting)
  await until(() => subscription.heard.length === 3)
  assert.deepEqual(subscription.data(), [1, new Uint8Array([2]), 3])
})

check('a command without an answer when the connection is lost is rejected, and not sent again', async () => {
  const { proxy, client } = await behindProxy()
  const channel = fresh('kept')
  await until(() => client.state === 'open')
  proxy.hang()
  const lost = client.publish(channel, 'lost')
  proxy.cut()
  await assert.rejects(lost, code('connection_lost'))
  await client.publish(channel, 'next')
  assert.deepEqual((await client.history(channel)).publications.map(({ data }) => data), ['next'])
})

check('services are restored, and a late reply does not answer another request', async () => {
  const { proxy, client: responder } = await behindProxy()
  const service = fresh('service')
  let reply
  const first = new Promise((resolve) => (reply = resolve))
  const answers = [first, 'second']
  const served = responder.serve(service, () => answers.shift())
  await until(() => served.state === 'active')
  const client = connect()
  const gone = client.request(service)
  await until(() => answers.length === 1)
  proxy.cut()
  await assert.rejects(gone, code('responder_gone'))
  await until(() => proxy.count === 2 && served.state === 'active')
  reply('first')
  assert.equal(await client.request(service), 'second')
  assert.deepEqual(responder.heard.filter(({ event }) => event === 'error'), [])
})

check('a connection that hangs is detected and replaced', async () => {
  const { proxy, client } = await behindProxy({ pingInterval: 20, pongTimeout: 200 })
  const channel = fresh('kept')
  const subscription = await subscribe(client, channel)
  proxy.hang()
  await connect().publish(channel, 'meanwhile')
  await until(() => subscription.heard.length === 1)
  const { detail } = client.heard.find(({ event }) => event === 'closed')
  assert.equal(detail.reason, 'the server is silent')
  assert.equal(subscription.changes.at(-1).recovered, true)
  assert.equal(proxy.count, 2)
})

check('a silent connection that answers pings stays open', async () => {
  const { proxy, client } = await behindProxy({ pingInterval: 5, pongTimeout: 5_000 })
  const pings = []
  client.on('closed', () => pings.push('closed'))
  await until(() => client.state === 'open')
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.deepEqual(pings, [])
  assert.equal(proxy.count, 1)
})

check('a server that accepts and never answers is given up', async () => {
  const mute = net.createServer(() => {}).listen(0, '127.0.0.1')
  await once(mute, 'listening')
  const client = connect({ connectTimeout: 50 }, `ws://127.0.0.1:${mute.address().port}/ws`)
  await until(() => client.heard.length > 0)
  assert.equal(client.heard[0].detail.reason, 'no connection in time')
  client.close()
  mute.close()
})

check('after close nothing reconnects, and connect restores the subscriptions', async () => {
  const client = connect()
  const channel = fresh('kept')
  const subscription = await subscribe(client, channel)
  const other = connect()
  await other.publish(channel, 1)
  await until(() => subscription.heard.length === 1)
  client.close()
  assert.equal(subscription.state, 'pending')
  await other.publish(channel, 2)
  client.connect()
  await until(() => subscription.heard.length === 2)
  assert.deepEqual(subscription.data(), [1, 2])
  assert.equal(subscription.changes.at(-1).recovered, true)
})
