// A client of the murre.v1 protocol (docs/protocol.md) for browsers and Node. It keeps a connection,
// makes another when that is lost, and then asks again for all that the program has subscribed to
// and serves, from where it stood.

/** Why something was refused or came to nothing. `code` is the protocol's, or one of ours. */
export class MurreError extends Error {
  constructor(code, message, { identifier, service } = {}) {
    super(message)
    Object.assign(this, { name: 'MurreError', code, identifier, service })
  }
}

export class Murre {
  state = 'closed'

  #url
  #options
  /** The connection that is or is being made. What comes of an earlier one is ignored. */
  #link = null
  /** How many connections in a row did not last. */
  #attempts = 0
  /** The token to show. None if there is none yet, or if it has been refused. */
  #token
  #expires = null
  #refused = false
  #subscriptions = new Map()
  #services = new Map()
  #lastId = 0
  /** What is done with the answer, by the id of the command. */
  #pending = new Map()
  /** Of the pending commands those that wait for a connection: the messages, by id. */
  #waiting = new Map()
  /** What is to be asked for or taken back: subscriptions and services, each with '' or 'un'. */
  #claims = new Map()
  /** By name; those by number are of commands, and outlive a connection. */
  #timers = new Map()
  #listeners = { connecting: new Set(), open: new Set(), closed: new Set(), error: new Set() }

  constructor(url, options = {}) {
    this.#options = { ...defaults, ...options }
    if (!this.#options.WebSocket) throw new TypeError('no WebSocket here: pass one as an option')
    this.#url = new URL(url, globalThis.location?.href)
    this.#url.protocol = this.#url.protocol.replace('http', 'ws')
    this.#token = this.#options.token
    this.connect()
  }

  on(event, listener) {
    this.#listeners[event].add(listener)
    return () => this.#listeners[event].delete(listener)
  }

  subscribe(identifier, onPublication, { onState, onDropped, position } = {}) {
    if (this.#subscriptions.has(identifier)) {
      throw new MurreError('already_subscribed', 'is subscribed to already', { identifier })
    }
    const unsubscribe = () => this.#end(one)
    const members = { identifier, position, onPublication, onState, onDropped, unsubscribe }
    const one = new Subscription(members)
    this.#subscriptions.set(identifier, one)
    this.#claim(one)
    return one
  }

  serve(service, handler, { onState } = {}) {
    if ((this.#services.get(service)?.state ?? 'ended') !== 'ended') {
      throw new MurreError('already_serving', 'is served already', { service })
    }
    const one = new Standing({ service, handler, onState, unserve: () => this.#end(one) })
    this.#services.set(service, one)
    this.#claim(one)
    return one
  }

  async publish(identifier, data, options) {
    const command =
      data instanceof Uint8Array
        ? writeBinary(identifier, data)
        : { action: 'publish', identifier, data: data ?? null }
    const { position } = await this.#ask(command, options)
    return { position }
  }

  async history(identifier, { limit = HISTORY_LIMIT, position, ...options } = {}) {
    const page = (limit, position) =>
      this.#ask({ action: 'history', identifier, limit, position }, options)
    let answer = await page(limit, position)
    const { epoch, offset: head } = answer.position
    /** The publications after an offset; null if the next one is not kept any more. */
    const after = async (offset, limit) => {
      const { position, publications, more } = await page(limit, { epoch, offset })
      const [next] = publications
      const kept = position.epoch === epoch && (next?.offset ?? offset + 1) === offset + 1
      return kept ? { publications, more } : null
    }
    // One answer does not hold so many of the newest: read on from where the oldest of them is.
    if (!position && answer.more && answer.publications.length < limit) {
      answer = (await after(Math.max(0, head - limit), limit)) ?? { ...answer, more: false }
    }
    const found = answer.publications
    while (answer?.more && found.length < limit) {
      answer = await after(found.at(-1).offset, limit - found.length)
      if (answer) found.push(...answer.publications)
    }
    const publications = found.map(({ offset, data, binary }) => ({
      offset,
      data: binary === undefined ? data : Uint8Array.from(atob(binary), (c) => c.charCodeAt(0)),
    }))
    return { position: { epoch, offset: Math.max(head, found.at(-1)?.offset ?? 0) }, publications }
  }

  async request(service, data, options = {}) {
    const { timeout = this.#options.timeout } = options
    const command = { action: 'request', service, data: data ?? null, timeout }
    return (await this.#ask(command, options)).data
  }

  async authenticate(token) {
    this.#token = token
    this.#expires = null
    this.#refused = false
    if (this.state === 'open') await this.#showToken()
  }

  connect() {
    if (this.state !== 'closed') return
    this.#stop('retry')
    this.state = 'connecting'
    const attempt = this.#attempts
    const link = (this.#link = { socket: null, heard: false })
    const { connectTimeout } = this.#options
    this.#after('connect', connectTimeout, () => this.#lost(NO_CODE, 'no connection in time'))
    this.#dial(link).catch((error) => link === this.#link && this.#lost(NO_CODE, error.message))
    this.#emit('connecting', { attempt })
  }

  close() {
    const retrying = this.#timers.has('retry')
    if (this.state !== 'closed' || retrying) this.#lost(1000, 'closed by this side', true)
  }

  async #dial(link) {
    const { WebSocket, getToken, clock } = this.#options
    const expired = this.#expires !== null && this.#expires * 1000 <= clock.now()
    if (getToken && (this.#token == null || expired)) {
      const token = await getToken()
      if (link !== this.#link) return
      this.#token = token
    }
    const socket = (link.socket = new WebSocket(this.#url.href, 'murre.v1'))
    let problem
    socket.binaryType = 'arraybuffer'
    socket.onmessage = ({ data }) => this.#received(data)
    socket.onerror = ({ message }) => (problem = message)
    socket.onclose = ({ code, reason }) => this.#lost(code, reason || problem || '')
    socket.onopen = async () => {
      try {
        if (this.#token != null) await this.#showToken()
        this.#opened()
      } catch (error) {
        if (link === this.#link) this.#lost(NO_CODE, error.code)
      }
    }
  }

  /** Authenticates this connection, and again when nine tenths of the token's time are over. */
  async #showToken() {
    const { getToken, clock } = this.#options
    try {
      const { expires } = await this.#ask({ action: 'auth', token: this.#token }, {}, true)
      this.#expires = expires ?? null
    } catch (error) {
      if (error.code === 'bad_token') this.#refuseToken()
      throw error
    }
    this.#stop('token')
    // If the clocks here and there disagree so much, the server's close will say when to ask.
    const left = this.#expires === null ? 0 : this.#expires * 1000 - clock.now()
    if (!getToken || left <= 0) return
    this.#after('token', Math.min(left * 0.9, TIMER_MAX), async () => {
      try {
        await this.authenticate(await getToken())
      } catch (error) {
        this.#emit('error', error)
      }
    })
  }

  #refuseToken() {
    this.#token = undefined
    this.#expires = null
    this.#refused = true
  }

  #opened() {
    this.#stop('connect')
    this.state = 'open'
    this.#after('stable', this.#options.stableAfter, () => (this.#attempts = 0))
    this.#watch()
    this.#claims = new Map(this.#standing().map((one) => [one, '']))
    this.#sendClaims()
    for (const [id, message] of this.#waiting) this.#submit(id, message)
    this.#emit('open')
  }

  /** The connection is no more, or given up. Another one is made, unless this is `final`. */
  #lost(code, reason, final = false) {
    const { getToken, random, backoffBase, backoffMax } = this.#options
    const socket = this.#link?.socket
    this.#link = null
    this.state = 'closed'
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null
      socket.onerror = () => {}
      socket.close()
    }
    const interrupted = this.#standing().filter((one) => one.state === 'active')
    for (const one of interrupted) one.state = 'pending'
    this.#claims.clear()
    for (const name of this.#timers.keys()) if (typeof name !== 'number') this.#stop(name)

    // Neither an administrator's word nor a token that was refused gets better with time.
    final ||= code === ENDED_BY_ADMIN || (this.#refused && !getToken)
    let retryIn = null
    if (final) {
      this.#attempts = 0
    } else {
      retryIn = random() * Math.min(backoffMax, backoffBase * 2 ** this.#attempts++)
      // The server is going away, and knows better: not before so many seconds.
      const [, seconds] = (code === SERVICE_RESTART && RETRY.exec(reason)) || []
      if (seconds > 0) retryIn = Math.max(retryIn, (Number(seconds) + random()) * 1000)
      this.#after('retry', retryIn, () => this.connect())
    }
    for (const id of [...this.#pending.keys()]) {
      if (!this.#waiting.has(id)) {
        this.#settle(id, new MurreError('connection_lost', 'the connection was lost meanwhile'))
      } else if (final) {
        this.#settle(id, new MurreError('offline', 'there will be no connection'))
      }
    }
    this.#emit('closed', { code, reason, retryIn })
    for (const one of interrupted) safely(one.onState, { state: 'pending' })
  }

  /** Asks for a sign of life after a time without any. Browsers do not show the server's pings. */
  #watch() {
    const { pingInterval, pongTimeout } = this.#options
    const link = this.#link
    link.heard = false
    this.#after('silence', pingInterval, () => {
      if (link.heard) return this.#watch()
      this.#send({ action: 'ping' })
      this.#after('silence', pongTimeout, () => {
        if (link.heard) return this.#watch()
        this.#lost(NO_CODE, 'the server is silent')
      })
    })
  }

  #received(data) {
    this.#link.heard = true
    if (typeof data !== 'string') {
      const { identifier, offset, payload } = readBinary(data)
      return this.#subscriptions.get(identifier)?.deliver(payload, offset)
    }
    const message = JSON.parse(data)
    switch (message.type) {
      case 'publication':
        return this.#subscriptions.get(message.identifier)?.deliver(message.data, message.offset)
      case 'dropped':
        return safely(this.#subscriptions.get(message.identifier)?.onDropped, message.count)
      case 'request':
        return this.#reply(message)
      case 'error': {
        const error = new MurreError(message.code, message.message, message)
        if (error.code === 'token_expired') this.#refuseToken()
        if (message.id === undefined) this.#emit('error', error)
        return this.#settle(message.id, error)
      }
      default:
        return this.#settle(message.id, null, message)
    }
  }

  /** Answers a request with what its handler returns, or with the message of what it throws. */
  async #reply({ service, request, data }) {
    const link = this.#link
    // On another connection, the name of this request would be that of another.
    const reply = (answer) =>
      link === this.#link && this.#send({ action: 'reply', request, ...answer })
    try {
      const { handler } = this.#services.get(service) ?? {}
      if (!handler) throw new Error('not served any more')
      reply({ data: (await handler(data, { service })) ?? null })
    } catch (error) {
      reply({ error: String(error?.message ?? error) })
    }
  }

  #standing() {
    const services = [...this.#services.values()].filter((one) => one.state !== 'ended')
    return [...this.#subscriptions.values(), ...services]
  }

  /** Asks for this, or takes that back, with what else is asked for in the same moment. */
  #claim(one, undo = '') {
    if (this.state !== 'open') return
    this.#claims.set(one, undo)
    if (!this.#timers.has('claims')) this.#after('claims', 0, () => this.#sendClaims())
  }

  /** Sends claims, no more at once and in a second than `commandsPerSecond`. */
  #sendClaims() {
    const { commandsPerSecond } = this.#options
    const link = this.#link
    const claims = [...this.#claims].slice(0, Math.min(BATCH_MAX, commandsPerSecond))
    if (claims.length === 0) return
    const commands = claims.map(([one, undo]) => {
      this.#claims.delete(one)
      const id = ++this.#lastId
      this.#pending.set(id, (error, answer) => {
        if (one.state === 'ended') this.#forget(one)
        if (link === this.#link) this.#claimed(one, undo, error, answer)
      })
      const { identifier, position, service } = one
      return service === undefined
        ? { action: `${undo}subscribe`, identifier, position, id }
        : { action: `${undo}serve`, service, id }
    })
    this.#send(commands.length > 1 ? commands : commands[0])
    this.#after('claims', (claims.length * 1_000) / commandsPerSecond, () => this.#sendClaims())
  }

  #claimed(one, undo, error, answer) {
    const over = one.state === 'ended'
    if (LATER.has(error?.code) && over === (undo !== '')) {
      const claim = () => this.#claim(one, undo)
      this.#after(one, 1000 + this.#options.random() * 1000, claim)
    } else if (!over) {
      if (error) this.#end(one, error)
      else one.begin(answer)
    }
  }

  #end(one, error) {
    if (one.state === 'ended') return
    const unsent = this.#claims.delete(one)
    this.#stop(one)
    this.#subscriptions.delete(one.identifier)
    // Until the server knows, it sends requests.
    if (error || unsent || this.state !== 'open') this.#forget(one)
    else this.#claim(one, 'un')
    one.become('ended', { error })
  }

  #forget(one) {
    if (this.#services.get(one.service) === one) this.#services.delete(one.service)
  }

  /** Resolves with the answer to a command, sent now or, if that is wanted, at the next connect. */
  #ask(command, options = {}, ready = this.state === 'open') {
    const { offline = this.#options.offline, timeout = this.#options.timeout } = options
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId
      const bytes = command instanceof Uint8Array
      const message = bytes ? command : JSON.stringify({ ...command, id })
      this.#pending.set(id, (error, answer) => (error ? reject(error) : resolve(answer)))
      this.#after(id, timeout, () => this.#settle(id, new MurreError('timeout', 'no answer in time')))

      const hope = this.state === 'connecting' || this.#timers.has('retry')
      const room = this.#waiting.size < this.#options.waitingMax
      if (ready) this.#submit(id, message)
      else if (offline === 'wait' && hope && room) this.#waiting.set(id, message)
      else this.#settle(id, new MurreError('offline', 'there is no connection'))
    })
  }

  #submit(id, message) {
    // What the program asked for first goes first, unless it is so much that it has to wait.
    if (this.#claims.size < BATCH_MAX) this.#sendClaims()
    this.#waiting.delete(id)
    this.#link.socket.send(message)
    // Bytes are answered only if they are refused, and then without an id.
    if (typeof message !== 'string') this.#settle(id, null, {})
  }

  #settle(id, error, answer) {
    const settle = this.#pending.get(id)
    this.#pending.delete(id)
    this.#waiting.delete(id)
    this.#stop(id)
    settle?.(error, answer)
  }

  #send(command) {
    this.#link.socket.send(JSON.stringify(command))
  }

  #emit(event, detail) {
    for (const listener of [...this.#listeners[event]]) safely(listener, detail)
  }

  /** Calls `then` in so many milliseconds, unless the timer of this name is stopped or set anew. */
  #after(name, milliseconds, then) {
    this.#stop(name)
    const fire = () => {
      this.#timers.delete(name)
      then()
    }
    this.#timers.set(name, this.#options.clock.setTimeout(fire, milliseconds))
  }

  #stop(name) {
    this.#options.clock.clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
  }
}

/** A service, or what is common to it and a subscription: it is asked for again at each connect. */
class Standing {
  state = 'pending'

  constructor(members) {
    Object.assign(this, members)
  }

  begin() {
    this.become('active')
  }

  become(state, detail) {
    this.state = state
    safely(this.onState, { state, ...detail })
  }
}

class Subscription extends Standing {
  #began = false

  begin({ position, recovered = this.#began ? false : undefined }) {
    this.#began = true
    // What was missed comes now, and counts on from where this stands.
    if (!recovered) this.position = position
    this.become('active', { recovered })
  }

  deliver(data, offset) {
    // Until it has begun, what comes is for one that has ended.
    if (this.state !== 'active') return
    if (offset !== undefined && this.position) {
      if (offset <= this.position.offset) return
      this.position = { epoch: this.position.epoch, offset }
    }
    safely(this.onPublication, data, { identifier: this.identifier, offset })
  }
}

/** What the program throws is its own affair: it is reported, and goes no further. */
function safely(call, ...values) {
  try {
    call?.(...values)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

function writeBinary(identifier, payload) {
  const name = new TextEncoder().encode(identifier)
  if (name.length > 255) throw new MurreError('bad_identifier', 'is too long', { identifier })
  const message = new Uint8Array(2 + name.length + payload.length)
  message.set([1, name.length])
  message.set(name, 2)
  message.set(payload, 2 + name.length)
  return message
}

function readBinary(buffer) {
  const view = new DataView(buffer)
  const end = 2 + view.getUint8(1)
  return {
    identifier: new TextDecoder().decode(new Uint8Array(buffer, 2, end - 2)),
    offset: Number(view.getBigUint64(end)) || undefined,
    payload: new Uint8Array(buffer, end + 8),
  }
}

const defaults = {
  WebSocket: globalThis.WebSocket,
  offline: 'wait',
  timeout: 10_000,
  waitingMax: 100,
  commandsPerSecond: 100,
  connectTimeout: 10_000,
  pingInterval: 15_000,
  pongTimeout: 10_000,
  backoffBase: 500,
  backoffMax: 30_000,
  stableAfter: 10_000,
  random: Math.random,
  clock: {
    now: () => Date.now(),
    setTimeout: (then, milliseconds) => setTimeout(then, milliseconds),
    clearTimeout: (timer) => clearTimeout(timer),
  },
}

const BATCH_MAX = 100
/** The server's default. */
const HISTORY_LIMIT = 100
/** The longest time that a browser's timer takes. */
const TIMER_MAX = 2 ** 31 - 1
/** What a browser reports of a connection that ended without a close. */
const NO_CODE = 1006
const ENDED_BY_ADMIN = 4000
const SERVICE_RESTART = 1012
/** At most four digits: an hour is more than enough. */
const RETRY = /\bretry=(\d{1,4})$/
/** Refusals that may be otherwise a little later. */
const LATER = new Set(['overloaded', 'too_fast', 'already_subscribed', 'already_serving'])
