// Node's `ws` against a running server: what an ordinary WebSocket client does, and the close codes of its
// mistakes. Run by scripts/end-to-end: `TEST_PORT=... node --test ws.mjs`.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { afterEach, test } from 'node:test'
import WebSocket from 'ws'

const clients = []

// An open connection would keep this process alive.
afterEach(() => clients.splice(0).forEach((client) => client.terminate()))

const check = (name, body) => test(name, { timeout: 180_000 }, body)

function connect(path) {
  const client = new WebSocket(`ws://127.0.0.1:${process.env.TEST_PORT}${path}`)
  clients.push(client)
  return client
}

/** An open client on `path`. */
async function open(path) {
  const client = connect(path)
  await once(client, 'open')
  return client
}

/** Sends `data`, and resolves with the bytes that come back and whether they were binary. */
async function answer(client, data, options) {
  client.send(data, options)
  const [bytes, binary] = await once(client, 'message')
  return { bytes, binary }
}

/** Resolves with the close code. */
async function ended(client) {
  client.on('error', () => {})
  const [code] = await once(client, 'close')
  return code
}

check('text and binary of every header length come back unchanged', async () => {
  const client = await open('/echo')
  for (const length of [0, 1, 125, 126, 65_535, 65_536, 200_000]) {
    const text = await answer(client, 'ü'.repeat(length / 2))
    assert.equal(text.bytes.toString(), 'ü'.repeat(length / 2))
    assert.equal(text.binary, false)
    const sent = Buffer.alloc(length, 0xc3)
    const binary = await answer(client, sent)
    assert.ok(sent.equals(binary.bytes), `${length} bytes came back changed`)
    assert.equal(binary.binary, true)
  }
})

check('a message in fragments comes back whole, also with a ping between them', async () => {
  const client = await open('/echo')
  client.send('one message ', { fin: false })
  client.send('in three ', { fin: false })
  client.ping('between')
  const pong = once(client, 'pong')
  const { bytes } = await answer(client, 'pieces', { fin: true })
  assert.equal(bytes.toString(), 'one message in three pieces')
  assert.equal((await pong)[0].toString(), 'between')
})

check('a character cut by a fragment boundary is still text', async () => {
  const client = await open('/echo')
  const euro = Buffer.from('€')
  client.send(euro.subarray(0, 1), { fin: false, binary: false })
  const { bytes } = await answer(client, euro.subarray(1), { fin: true, binary: false })
  assert.equal(bytes.toString(), '€')
})

check('a ping is answered with its own payload', async () => {
  const client = await open('/echo')
  for (const payload of ['', 'x', 'y'.repeat(125)]) {
    client.ping(payload)
    const [bytes] = await once(client, 'pong')
    assert.equal(bytes.toString(), payload)
  }
})

check('many messages at once come back in order', async () => {
  const client = await open('/echo')
  const back = []
  client.on('message', (bytes) => back.push(Number(bytes)))
  const numbers = Array.from({ length: 5_000 }, (_, n) => n)
  for (const n of numbers) client.send(String(n))
  client.close()
  await once(client, 'close')
  assert.deepEqual(back, numbers)
})

check('200 clients at once each get their own answers', async () => {
  const opened = await Promise.all(Array.from({ length: 200 }, () => open('/echo')))
  const answers = await Promise.all(opened.map((client, n) => answer(client, `client ${n}`)))
  answers.forEach(({ bytes }, n) => assert.equal(bytes.toString(), `client ${n}`))
})

check('/upper answers in upper case', async () => {
  const client = await open('/upper')
  const { bytes, binary } = await answer(client, 'the murre nests closest of all 1234')
  assert.equal(bytes.toString(), 'THE MURRE NESTS CLOSEST OF ALL 1234')
  assert.equal(binary, false)
})

check('a close is answered with its own code', async () => {
  for (const [code, reason] of [[1000, 'done'], [1001, ''], [3000, 'ours'], [4999, 'theirs']]) {
    const client = await open('/echo')
    client.close(code, reason)
    assert.equal(await ended(client), code)
  }
  const silent = await open('/echo')
  silent.close()
  assert.equal(await ended(silent), 1005)
})

check('text that is not UTF-8 is closed with 1007', async () => {
  const client = await open('/echo')
  client.send(Buffer.from([0x48, 0xff]), { binary: false })
  assert.equal(await ended(client), 1007)
})

check('a message that is too long is closed with 1009', async () => {
  const client = await open('/echo')
  client.send(Buffer.alloc(2 << 20))
  assert.equal(await ended(client), 1009)
})

check('no extension is agreed to', async () => {
  const client = await open('/echo')
  assert.equal(client.extensions, '')
})

check('a path that is not a WebSocket refuses with a status', async () => {
  for (const [path, status] of [['/nowhere', 404]]) {
    const client = connect(path)
    const [, response] = await once(client, 'unexpected-response')
    assert.equal(response.statusCode, status)
    client.on('error', () => {})
  }
})
