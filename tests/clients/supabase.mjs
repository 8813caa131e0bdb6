// Unmodified `@supabase/realtime-js` against a running server: what its applications do with broadcast and presence.
// Run by scripts/end-to-end: `TEST_PORT=... node --test supabase.mjs`. The server has `--supabase-path /realtime/v1`,
// everybody may publish, and `keys` has presence with keys that clients choose.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { RealtimeClient } from '@supabase/realtime-js'
import { RealtimeClient as OlderClient } from 'supabase-2.11'
import WebSocket from 'ws'

const endpoint = `ws://127.0.0.1:${process.env.TEST_PORT}/realtime/v1`
const clients = []

// An open connection would keep this process alive.
after(() => clients.forEach((client) => client.disconnect()))

const check = (name, body) => test(name, { timeout: 180_000 }, body)

/** A client, whose connections are in `sockets`. */
function connect(vsn, sockets = []) {
  class Socket extends WebSocket {
    constructor(...options) {
      super(...options)
      sockets.push(this)
    }
  }
  const client = new RealtimeClient(endpoint, {
    transport: Socket,
    params: { apikey: 'sb_publishable_key' },
    reconnectAfterMs: () => 10,
    vsn,
  })
  clients.push(client)
  return client
}

/** Subscribes, and resolves with the first status, and its error. */
function subscribed(channel) {
  return new Promise((resolve) => channel.subscribe((status, error) => resolve([status, error?.message])))
}

/** The next payloads of a broadcast, as a function that waits for one of them. */
function heard(channel, event) {
  const payloads = []
  const waiting = []
  channel.on('broadcast', { event }, ({ payload }) =>
    waiting.length > 0 ? waiting.shift()(payload) : payloads.push(payload),
  )
  return () => (payloads.length > 0 ? payloads.shift() : new Promise((resolve) => waiting.push(resolve)))
}

/** A wait for what a channel knows of its members: metadata by key. */
function members(channel) {
  const waiting = new Set()
  channel.on('presence', { event: 'sync' }, () => waiting.forEach((look) => look()))
  const known = () =>
    Object.fromEntries(
      Object.entries(channel.presenceState()).map(([key, metas]) => [
        key,
        metas.map(({ presence_ref, ...meta }) => JSON.stringify(meta)).sort(),
      ]),
    )
  return (expected) =>
    new Promise((resolve) => {
      const look = () => isDeepStrictEqual(known(), expected) && (waiting.delete(look), resolve())
      waiting.add(look)
      look()
    })
}

for (const vsn of ['1.0.0', '2.0.0']) {
  check(`version ${vsn}: broadcasts, with and without an answer, to oneself and to others`, async () => {
    const ann = connect(vsn).channel(`room:${vsn}`)
    const bob = connect(vsn).channel(`room:${vsn}`, { config: { broadcast: { ack: true, self: true } } })
    const [toAnn, toBob] = [heard(ann, 'cursor'), heard(bob, 'cursor')]
    assert.deepEqual(await subscribed(ann), ['SUBSCRIBED', undefined])
    assert.deepEqual(await subscribed(bob), ['SUBSCRIBED', undefined])
    assert.equal(await ann.send({ type: 'broadcast', event: 'cursor', payload: { x: 1 } }), 'ok')
    assert.deepEqual(await toBob(), { x: 1 })
    assert.equal(await bob.send({ type: 'broadcast', event: 'cursor', payload: { ü: '🚀"' } }), 'ok')
    assert.deepEqual(await toAnn(), { ü: '🚀"' })
    assert.deepEqual(await toBob(), { ü: '🚀"' })
    assert.equal(await ann.unsubscribe(), 'ok')
    assert.equal(await bob.send({ type: 'broadcast', event: 'cursor', payload: {} }), 'ok')
    assert.deepEqual(await toBob(), {})
  })

  check(`version ${vsn}: presence`, async () => {
    const topic = `keys:${vsn}`
    const config = (key) => ({ config: { presence: { key, enabled: true } } })
    const ann = connect(vsn).channel(topic, config('ann'))
    const bob = connect(vsn).channel(topic, config('bob'))
    const [forAnn, forBob] = [members(ann), members(bob)]
    await subscribed(ann)
    await subscribed(bob)
    assert.equal(await ann.track({ n: 1 }), 'ok')
    await forBob({ ann: ['{"n":1}'] })
    assert.equal(await bob.track({ n: 2 }), 'ok')
    await forAnn({ ann: ['{"n":1}'], bob: ['{"n":2}'] })
    assert.equal(await ann.track({ n: 3 }), 'ok')
    await forBob({ ann: ['{"n":3}'], bob: ['{"n":2}'] })
    assert.equal(await ann.untrack(), 'ok')
    await forBob({ bob: ['{"n":2}'] })
    await bob.unsubscribe()
    await forAnn({})
  })

  check(`version ${vsn}: changes of a database are refused`, async () => {
    const channel = connect(vsn).channel(`db:${vsn}`)
    channel.on('postgres_changes', { event: '*', schema: 'public' }, () => {})
    const [status, why] = await subscribed(channel)
    assert.equal(status, 'CHANNEL_ERROR')
    assert.match(why, /postgres_changes are not served here/)
    await channel.unsubscribe()
  })

  check(`version ${vsn}: broadcasts over HTTP, before the join and beside it`, async () => {
    const topic = `http:${vsn}/ü`
    const bob = connect(vsn).channel(topic)
    const toBob = heard(bob, 'cursor')
    await subscribed(bob)
    const ann = connect(vsn).channel(topic)
    assert.equal(await ann.send({ type: 'broadcast', event: 'cursor', payload: { x: 1 } }), 'ok')
    assert.deepEqual(await toBob(), { x: 1 })
    assert.deepEqual(await ann.httpSend('cursor', { x: 2 }), { success: true })
    assert.deepEqual(await toBob(), { x: 2 })
    await assert.rejects(ann.httpSend('phx_close', {}), /event/)
    const shut = connect(vsn).channel('shut:a')
    assert.equal(await shut.send({ type: 'broadcast', event: 'e', payload: {} }), 'error')
    await assert.rejects(shut.httpSend('e', {}), /not_allowed/)
  })

  check(`version ${vsn}: a lost connection joins again`, async () => {
    const topic = `again:${vsn}`
    const sockets = []
    const ann = connect(vsn, sockets).channel(topic, { config: { broadcast: { ack: true, self: true } } })
    const toAnn = heard(ann, 'e')
    const statuses = []
    const again = new Promise((resolve) =>
      ann.subscribe((status) => {
        statuses.push(status)
        if (statuses.filter((status) => status === 'SUBSCRIBED').length === 2) resolve()
        else if (status === 'SUBSCRIBED') sockets.at(-1).terminate()
      }),
    )
    await again
    assert.equal(await ann.send({ type: 'broadcast', event: 'e', payload: { n: 1 } }), 'ok')
    assert.deepEqual(await toAnn(), { n: 1 })
  })
}

check('version 2.0.0: bytes', async () => {
  const ann = connect('2.0.0').channel('bytes')
  const bob = connect('2.0.0').channel('bytes')
  const toBob = heard(bob, 'raw')
  await subscribed(ann)
  await subscribed(bob)
  await ann.send({ type: 'broadcast', event: 'raw', payload: new Uint8Array([1, 2, 255]).buffer })
  assert.deepEqual(new Uint8Array(await toBob()), new Uint8Array([1, 2, 255]))
  await ann.httpSend('raw', new Uint8Array([3, 255]))
  assert.deepEqual(new Uint8Array(await toBob()), new Uint8Array([3, 255]))
})

check('release 2.11, which knows no presence.enabled: presence, and a broadcast over HTTP', async () => {
  const older = () => {
    const client = new OlderClient(endpoint, { params: { apikey: 'sb_publishable_key' } })
    clients.push(client)
    return client
  }
  const ann = older().channel('keys:older', { config: { presence: { key: 'ann' } } })
  const bob = connect('2.0.0').channel('keys:older', { config: { presence: { key: 'bob' } } })
  const [forAnn, forBob] = [members(ann), members(bob)]
  await subscribed(ann)
  await subscribed(bob)
  assert.equal(await ann.track({ n: 1 }), 'ok')
  assert.equal(await bob.track({ n: 2 }), 'ok')
  await forAnn({ ann: ['{"n":1}'], bob: ['{"n":2}'] })
  await forBob({ ann: ['{"n":1}'], bob: ['{"n":2}'] })
  const room = older().channel('room:older')
  const toRoom = heard(room, 'e')
  await subscribed(room)
  const unjoined = older().channel('room:older')
  assert.equal(await unjoined.send({ type: 'broadcast', event: 'e', payload: { x: 1 } }), 'ok')
  assert.deepEqual(await toRoom(), { x: 1 })
})
