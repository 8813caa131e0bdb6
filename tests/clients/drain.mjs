// Holds 1,000 WebSockets and sends SIGTERM to the server: `TEST_PORT=... node drain.mjs PID`.
// Each must be closed with 1012, service restart, and a time to come back.

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
const goodbyes = clients.map(async (client) => {
  client.on('error', () => {})
  const [code, reason] = await once(client, 'close')
  return `${code} ${reason}`
})
process.kill(server, 'SIGTERM')

const goodbye = /^1012 service restart, retry=[1-5]$/
const told = (await Promise.all(goodbyes)).filter((words) => goodbye.test(words)).length
console.log(`${told} of ${count} WebSockets were told 1012 and when to come back`)
process.exit(told === count ? 0 : 1)
