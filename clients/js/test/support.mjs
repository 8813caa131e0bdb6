// Shared by the tests: a server, a proxy that breaks connections, clients that are closed after each
// test. The server is the newest build, on TEST_PORT, or a running one at MURRE_URL.

import { spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import WebSocket from 'ws'
import { Murre } from '../murre.js'

const port = process.env.TEST_PORT ?? '18000'
const adminPort = process.env.TEST_ADMIN_PORT ?? '18001'
export const admin = `127.0.0.1:${adminPort}`

export { WebSocket }
/** Tests that restart the server are skipped for a server that they did not start. */
export const external = process.env.MURRE_URL
export const origin = external ? new URL(external).host : `127.0.0.1:${port}`
export const url = external ?? `ws://${origin}/ws`

/** Starts the server that most tests use, and waits until it serves. */
export async function startServer({ commands = 1_000 } = {}) {
  if (external) return { stop: async () => {} }
  return run([
    '--bench', '--shards=2', '--max-conns=2000', '--drain-timeout=0.1', '--retry-after=0',
    `--max-commands-per-second=${commands}`, `--jwt-hmac-secret-file=${secretFile()}`,
    '--namespace=default,publish=anyone,serve=anyone',
    '--namespace=kept,publish=anyone,history-size=1000',
    '--namespace=closed,publish=nobody,subscribe=nobody',
    '--namespace=members,publish=authenticated,subscribe=authenticated',
    '--namespace=room,presence=members,presence-push-max=3,presence-interval=0.1,presence-grace=0.2',
  ])
}

/** Starts the server with these options, in the repository's root, and waits until it serves. */
export async function run(options) {
  const built = ['release', 'debug'].map((profile) => target(`${profile}/murre`))
  const [binary] = built.filter(existsSync).sort((a, b) => statSync(b).mtime - statSync(a).mtime)
  if (!binary) throw new Error('no server: run cargo build --release, or set MURRE_URL')
  const addresses = [`--listen=127.0.0.1:${port}`, `--admin=${admin}`]
  const server = spawn(binary, ['serve', ...options, ...addresses], { cwd: root('.') })
  let log = ''
  const serving = new Promise((resolve, reject) => {
    const read = (text) => (log += text).includes('serving') && resolve()
    server.stdout.on('data', read)
    server.stderr.on('data', read)
    server.once('exit', () => reject(new Error(`no server: ${log}`)))
  })
  process.once('exit', () => server.kill('SIGKILL'))
  await serving
  return {
    async stop(signal = 'SIGTERM') {
      server.kill(signal)
      if (server.exitCode === null && server.signalCode === null) await once(server, 'exit')
    },
  }
}

const secret = 'what the tests and their server know'
let keys

/** The file with the secret that signs tokens. */
function secretFile() {
  if (!keys) {
    keys = mkdtempSync(join(tmpdir(), 'murre-client-'))
    process.once('exit', () => rmSync(keys, { recursive: true }))
    writeFileSync(join(keys, 'secret'), secret)
  }
  return join(keys, 'secret')
}

/** A token of the user `sub`, valid for `seconds`. */
export function token(sub, seconds = 3_600) {
  const exp = Date.now() / 1_000 + seconds
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub, exp })}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

/** A path in this repository. */
export const root = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url))

/** A path below the build directory. */
export const target = (path) => resolve(root('.'), process.env.CARGO_TARGET_DIR ?? 'target', path)

/** A TCP proxy in front of the server. */
export class Proxy {
  /** Connections made to the server so far. */
  count = 0
  #listener = net.createServer((client) => this.#join(client))
  #sockets = new Set()
  #refusing = false

  static async start() {
    const proxy = new Proxy()
    proxy.#listener.listen(0, '127.0.0.1')
    await once(proxy.#listener, 'listening')
    proxies.push(proxy)
    proxy.origin = `127.0.0.1:${proxy.#listener.address().port}`
    proxy.url = `ws://${proxy.origin}/ws`
    return proxy
  }

  #join(client) {
    if (this.#refusing) return client.destroy()
    this.count++
    const [host, port] = origin.split(':')
    const server = net.connect(Number(port), host)
    for (const socket of [client, server]) {
      this.#sockets.add(socket)
      const other = socket === client ? server : client
      socket.on('error', () => {})
      socket.on('close', () => {
        this.#sockets.delete(socket)
        other.destroy()
      })
      socket.pipe(other)
    }
  }

  /** Breaks all connections, by a reset. */
  cut() {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  /** Breaks all connections, and each new one until `admit`. */
  refuse() {
    this.#refusing = true
    this.cut()
  }

  admit() {
    this.#refusing = false
  }

  /** Stops forwarding on all connections, and leaves them open. */
  hang() {
    for (const socket of this.#sockets) socket.unpipe().pause()
  }

  close() {
    this.cut()
    this.#listener.close()
  }
}

const proxies = []
const clients = []

// An open connection would keep this process alive.
afterEach(() => {
  for (const client of clients.splice(0)) client.close()
  for (const proxy of proxies.splice(0)) proxy.close()
})

/** A client that reconnects quickly, is closed after the test, and collects its events in `heard`. */
export function connect(options = {}, address = url) {
  const client = new Murre(address, { WebSocket, backoffBase: 20, backoffMax: 100, ...options })
  clients.push(client)
  client.heard = []
  for (const event of ['connecting', 'open', 'closed', 'error']) {
    client.on(event, (detail) => client.heard.push({ event, detail }))
  }
  return client
}

/** Subscribes, and waits until that is active. Publications are in `heard`, states in `changes`. */
export async function subscribe(client, channel, options = {}) {
  const heard = []
  const changes = []
  const subscription = client.subscribe(channel, (data, about) => heard.push({ data, ...about }), {
    ...options,
    onState: (change) => changes.push(change),
  })
  Object.assign(subscription, { heard, changes, data: () => heard.map(({ data }) => data) })
  await until(() => changes.length > 0)
  return subscription
}

/** Waits until `check` returns true. Otherwise the test ends at its time limit. */
export async function until(check) {
  while (!check()) await new Promise((resolve) => setTimeout(resolve, 2))
}

export const check = (name, options, body = options) =>
  test(name, { timeout: 20_000, ...(body === options ? {} : options) }, body)

/** A channel that no other test uses. */
export const fresh = (namespace) => `${namespace}:${process.pid}-${++names}`
let names = 0
