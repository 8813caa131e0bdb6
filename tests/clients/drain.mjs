// Holds 1,000 WebSockets while the server is told to end: `TEST_PORT=... node drain.mjs PID`.
// Each of them must be told 1001, going away.

import { once } from 'node:events'
import WebSocket from 'ws'

const count = 1_000
const server = Number(process.argv[2])

async function open() {
  const client = new WebSocket(`ws://127.0.0.1:${process.env.TEST_PORT}/echo`)
  await once(client, 'open')
  return client
}

const clients = []
while (clients.length < count) {
  clients.push(...(await Promise.all(Array.from({ length: 100 }, open))))
}
const codes = clients.map(async (client) => {
  client.on('error', () => {})
  return (await once(client, 'close'))[0]
})
process.kill(server, 'SIGTERM')

const told = (await Promise.all(codes)).filter((code) => code === 1001).length
console.log(`${told} of ${count} WebSockets were told 1001`)
process.exit(told === count ? 0 : 1)
