// The API on a connection that stays open.

import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { check, connect, fresh, startServer, subscribe, until } from './support.mjs'

let server
before(async () => (server = await startServer()))
after(() => server.stop())

const code = (expected) => (error) => error.name === 'MurreError' && error.code === expected

check('every subscriber receives every publication in order, with its offset', async () => {
  const channel = fresh('kept')
  const publisher = connect()
  const all = [await subscribe(connect(), channel), await subscribe(publisher, channel)]
  const values = [1, 'ü', null, [{}], { a: { b: 2 } }, false]
  const published = await Promise.all(values.map((value) => publisher.publish(channel, value)))
  for (const { heard, position } of all) {
    await until(() => heard.length === values.length)
    assert.deepEqual(heard.map(({ data }) => data), values)
    assert.deepEqual(heard.map(({ offset }) => offset), published.map((p) => p.position.offset))
    assert.deepEqual(heard.map(({ channel }) => channel), values.map(() => channel))
  }
  for (const { position } of all) assert.deepEqual(position, published.at(-1).position)
})

check('without history there is no position', async () => {
  const channel = fresh('plain')
  const client = connect()
  const subscription = await subscribe(client, channel)
  assert.deepEqual(await client.publish(channel, 1), { position: undefined })
  await until(() => subscription.heard.length > 0)
  assert.deepEqual(subscription.heard, [{ data: 1, channel, offset: undefined }])
  assert.equal(subscription.position, undefined)
  await assert.rejects(client.history(channel), code('no_history'))
})

check('bytes are received as bytes, live and from history', async () => {
  const client = connect()
  const bytes = Uint8Array.from({ length: 256 }, (_, n) => n)
  for (const channel of [fresh('plain'), fresh('kept')]) {
    const subscription = await subscribe(client, channel)
    await client.publish(channel, bytes)
    await client.publish(channel, new Uint8Array(0))
    await client.publish(channel, 'text')
    await until(() => subscription.heard.length === 3)
    assert.deepEqual(subscription.data(), [bytes, new Uint8Array(0), 'text'])
    if (channel.startsWith('plain')) continue
    const { publications } = await client.history(channel)
    assert.deepEqual(publications, subscription.heard.map(({ data, offset }) => ({ data, offset })))
  }
})

check('history obeys its limit and its position', async () => {
  const channel = fresh('kept')
  const client = connect()
  const positions = []
  for (const n of [1, 2, 3, 4]) positions.push((await client.publish(channel, n)).position)
  const data = async (options) =>
    (await client.history(channel, options)).publications.map(({ data }) => data)
  assert.deepEqual(await data(), [1, 2, 3, 4])
  assert.deepEqual(await data({ position: positions[1] }), [3, 4])
  assert.equal((await data({ limit: 2 })).length, 2)
  assert.deepEqual((await client.history(channel)).position, positions[3])
})

check('a history longer than one answer of the server is complete', async () => {
  const channel = fresh('kept')
  const client = connect()
  const text = 'x'.repeat(8_000)
  const numbers = Array.from({ length: 50 }, (_, n) => n)
  for (const n of numbers) await client.publish(channel, { n, text })
  const read = async (options) => {
    const { position, publications } = await client.history(channel, options)
    const first = publications[0].offset
    assert.deepEqual(publications.map(({ offset }) => offset), publications.map((_, n) => first + n))
    return { position, numbers: publications.map(({ data }) => data.n) }
  }
  const { position } = await read({ limit: 1 })
  assert.equal(position.offset, 50)
  const from = (offset) => ({ epoch: position.epoch, offset })
  assert.deepEqual(await read(), { position, numbers })
  assert.deepEqual(await read({ limit: 20 }), { position, numbers: numbers.slice(30) })
  assert.deepEqual(await read({ position: from(5) }), { position, numbers: numbers.slice(5) })
  const limited = await read({ position: from(5), limit: 20 })
  assert.deepEqual(limited, { position, numbers: numbers.slice(5, 25) })
  const last = await read({ position: { ...position, epoch: (position.epoch ^ 1) >>> 0 } })
  assert.deepEqual(last.numbers, numbers.slice(50 - last.numbers.length), 'the newest, if lost')
  assert.deepEqual((await client.history(channel, { limit: 0 })).publications, [])
})

check('a subscription from a position first receives the publications after it', async () => {
  const channel = fresh('kept')
  const client = connect()
  const { position } = await client.publish(channel, 1)
  await client.publish(channel, 2)
  const subscription = await subscribe(client, channel, { position })
  await client.publish(channel, 3)
  await until(() => subscription.heard.length === 2)
  assert.deepEqual(subscription.data(), [2, 3])
  assert.deepEqual(subscription.changes, [{ state: 'active', recovered: true }])
})

check('a channel can be subscribed to once, and again after unsubscribe', async () => {
  const channel = fresh('kept')
  const client = connect()
  const first = await subscribe(client, channel)
  assert.throws(() => client.subscribe(channel), code('already_subscribed'))
  await client.publish(channel, 1)
  await until(() => first.heard.length === 1)
  const last = client.publish(channel, 2)
  first.unsubscribe()
  const second = await subscribe(client, channel)
  await last
  await client.publish(channel, 3)
  await until(() => second.heard.length === 1)
  assert.deepEqual(first.data(), [1])
  assert.equal(first.state, 'ended')
  assert.deepEqual(second.data(), [3])
})

check('a refused subscription has an error, and can be tried again', async () => {
  const client = connect()
  for (let times = 0; times < 2; times++) {
    const { state, changes } = await subscribe(client, 'closed:door')
    assert.equal(state, 'ended')
    assert.equal(changes.length, 1)
    assert.equal(changes[0].error.code, 'not_allowed')
    assert.equal(changes[0].error.channel, 'closed:door')
  }
  await assert.rejects(client.publish('closed:door', 1), code('not_allowed'))
  await assert.rejects(client.publish('plain:x', 1n), TypeError)
  await assert.rejects(client.publish('x'.repeat(256), new Uint8Array(1)), code('bad_identifier'))
  await client.publish('closed:door', new Uint8Array(1))
  await until(() => client.heard.some(({ event }) => event === 'error'))
  assert.equal(client.heard.at(-1).detail.code, 'not_allowed')
  assert.equal(client.state, 'open')
})

check('requests are spread over the serving clients, and each gets its own reply', async () => {
  const service = fresh('service')
  const served = [0, 0]
  const servers = served.map((_, n) => {
    const responder = connect()
    const handler = async (number, about) => {
      assert.deepEqual(about, { service })
      served[n]++
      return number === undefined ? undefined : number * 2
    }
    return responder.serve(service, handler)
  })
  await until(() => servers.every(({ state }) => state === 'active'))
  const client = connect()
  const numbers = Array.from({ length: 20 }, (_, n) => n)
  const replies = await Promise.all(numbers.map((n) => client.request(service, n)))
  assert.deepEqual(replies, numbers.map((n) => n * 2))
  assert.deepEqual(served, [10, 10])
  servers[0].unserve()
  assert.equal(servers[0].state, 'ended')
  for (let n = 0; n < 4; n++) assert.equal(await client.request(service, n), n * 2)
})

check('a request without a response is rejected with the reason', async () => {
  const [failing, silent, gone] = ['failing', 'silent', 'gone'].map(fresh)
  const responder = connect()
  const failed = responder.serve(failing, () => {
    throw new Error('out of fish')
  })
  responder.serve(silent, () => new Promise(() => {}))
  responder.serve(gone, () => responder.close())
  assert.throws(() => responder.serve(failing, () => {}), code('already_serving'))
  await until(() => failed.state === 'active')

  const client = connect()
  await assert.rejects(client.request(fresh('nobody')), code('no_responders'))
  await assert.rejects(client.request(failing), { code: 'responder_failed', message: 'out of fish' })
  await assert.rejects(client.request(silent, 1, { timeout: 50 }), code('timeout'))
  await assert.rejects(client.request(gone), code('responder_gone'))
})

check('events and states follow the connection', async () => {
  const client = connect()
  assert.equal(client.state, 'connecting')
  await until(() => client.heard.length === 1)
  assert.equal(client.state, 'open')
  client.close()
  assert.equal(client.state, 'closed')
  client.close()
  assert.deepEqual(client.heard, [
    { event: 'open', detail: undefined },
    { event: 'closed', detail: { code: 1000, reason: 'closed by this side', retryIn: null } },
  ])
  await assert.rejects(client.publish('plain:x', 1), code('offline'))

  const none = []
  const off = client.on('connecting', (detail) => none.push(detail))
  off()
  client.connect()
  await until(() => client.state === 'open')
  assert.deepEqual(none, [])
})
