// Unmodified releases of the npm package `phoenix` against a running server: what their applications do.
// Run by scripts/end-to-end: `TEST_PORT=... node --test phoenix.mjs`. The server has `--phoenix-path /socket`,
// everybody may publish, the namespace `from` has `phoenix-push=broadcast_from`, and `keys` has presence with keys that
// clients choose, and counts beyond 6 members.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { after, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import WebSocket from 'ws'

// Releases before 1.8 look for the functions of browsers there.
globalThis.self ??= globalThis

const require = createRequire(import.meta.url)
const releases = ['phoenix-1.6', 'phoenix-1.7', 'phoenix-1.8.0', 'phoenix-1.8']
const endpoint = `ws://127.0.0.1:${process.env.TEST_PORT}/socket`
const sockets = []

// The releases speak version 1 only with functions of the application.
const versions = {
  '2.0.0': { vsn: '2.0.0' },
  '1.0.0': {
    vsn: '1.0.0',
    encode: (message, send) => send(JSON.stringify(message)),
    decode: (text, take) => take(JSON.parse(text)),
  },
}

// An open connection would keep this process alive.
after(() => sockets.forEach((socket) => socket.disconnect()))

const check = (name, body) => test(name, { timeout: 180_000 }, body)

/** A connected socket of a release. */
async function connect(release, options = {}) {
  const { Socket } = require(release)
  const socket = new Socket(endpoint, { transport: WebSocket, ...options })
  sockets.push(socket)
  const opened = new Promise((resolve) => socket.onOpen(resolve))
  socket.connect()
  await opened
  return socket
}

/** Resolves with the response of a push or join, and rejects with that of an error. */
function answer(push) {
  return new Promise((resolve, reject) => {
    push
      .receive('ok', resolve)
      .receive('error', (why) => reject(new Error(JSON.stringify(why))))
      .receive('timeout', () => reject(new Error('no reply in time')))
  })
}

/** The next messages of an event, as a function that waits for one of them. */
function events(channel, event) {
  const heard = []
  const waiting = []
  channel.on(event, (payload) => (waiting.length > 0 ? waiting.shift()(payload) : heard.push(payload)))
  return () => (heard.length > 0 ? heard.shift() : new Promise((resolve) => waiting.push(resolve)))
}

/** A joined channel of a new connection. */
async function join(release, topic, options) {
  const channel = (await connect(release, options)).channel(topic, {})
  await answer(channel.join())
  return channel
}

for (const release of releases) {
  for (const [vsn, options] of Object.entries(versions)) {
    check(`${release}, version ${vsn}: a chat of two`, async () => {
      const topic = `room:${release}:${vsn}`
      const [ann, bob] = await Promise.all([1, 2].map(() => join(release, topic, options)))
      const [toAnn, toBob] = [ann, bob].map((channel) => events(channel, 'new_msg'))
      for (const body of ['hello', 'ü🚀"\\', '']) {
        assert.deepEqual(await answer(ann.push('new_msg', { body })), {})
        assert.deepEqual(await toAnn(), { body })
        assert.deepEqual(await toBob(), { body })
      }
      await answer(bob.leave())
      assert.equal(bob.state, 'closed')
      await answer(ann.push('new_msg', { body: 'alone' }))
      assert.deepEqual(await toAnn(), { body: 'alone' })
    })
  }

  check(`${release}: the rule broadcast_from leaves out the sender`, async () => {
    const topic = `from:${release}`
    const [ann, bob] = await Promise.all([1, 2].map(() => join(release, topic)))
    const [toAnn, toBob] = [ann, bob].map((channel) => events(channel, 'e'))
    await answer(ann.push('e', { from: 'ann' }))
    assert.deepEqual(await toBob(), { from: 'ann' })
    await answer(bob.push('e', { from: 'bob' }))
    assert.deepEqual(await toAnn(), { from: 'bob' })
  })

  check(`${release}: a refused join is an error`, async () => {
    const channel = (await connect(release)).channel('shut:a', {})
    await assert.rejects(answer(channel.join()), /not_allowed/)
    channel.leave()
  })

  check(`${release}: a topic that is joined twice on a socket is the second one's`, async () => {
    const socket = await connect(release)
    const topic = `room:twice:${release}`
    const [first, second] = [1, 2].map(() => socket.channel(topic, {}))
    await answer(first.join())
    await answer(second.join())
    const heard = events(second, 'e')
    await answer(second.push('e', { n: 1 }))
    assert.deepEqual(await heard(), { n: 1 })
  })

  check(`${release}: heartbeats are answered, and a lost connection joins again`, async () => {
    const channel = await join(release, `room:again:${release}`, {
      heartbeatIntervalMs: 200,
      reconnectAfterMs: () => 10,
      rejoinAfterMs: () => 10,
    })
    const { socket } = channel
    await new Promise((resolve) => socket.onMessage(({ topic }) => topic === 'phoenix' && resolve()))
    const joined = new Promise((resolve) => channel.joinPush.receive('ok', resolve))
    socket.conn.terminate()
    await joined
    const heard = events(channel, 'e')
    await answer(channel.push('e', { n: 2 }))
    assert.deepEqual(await heard(), { n: 2 })
  })

  check(`${release}: binary pushes arrive as bytes`, async () => {
    const topic = `room:binary:${release}`
    const options = { binaryType: 'arraybuffer' }
    const [ann, bob] = await Promise.all([1, 2].map(() => join(release, topic, options)))
    const heard = events(bob, 'bytes')
    await answer(ann.push('bytes', new Uint8Array([1, 2, 255]).buffer))
    assert.deepEqual(new Uint8Array(await heard()), new Uint8Array([1, 2, 255]))
  })
}

/** XMLHttpRequest by `fetch`: all that releases before 1.8 use of it for long polls. */
class Request {
  #abort = new AbortController()
  #headers = {}

  open(method, url) {
    Object.assign(this, { method, url })
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value
  }

  abort() {
    this.#abort.abort()
  }

  async send(body) {
    const { method, url } = this
    const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(this.timeout ?? 60_000)])
    try {
      const response = await fetch(url, { method, body, headers: this.#headers, signal })
      this.responseText = await response.text()
      this.readyState = 4
      this.onreadystatechange?.()
    } catch ({ name }) {
      if (name === 'TimeoutError') this.ontimeout?.()
      else if (!this.#abort.signal.aborted) this.onerror?.()
    }
  }
}

for (const release of releases) {
  const { LongPoll } = require(release)
  const old = /1\.[67]$/.test(release)

  check(`${release}: a chat of one who polls and one who does not`, async () => {
    if (old) globalThis.XMLHttpRequest = Request
    const topic = `room:polls:${release}`
    const ann = await join(release, topic, { transport: LongPoll })
    const bob = await join(release, topic)
    const [toAnn, toBob] = [ann, bob].map((channel) => events(channel, 'new_msg'))
    for (let n = 0; n < 20; n += 1) {
      const from = n % 2 === 0 ? ann : bob
      await answer(from.push('new_msg', { n }))
      assert.deepEqual(await toAnn(), { n })
      assert.deepEqual(await toBob(), { n })
    }
    // More than the newest release puts into one request.
    await Promise.all(Array.from({ length: 150 }, (_, n) => answer(ann.push('many', { n }))))
    if (!old) {
      const heard = events(bob, 'bytes')
      ann.push('bytes', new Uint8Array([1, 2, 255]).buffer)
      assert.deepEqual(new Uint8Array(await heard()), new Uint8Array([1, 2, 255]))
    }
    await answer(ann.leave())
    ann.socket.disconnect()
    delete globalThis.XMLHttpRequest
  })
}

for (const release of ['phoenix-1.7', 'phoenix-1.8.0', 'phoenix-1.8']) {
  check(`${release}: it falls back to polls where no WebSocket is let through`, async () => {
    const { Socket, LongPoll } = require(release)
    if (release === 'phoenix-1.7') globalThis.XMLHttpRequest = Request
    // A proxy that refuses upgrades.
    class Refused extends WebSocket {
      constructor(url) {
        super(url.replace('/websocket', '/none'))
      }
    }
    const socket = new Socket(endpoint, { transport: Refused, longPollFallbackMs: 200 })
    sockets.push(socket)
    socket.connect()
    const channel = socket.channel(`room:fallback:${release}`, {})
    await answer(channel.join())
    assert.equal(socket.transport, LongPoll)
    const heard = events(channel, 'e')
    await answer(channel.push('e', { n: 1 }))
    assert.deepEqual(await heard(), { n: 1 })
    socket.disconnect()
    delete globalThis.XMLHttpRequest
  })
}

/** The channel of a new client with a `Presence` in a topic, and a wait for what that knows: metas by key. */
async function present(release, topic, params, options) {
  const { Presence } = require(release)
  const channel = (await connect(release, options)).channel(topic, params)
  const presence = new Presence(channel)
  const waiting = new Set()
  presence.onSync(() => waiting.forEach((look) => look()))
  await answer(channel.join())
  const known = () =>
    Object.fromEntries(
      presence.list((key, { metas }) => [
        key,
        metas.map(({ phx_ref, phx_ref_prev, ...meta }) => JSON.stringify(meta)).sort(),
      ]),
    )
  /** Waits until these are the members. */
  const until = (expected) =>
    new Promise((resolve) => {
      const look = () => isDeepStrictEqual(known(), expected) && (waiting.delete(look), resolve())
      waiting.add(look)
      look()
    })
  return { channel, until }
}

for (const release of releases) {
  check(`${release}: Presence knows who is there`, async () => {
    const topic = `keys:${release}`
    const keys = ['__proto__', 'constructor', '', 'a,b']
    const watcher = await present(release, topic, { presence: false })
    const members = await Promise.all(
      keys.map((key) => present(release, topic, { presence_key: key, presence: { key } })),
    )
    // `Presence` would fail on a key that all objects have.
    const shown = ['\0__proto__', '\0constructor', '', 'a,b']
    const all = Object.fromEntries(keys.map((key, at) => [shown[at], [JSON.stringify({ key })]]))
    for (const { until } of [watcher, ...members]) await until(all)
    await answer(members[3].channel.push('update', { away: true }))
    await watcher.until({ ...all, 'a,b': ['{"away":true}'] })
    await answer(members[3].channel.push('untrack', {}))
    delete all['a,b']
    await watcher.until(all)
    await answer(members[2].channel.leave())
    delete all['']
    for (const { until } of [watcher, ...members.slice(0, 2)]) await until(all)
    members.slice(0, 2).forEach(({ channel }) => channel.socket.disconnect())
    await watcher.until({})
  })

  check(`${release}: two tabs of one key, and a key of 255 bytes`, async () => {
    const topic = `keys:tabs:${release}`
    const key = 'ü'.repeat(127) + 'x'
    const watcher = await present(release, topic, { presence: false })
    const tabs = await Promise.all(
      [1, 2].map((tab) => present(release, topic, { presence_key: key, presence: { tab } })),
    )
    await watcher.until({ [key]: ['{"tab":1}', '{"tab":2}'] })
    await answer(tabs[0].channel.leave())
    await watcher.until({ [key]: ['{"tab":2}'] })
    await answer(tabs[1].channel.push('track', { tab: 3 }))
    await watcher.until({ [key]: ['{"tab":3}'] })
  })

  check(`${release}: after a lost connection and a second join the members are the same`, async () => {
    const topic = `keys:again:${release}`
    const options = { reconnectAfterMs: () => 10, rejoinAfterMs: () => 10 }
    const watcher = await present(release, topic, { presence: false }, options)
    const member = await present(release, topic, { presence_key: 'm', presence: { n: 1 } }, options)
    await watcher.until({ m: ['{"n":1}'] })
    for (const { channel } of [watcher, member]) {
      const joined = new Promise((resolve) => channel.joinPush.receive('ok', resolve))
      channel.socket.conn.terminate()
      await joined
    }
    await watcher.until({ m: ['{"n":1}'] })
    await answer(member.channel.push('update', { n: 2 }))
    await watcher.until({ m: ['{"n":2}'] })
    await member.until({ m: ['{"n":2}'] })
  })

  check(`${release}: beyond the bound there are counts, and below half of it the members again`, async () => {
    const topic = `keys:large:${release}`
    const watcher = await present(release, topic, { presence: false })
    const counts = events(watcher.channel, 'presence_count')
    const members = []
    for (let n = 0; n < 6; n++) {
      members.push(await present(release, topic, { presence_key: `m${n % 3}`, presence: { n } }))
    }
    while (!isDeepStrictEqual(await counts(), { clients: 6, users: 3 }));
    const again = new Promise((resolve) => watcher.channel.on('presence_state', resolve))
    members.slice(1).forEach(({ channel }) => channel.socket.disconnect())
    await again
    await watcher.until({ m0: ['{"n":0}'] })
  })
}

check('a token in the subprotocol is read, and a bad one refused', async () => {
  const socket = new WebSocket(`${endpoint}/websocket?vsn=2.0.0`, [
    'phoenix',
    `base64url.bearer.phx.${btoa('no token').replace(/=/g, '')}`,
  ])
  socket.on('error', () => {})
  const [, response] = await once(socket, 'unexpected-response')
  assert.equal(response.statusCode, 403)
  // An open connection would keep this process alive.
  response.destroy()
})
