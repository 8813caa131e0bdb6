// More subscriptions than a server with default limits takes at once.

import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import * as support from './support.mjs'

const { check, connect, external, fresh, Proxy, startServer, until, WebSocket } = support

let server
before(async () => (server = await startServer({ commands: 100 })))
after(() => server.stop())

check('many subscriptions are begun and ended within the rate limit of the server', { skip: external }, async () => {
  const refused = []
  class Listening extends WebSocket {
    constructor(...given) {
      super(...given)
      this.addEventListener('message', ({ data }) => data.includes('error') && refused.push(data))
    }
  }
  const proxy = await Proxy.start()
  const client = connect({ WebSocket: Listening }, proxy.url)
  await until(() => client.state === 'open')
  const subscriptions = Array.from({ length: 250 }, () => client.subscribe(fresh('plain')))
  const active = () => subscriptions.every(({ state }) => state === 'active')
  await until(active)
  proxy.cut()
  await until(() => !active())
  await until(active)
  const [last] = subscriptions.slice(-1)
  for (const subscription of subscriptions) subscription.unsubscribe()
  const again = await support.subscribe(client, last.channel)
  assert.equal(again.state, 'active')
  assert.deepEqual(refused, [])
  assert.equal(proxy.count, 2)
})

check('a subscription refused as too fast is tried again', { skip: external }, async () => {
  const client = connect({ commandsPerSecond: 1_000 })
  await until(() => client.state === 'open')
  const subscriptions = Array.from({ length: 300 }, () => client.subscribe(fresh('plain')))
  await until(() => subscriptions.every(({ state }) => state === 'active'))
  assert.equal(client.heard.length, 1)
})
