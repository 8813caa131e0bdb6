// A WebSocket echo server on Node's `ws`. `lean` keeps no set of the clients; the flags of Node that
// save memory are given by who starts it.
// Usage: node server.mjs HOST PORT [lean]

import { WebSocketServer } from 'ws'

const [host, port, lean] = process.argv.slice(2)
const server = new WebSocketServer({ host, port: Number(port), clientTracking: lean !== 'lean' })

server.on('connection', (socket) => {
  socket.on('error', console.error)
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
})
