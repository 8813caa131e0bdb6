// A WebSocket server on Node's `ws`: an echo, and on /ws channels with a feed and a service. It speaks
// the part of docs/protocol.md that the load generator uses. It frames a publication anew for each
// subscriber, because `ws` has no other way. `lean` keeps no set of the clients; the script that
// starts the server sets Node's flags that save memory.
// Usage: node server.mjs HOST PORT [lean]

import { WebSocketServer } from 'ws'

const [host, port, lean] = process.argv.slice(2)
const server = new WebSocketServer({ host, port: Number(port), clientTracking: lean !== 'lean' })

server.on('connection', (socket, request) => {
  socket.on('error', console.error)
  if (request.url === '/ws') {
    const own = new Set()
    socket.on('message', (data) => obey(socket, own, JSON.parse(data)))
    socket.on('close', () => own.forEach((identifier) => leave(socket, identifier)))
  } else {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  }
})

const channels = new Map()
let identifiers = []

const actions = {
  subscribe(socket, own, { identifier }) {
    if (!channels.has(identifier)) {
      channels.set(identifier, new Set())
      identifiers = [...channels.keys()]
    }
    channels.get(identifier).add(socket)
    own.add(identifier)
    return { type: 'subscribed', identifier }
  },
  unsubscribe(socket, own, { identifier }) {
    leave(socket, identifier)
    own.delete(identifier)
    return { type: 'unsubscribed', identifier }
  },
  publish(_socket, _own, { identifier, data, id }) {
    send(identifier, JSON.stringify({ type: 'publication', identifier, data }))
    return id === undefined ? undefined : { type: 'published', identifier }
  },
  feed(_socket, _own, { bytes, rate = Infinity }) {
    Object.assign(feed, { bytes, rate, sent: 0, begun: performance.now() })
    if (!feed.runs && rate > 0) {
      feed.runs = true
      setImmediate(feedSome)
    }
    return { type: 'feed' }
  },
  request(socket, _own, { service, data: { request, timestamp } }) {
    return { type: 'response', service, data: { request, timestamp, address: socket._socket.remoteAddress } }
  },
}

function obey(socket, own, command) {
  const answer = actions[command.action]?.(socket, own, command) ?? undefined
  if (answer !== undefined) {
    if (command.id !== undefined) answer.id = command.id
    socket.send(JSON.stringify(answer))
  }
}

function leave(socket, identifier) {
  const members = channels.get(identifier)
  members?.delete(socket)
  if (members?.size === 0) {
    channels.delete(identifier)
    identifiers = [...channels.keys()]
  }
}

function send(identifier, text) {
  for (const socket of channels.get(identifier) ?? []) socket.send(text)
}

// Publishes the feed of a server of 2012: each message goes to one random identifier with a
// subscription. A slow subscriber gets no message until it has read the earlier ones.
const feed = { runs: false, bytes: 0, rate: 0, sent: 0, begun: 0, request: 0 }
const BATCH = 100
const WAITING_BYTES_MAX = 64 * 1024

function feedSome() {
  const due = (feed.rate * (performance.now() - feed.begun)) / 1000 - feed.sent
  for (let left = Math.min(BATCH, due); left >= 1 && identifiers.length > 0; left--) {
    const identifier = identifiers[Math.floor(Math.random() * identifiers.length)]
    feed.sent++
    const slow = [...channels.get(identifier)].some(({ bufferedAmount }) => bufferedAmount > WAITING_BYTES_MAX)
    if (slow) continue
    const data = { request: feed.request++, timestamp: Date.now(), identifier, elements: '' }
    const message = { type: 'publication', identifier, data }
    data.elements = 'x'.repeat(Math.max(1, feed.bytes - JSON.stringify(message).length))
    send(identifier, JSON.stringify(message))
  }
  feed.runs = feed.rate > 0
  if (feed.runs) setImmediate(feedSome)
}
