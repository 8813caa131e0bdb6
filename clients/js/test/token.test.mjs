// Tokens: sent, refused, expired and replaced. The server has the secret of the tests.

import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import * as support from './support.mjs'

const { connect, fresh, startServer, subscribe, token, until } = support
const check = (name, body) => support.check(name, { skip: support.external }, body)

let server
before(async () => (server = await startServer()))
after(() => server.stop())

const closes = (client) =>
  client.heard.filter(({ event }) => event === 'closed').map(({ detail }) => detail)

check('a token gives access to a closed channel', async () => {
  const channel = fresh('members')
  const stranger = await subscribe(connect(), channel)
  assert.equal(stranger.changes[0].error.code, 'not_allowed')
  const member = await subscribe(connect({ token: token('ann') }), channel)
  assert.equal(member.state, 'active')
})

check('a token can be given later', async () => {
  const client = connect()
  await until(() => client.state === 'open')
  await assert.rejects(client.authenticate(token('ann').slice(1)), { code: 'bad_token' })
  await client.authenticate(token('ann'))
  assert.equal((await subscribe(client, fresh('members'))).state, 'active')
})

check('a refused token is not sent again', async () => {
  const client = connect({ token: token('ann', -60) })
  const subscription = client.subscribe(fresh('members'))
  await until(() => closes(client).length > 0)
  assert.deepEqual(closes(client), [{ code: 1006, reason: 'bad_token', retryIn: null }])
  await client.authenticate(token('ann'))
  client.connect()
  await until(() => subscription.state === 'active')
})

check('getToken is called again after a refused token, and after it gave none', async () => {
  const given = [() => token('ann', -60), () => Promise.reject(new Error('no network')), () => token('ann')]
  const client = connect({ getToken: () => given.shift()() })
  const subscription = await subscribe(client, fresh('members'))
  assert.equal(subscription.state, 'active')
  assert.deepEqual(closes(client).map(({ reason }) => reason), ['bad_token', 'no network'])
  assert.deepEqual(given, [])
})

check('a token that is still valid is kept over a reconnect', async () => {
  let asked = 0
  const proxy = await support.Proxy.start()
  const client = connect({ getToken: () => token('ann', ++asked * 3_600) }, proxy.url)
  const subscription = await subscribe(client, fresh('members'))
  proxy.cut()
  await until(() => subscription.changes.length === 3)
  assert.equal(subscription.state, 'active')
  assert.equal(asked, 1)
})

check('the next token is got before the first expires, and the connection stays open', async () => {
  let asked = 0
  const client = connect({ getToken: async () => token('ann', asked++ ? 3_600 : 2) })
  const subscription = await subscribe(client, fresh('members'))
  const expired = Date.now() + 4_000
  await until(() => Date.now() > expired)
  assert.equal(asked, 2)
  assert.deepEqual(closes(client), [])
  await client.publish(subscription.channel, 'still here')
})

check('a connection whose token expires reconnects with the next', async () => {
  const given = [() => token('ann', 2), () => Promise.reject(new Error('no network')), () => token('ann')]
  const client = connect({ getToken: () => given.shift()() })
  const subscription = await subscribe(client, fresh('members'))
  await until(() => subscription.changes.length === 3)
  assert.equal(subscription.state, 'active')
  assert.deepEqual(closes(client).map(({ code }) => code), [1008])
  const errors = client.heard.filter(({ event }) => event === 'error')
  assert.deepEqual(errors.map(({ detail }) => detail.code ?? detail.message), ['no network', 'token_expired'])
})
