// A client of the murre.v1 protocol (docs/protocol.md) for browsers and Node. It reconnects when the
// connection is lost, and then restores all subscriptions and services, each from its last position.

/** Why a command failed. `code` is one of the protocol, or `offline`, `timeout`, `connection_lost`. */
export class MurreError extends Error {
  constructor(code, message, { channel, service } = {}) {
    super(message)
    Object.assign(this, { name: 'MurreError', code, channel, service })
  }
}

export class Murre {
  state = 'closed'

  #url
  #options
  /** The current connection, open or connecting. Events of an earlier one are ignored. */
  #link = null
  /** Connections in a row that ended before they were stable. */
  #attempts = 0
  /** The token to authenticate with: none before the first, or after it was refused. */
  #token
  #expires = null
  #refused = false
  #subscriptions = new Map()
  #services = new Map()
  #lastId = 0
  /** Callbacks for the answers, by the id of the command. */
  #pending = new Map()
  /** Messages of the pending commands that wait for a connection, by id. */
  #waiting = new Map()
  /** Subscriptions and services to send: each with '' to begin it, or 'un' to end it. */
  #claims = new Map()
  /** By name. Those of commands are by number, and outlive a connection. */
  #timers = new Map()
  #listeners = { connecting: new Set(), open: new Set(), closed: new Set(), error: new Set() }

  constructor(url, options = {}) {
    this.#options = { ...defaults, ...options }
    if (!this.#options.WebSocket) {
      throw new TypeError('this platform has no WebSocket: pass one in options.WebSocket')
    }
    this.#url = new URL(url, globalThis.location?.href)
    this.#url.protocol = this.#url.protocol.replace('http', 'ws')
    this.#token = this.#options.token
    this.connect()
  }

  on(event, listener) {
    this.#listeners[event].add(listener)
    return () => this.#listeners[event].delete(listener)
  }

  subscribe(channel, onPublication, options = {}) {
    const { onState, onDropped, onPresence, position, meta, hidden } = options
    const { presence = onPresence && 'members' } = options
    if (this.#subscriptions.has(channel)) {
      throw new MurreError('already_subscribed', 'this channel is subscribed to already', { channel })
    }
    const unsubscribe = () => this.#end(one)
    const updateMeta = async (meta, options) => {
      one.meta = meta
      one.hidden = false
      await this.#ask({ action: 'presence_update', identifier: channel, meta }, options)
    }
    const hide = async (options) => {
      one.hidden = true
      await this.#ask({ action: 'presence_leave', identifier: channel }, options)
    }
    const callbacks = { onPublication, onState, onDropped, onPresence }
    const asked = { channel, position, presence, meta, hidden }
    const one = new Subscription({ ...asked, ...callbacks, unsubscribe, updateMeta, hide })
    this.#subscriptions.set(channel, one)
    this.#claim(one)
    return one
  }

  serve(service, handler, { onState } = {}) {
    if ((this.#services.get(service)?.state ?? 'ended') !== 'ended') {
      throw new MurreError('already_serving', 'this service is served already', { service })
    }
    const one = new Standing({ service, handler, onState, unserve: () => this.#end(one) })
    this.#services.set(service, one)
    this.#claim(one)
    return one
  }

  async publish(channel, data, options) {
    const command =
      data instanceof Uint8Array
        ? writeBinary(channel, data)
        : { action: 'publish', identifier: channel, data: data ?? null }
    const { position } = await this.#ask(command, options)
    return { position }
  }

  async history(channel, { limit = HISTORY_LIMIT, position, ...options } = {}) {
    const page = (limit, position) =>
      this.#ask({ action: 'history', identifier: channel, limit, position }, options)
    let answer = await page(limit, position)
    const { epoch, offset: head } = answer.position
    /** The publications after an offset; null if some of them are no longer kept. */
    const after = async (offset, limit) => {
      const { recovered, publications, more } = await page(limit, { epoch, offset })
      return recovered ? { publications, more } : null
    }
    // The newest publications do not fit one answer: read pages from the oldest of them on.
    if (!position && answer.more && answer.publications.length < limit) {
      const older = await after(Math.max(0, head - limit), limit)
      // Offsets may have gaps: fewer publications may follow.
      const isOlder = older?.publications[0]?.offset <= answer.publications[0]?.offset
      answer = isOlder ? older : { ...answer, more: false }
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

  async members(channel, { limit = MEMBERS_LIMIT, ...options } = {}) {
    const members = []
    let page = {}
    do {
      const command = { action: 'presence', identifier: channel, limit: Math.min(limit - members.length, MEMBERS_LIMIT) }
      page = await this.#ask({ ...command, from: page.next }, options)
      members.push(...page.members)
    } while (page.next !== undefined && members.length < limit)
    return { members, clients: page.clients, users: page.users }
  }

  async memberCount(channel, options) {
    const { clients, users } = await this.#ask({ action: 'presence_stats', identifier: channel }, options)
    return { clients, users }
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

  /** Authenticates this connection, and renews the token after nine tenths of its lifetime. */
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
    // Not positive if the clocks differ that much: then the server closes, and a new token is got.
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

  /** Handles the end of the connection. Reconnects, unless this is `final`. */
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

    // Reconnecting helps neither after an administrator's disconnect nor with a refused token.
    final ||= code === ENDED_BY_ADMIN || (this.#refused && !getToken)
    let retryIn = null
    if (final) {
      this.#attempts = 0
    } else {
      retryIn = random() * Math.min(backoffMax, backoffBase * 2 ** this.#attempts++)
      // The server is going away and has said after how many seconds to come back.
      const [, seconds] = (code === SERVICE_RESTART && RETRY.exec(reason)) || []
      if (seconds > 0) retryIn = Math.max(retryIn, (Number(seconds) + random()) * 1000)
      this.#after('retry', retryIn, () => this.connect())
    }
    for (const id of [...this.#pending.keys()]) {
      if (!this.#waiting.has(id)) {
        this.#settle(id, new MurreError('connection_lost', 'the connection ended before the answer'))
      } else if (final) {
        this.#settle(id, new MurreError('offline', 'the client was closed'))
      }
    }
    this.#emit('closed', { code, reason, retryIn })
    for (const one of interrupted) safely(one.onState, { state: 'pending' })
  }

  /** Sends a ping after a time of silence: browsers do not show the server's pings. */
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
      const { channel, offset, payload } = readBinary(data)
      return this.#subscriptions.get(channel)?.deliver(payload, offset)
    }
    const { identifier: channel, ...message } = JSON.parse(data)
    switch (message.type) {
      case 'publication':
        return this.#subscriptions.get(channel)?.deliver(message.data, message.offset)
      case 'dropped':
        return safely(this.#subscriptions.get(channel)?.onDropped, message.count)
      case 'presence_state':
      case 'presence_diff':
      case 'presence_count':
        return this.#subscriptions.get(channel)?.told(message)
      case 'request':
        return this.#reply(message)
      case 'error': {
        const { code, message: sentence, service } = message
        const error = new MurreError(code, sentence, { channel, service })
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
    // The id of a request holds for its connection only: on another it may name another request.
    const reply = (answer) =>
      link === this.#link && this.#send({ action: 'reply', request, ...answer })
    try {
      const { handler } = this.#services.get(service) ?? {}
      if (!handler) throw new Error('this service is not served any more')
      reply({ data: (await handler(data, { service })) ?? null })
    } catch (error) {
      reply({ error: String(error?.message ?? error) })
    }
  }

  #standing() {
    const services = [...this.#services.values()].filter((one) => one.state !== 'ended')
    return [...this.#subscriptions.values(), ...services]
  }

  /** Begins or ends a subscription or service. Those of one moment go into one batch. */
  #claim(one, undo = '') {
    if (this.state !== 'open') return
    this.#claims.set(one, undo)
    if (!this.#timers.has('claims')) this.#after('claims', 0, () => this.#sendClaims())
  }

  /** Sends the next batch of claims: at most `commandsPerSecond` at once and per second. */
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
      const { channel, position, presence, meta, hidden, service } = one
      return service === undefined
        ? { action: `${undo}subscribe`, identifier: channel, position, presence, meta, hidden, id }
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
    this.#subscriptions.delete(one.channel)
    // Requests still come until the server has handled `unserve`.
    if (error || unsent || this.state !== 'open') this.#forget(one)
    else this.#claim(one, 'un')
    one.become('ended', { error })
  }

  #forget(one) {
    if (this.#services.get(one.service) === one) this.#services.delete(one.service)
  }

  /** Resolves with the answer to a command. It is sent now, or with `offline: wait` once connected. */
  #ask(command, options = {}, ready = this.state === 'open') {
    const { offline = this.#options.offline, timeout = this.#options.timeout } = options
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId
      const bytes = command instanceof Uint8Array
      const message = bytes ? command : JSON.stringify({ ...command, id })
      this.#pending.set(id, (error, answer) => (error ? reject(error) : resolve(answer)))
      this.#after(id, timeout, () => this.#settle(id, new MurreError('timeout', 'there was no answer in time')))

      const hope = this.state === 'connecting' || this.#timers.has('retry')
      const room = this.#waiting.size < this.#options.waitingMax
      if (ready) this.#submit(id, message)
      else if (offline === 'wait' && hope && room) this.#waiting.set(id, message)
      else this.#settle(id, new MurreError('offline', 'there is no connection'))
    })
  }

  #submit(id, message) {
    // Keeps the order of the program: its earlier claims go first, unless there are too many at once.
    if (this.#claims.size < BATCH_MAX) this.#sendClaims()
    this.#waiting.delete(id)
    this.#link.socket.send(message)
    // A binary publication is answered only if it is refused, and then without an id.
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

  /** Calls `then` after `milliseconds`, unless the timer `name` is stopped or set again. */
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

/** A service. Also the base of a subscription: both are restored at each connect. */
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
  members = null
  count = null
  #began = false

  begin({ position, recovered = this.#began ? false : undefined }) {
    this.#began = true
    // If recovered, missed publications follow, and advance the position.
    if (!recovered) this.position = position
    this.become('active', { recovered })
  }

  deliver(data, offset) {
    // Before it is active, publications are for an earlier subscription that has ended.
    if (this.state !== 'active') return
    if (offset !== undefined && this.position) {
      if (offset <= this.position.offset) return
      this.position = { epoch: this.position.epoch, offset }
    }
    safely(this.onPublication, data, { channel: this.channel, offset })
  }

  /** Takes news of the channel's members. */
  told({ type, members, joins = [], leaves = [], clients, users }) {
    // As with publications: before it is active, they are for an earlier subscription.
    if (this.state !== 'active') return
    const before = this.members ?? new Map()
    if (type === 'presence_count') {
      this.members = null
      this.count = { clients, users }
    } else {
      if (type === 'presence_state') {
        const now = byConnection(members)
        const same = ({ connection, user, meta }) => {
          const known = before.get(connection)
          return known?.user === user && JSON.stringify(known.meta) === JSON.stringify(meta)
        }
        joins = members.filter((member) => !same(member))
        leaves = [...before.values()].filter(({ connection }) => !now.has(connection))
        this.members = now
      } else {
        const joined = byConnection(joins)
        // A member whose metadata have changed is in both lists.
        leaves = leaves.map(({ connection }) => before.get(connection))
        leaves = leaves.filter((member) => member && !joined.has(member.connection))
        this.members = new Map(before)
        for (const { connection } of leaves) this.members.delete(connection)
        for (const [connection, member] of joined) this.members.set(connection, member)
      }
      const names = new Set([...this.members.values()].map(({ user }) => user))
      this.count = { clients: this.members.size, users: names.size }
    }
    safely(this.onPresence, { members: this.members, joins, leaves, ...this.count })
  }
}

/** The members of a list by their connections. */
function byConnection(members) {
  return new Map(members.map((member) => [member.connection, member]))
}

/** Calls a callback of the program. Its exceptions are reported as uncaught, and do not harm the client. */
function safely(call, ...values) {
  try {
    call?.(...values)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

function writeBinary(channel, payload) {
  const name = new TextEncoder().encode(channel)
  if (name.length > 255) {
    throw new MurreError('bad_identifier', 'the name of the channel is too long', { channel })
  }
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
    channel: new TextDecoder().decode(new Uint8Array(buffer, 2, end - 2)),
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
/** The server's default `limit`. */
const HISTORY_LIMIT = 100
/** The most members of one answer. */
const MEMBERS_LIMIT = 1000
/** The longest delay of a browser's timer, in milliseconds. */
const TIMER_MAX = 2 ** 31 - 1
/** The close code that a browser reports for a connection that ended without one. */
const NO_CODE = 1006
const ENDED_BY_ADMIN = 4000
const SERVICE_RESTART = 1012
/** At most four digits: an hour is more than enough. */
const RETRY = /\bretry=(\d{1,4})$/
/** Errors after which a subscription or service is tried again. */
const LATER = new Set(['overloaded', 'too_fast', 'already_subscribed', 'already_serving'])
