// The members of channels: what a subscription is told, and what can be asked.

import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { check, connect, external, fresh, Proxy, startServer, subscribe, token, until } from './support.mjs'

let server
before(async () => (server = await startServer()))
after(() => server.stop())

/** The server of the tests knows their secret and has the namespace `room`. */
const here = { skip: external && 'a server of its own has other namespaces' }

/** A client of a user. */
const of = (user, address) => connect({ token: token(user) }, address)

/** Subscribes with presence. What is told is in `news`, as texts `joins/leaves`. */
async function join(client, channel, options = {}) {
  const news = []
  const who = (members) => members.map(({ user, meta }) => user + (meta ?? '')).sort().join(',')
  const onPresence = ({ members, joins, leaves, clients, users }) => {
    assert.ok(clients >= users)
    if (members) assert.equal(members.size, clients)
    news.push(members ? `${who(joins)}/${who(leaves)}` : `${clients}`)
  }
  const room = await subscribe(client, channel, { onPresence, ...options })
  const names = () => who([...(room.members?.values() ?? [])])
  return Object.assign(room, { news, names })
}

check('members are told who comes, changes and goes', here, async () => {
  const channel = fresh('room')
  const ada = await join(of('ada'), channel)
  await until(() => ada.names() === 'ada')
  const client = of('bob')
  const bob = await join(client, channel, { meta: 1 })
  await until(() => ada.names() === 'ada,bob1' && bob.names() === 'ada,bob1')
  await bob.updateMeta(2)
  await until(() => ada.names() === 'ada,bob2')
  assert.equal(ada.news.at(-1), 'bob2/', 'an update is no leave')
  assert.deepEqual(ada.count, { clients: 2, users: 2 })
  const [own] = [...bob.members.values()].filter(({ user }) => user === 'bob')
  assert.match(own.connection, /^\d+-\d+-\d+$/)
  bob.unsubscribe()
  await until(() => ada.names() === 'ada')
  assert.equal(ada.news.at(-1), '/bob2', 'with what it said of itself')
  assert.deepEqual([ada.news[0], bob.news[0]], ['ada/', 'ada,bob1/'])
  client.close()
})

check('after a reconnect there is one change, and the metadata is that of the last update', here, async () => {
  const channel = fresh('room')
  const proxy = await Proxy.start()
  const watcher = await join(of('watcher'), channel)
  const client = of('ada', proxy.url)
  const ada = await join(client, channel, { meta: 'a' })
  await until(() => ada.names() === 'adaa,watcher')
  await ada.updateMeta('b')
  await until(() => watcher.names() === 'adab,watcher')
  const before = ada.news.length
  proxy.cut()
  await until(() => ada.state === 'pending')
  assert.equal(ada.names(), 'adab,watcher', 'what was known stays until more is known')
  await until(() => ada.state === 'active' && ada.news.length > before)
  await until(() => ada.names() === 'adab,watcher' && watcher.names() === 'adab,watcher')
  const { members } = await of('reader').members(channel)
  assert.deepEqual(members.map(({ user, meta }) => user + (meta ?? '')).sort(), ['adab', 'watcher'])
})

check('a large channel tells counts, and members again when it is small', here, async () => {
  const channel = fresh('room')
  const first = await join(of('first'), channel)
  const others = ['a', 'b', 'c'].map((user) => of(user))
  const rooms = await Promise.all(others.map((other) => join(other, channel)))
  await until(() => first.members === null && first.count?.clients === 4)
  assert.deepEqual(first.count, { clients: 4, users: 4 })
  assert.deepEqual(await others[0].memberCount(channel), { clients: 4, users: 4 })
  const { members, clients } = await others[0].members(channel, { limit: 3 })
  assert.deepEqual([members.length, clients], [3, 4])
  assert.equal((await others[0].members(channel)).members.length, 4)
  for (const room of rooms) room.unsubscribe()
  await until(() => first.names() === 'first')
  assert.ok(first.news.includes('4'))
})

check('a subscriber can be hidden, and shown again, also over a reconnect', here, async () => {
  const channel = fresh('room')
  const proxy = await Proxy.start()
  const watcher = await join(of('watcher'), channel)
  const ada = await join(of('ada', proxy.url), channel, { hidden: true })
  await until(() => ada.names() === 'watcher')
  await ada.updateMeta('a')
  await until(() => watcher.names() === 'adaa,watcher')
  await ada.hide()
  await until(() => watcher.names() === 'watcher' && ada.names() === 'watcher')
  proxy.cut()
  await until(() => ada.state === 'pending')
  await until(() => ada.state === 'active')
  await ada.updateMeta('b')
  await until(() => watcher.names() === 'adab,watcher')
  const others = watcher.news.filter((news) => !news.includes('watcher'))
  assert.deepEqual(others, ['adaa/', '/adaa', 'adab/'], 'hidden at first, and after the reconnect')
})

check('counts alone can be watched, and nothing without presence', here, async () => {
  const channel = fresh('room')
  const counts = await join(of('a'), channel, { presence: 'counts' })
  await until(() => counts.count?.clients === 1)
  const other = await join(of('b'), channel)
  await until(() => counts.count.clients === 2)
  assert.equal(counts.members, null)
  other.unsubscribe()
  await until(() => counts.count.clients === 1)
  const anonymous = await join(connect(), fresh('room'))
  await until(() => anonymous.count?.clients === 0)
  assert.equal(anonymous.members.size, 0, 'an anonymous client watches and is no member')
  const refused = await join(of('a'), fresh('plain'))
  assert.equal(refused.changes.at(-1).error.code, 'no_presence')
})

check('users and metadata may have any content', here, async () => {
  const channel = fresh('room')
  const watcher = await join(of('watcher'), channel)
  const meta = { ['__proto__']: 1, constructor: [{}], text: 'a"b' }
  const proto = of('__proto__')
  await join(proto, channel, { meta: JSON.parse(JSON.stringify(meta)) })
  await until(() => watcher.members?.size === 2)
  const [member] = [...watcher.members.values()].filter(({ user }) => user === '__proto__')
  assert.deepEqual(Object.keys(member.meta), Object.keys(JSON.parse(JSON.stringify(meta))))
  await assert.rejects(watcher.updateMeta('x'.repeat(2000)), { code: 'bad_publication' })
})
