// The chat page: a room is a topic with history and presence, and a second topic says who is typing.

const { Socket, Presence } = globalThis.Phoenix

/** The rooms that are always listed. */
const rooms = ['lobby', 'birds', 'io_uring']
/** Messages of a room that a page shows at first. */
const shown = 50
/** How long a sign of typing counts, and how often one is sent, in milliseconds. */
const typingLasts = 4_000
const typingEvery = 2_000

const element = (id) => document.getElementById(id)
const clock = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })

/** Sixteen random hexadecimal digits. */
const random = () =>
  [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, '0')).join('')

/** The stored text under `key`, which is `make()` at first; a browser may refuse to store anything. */
function stored(key, make) {
  try {
    return localStorage.getItem(key) || (localStorage.setItem(key, make()), localStorage.getItem(key))
  } catch {
    return make()
  }
}

const me = {
  key: stored('murre-chat-key', random),
  name: stored('murre-chat-name', () => `Guest ${100 + Math.floor(Math.random() * 900)}`),
}

const text = (value, most) => String(value ?? '').slice(0, most)

// The connection.

let countdown
const socket = new Socket('/demo/socket', {
  longPollFallbackMs: 2_500,
  // Clients that have lost a server do not come back all at once.
  reconnectAfterMs: (tries) => {
    const wait = Math.min(5_000, 250 * 2 ** tries) * (0.5 + Math.random() / 2)
    wait > 500 && retry(performance.now() + wait)
    return wait
  },
  rejoinAfterMs: (tries) => Math.min(5_000, 500 * tries),
})

function show(state, words) {
  clearTimeout(countdown)
  document.body.dataset.state = state
  element('state').textContent = words
}

function retry(due) {
  const tick = () => {
    const left = Math.max(0, due - performance.now()) / 1_000
    show('closed', `Retry in ${left.toFixed(1)} s`)
    countdown = setTimeout(tick, 100)
  }
  tick()
}

socket.onOpen(() => show('open', 'Connected'))
socket.onClose(() => show('closed', 'Disconnected'))

// A room.

class Room {
  #messages = new Map()
  #typing = new Map()
  #typed = -Infinity
  /** The position up to which the page has seen the room: each publication is one offset. */
  #position = null
  #left = false
  #channel
  #presence
  /** The topic that says who is typing. */
  #signs

  constructor(name) {
    this.name = name
    element('room').textContent = `# ${name}`
    element('messages').replaceChildren()
    this.#join()
    this.#signs = socket.channel(`demo-typing:${name}`, {})
    this.#signs.on('typing', (sign) => this.#sign(sign))
    this.#signs.join()
    this.#showPeople([])
    this.#showTyping()
  }

  /** Joins the topic. A join behind a position recovers what the page has missed. */
  #join() {
    const params = () => ({
      ...(this.#position && { position: this.#position }),
      presence: { name: me.name },
      presence_key: me.key,
    })
    const channel = socket.channel(`demo-chat:${this.name}`, params)
    this.#channel = channel
    const counted = (show) => (payload) => {
      if (this.#channel !== channel) return
      if (this.#position) this.#position.offset++
      show(payload)
    }
    channel.on('message', counted((message) => this.#receive(message)))
    this.#presence = new Presence(channel)
    this.#presence.onSync(() => this.#channel === channel && this.#showPeople(this.#presence.list(
      (key, { metas }) => ({ key, name: text(metas.at(-1)?.name, 24) || 'Somebody', tabs: metas.length }),
    )))
    channel
      .join()
      .receive('ok', (response) => this.#joined(channel, response))
      .receive('error', ({ reason }) => this.#notice(`The room cannot be joined: ${reason}`))
  }

  #joined(channel, { position, recovered }) {
    if (this.#channel !== channel) return
    if (recovered === true) return
    if (this.#messages.size > 0) this.#notice('Messages may be missing here.')
    const { epoch, offset } = position
    const isNew = this.#position?.epoch !== epoch
    this.#position = { epoch, offset }
    if (isNew && offset > 0) {
      // The page is new, or the server is: a second join asks for the newest messages.
      this.#position.offset = Math.max(0, offset - shown)
      channel.leave()
      this.#join()
    }
  }

  #receive({ id, key, name, text: words, at }) {
    if (this.#left) return
    const message = {
      id: text(id, 40), key: text(key, 40), name: text(name, 24) || 'Somebody',
      words: text(words, 1_000), at: Number(at) || 0,
    }
    this.#typing.delete(message.key)
    this.#showTyping()
    const known = this.#messages.get(message.id)
    if (known) return this.#state(known, 'sent')
    this.#state(this.#add(message), 'sent')
  }

  /** Sends a message, and shows it until the server has sent it back. */
  say(words) {
    const message = { id: random(), key: me.key, name: me.name, words, at: Date.now() }
    this.#send(message, this.#add(message))
    this.#typed = -Infinity
    this.#signs.push('typing', { key: me.key, name: me.name, on: false })
  }

  #send(message, item) {
    this.#state(item, 'pending')
    const { words, ...rest } = message
    const failed = () => this.#messages.get(message.id) === item && this.#state(item, 'failed')
    this.#channel
      .push('message', { ...rest, text: words })
      .receive('ok', () => this.#state(item, 'sent'))
      .receive('error', failed)
      .receive('timeout', failed)
    item.querySelector('button').onclick = () => this.#send(message, item)
  }

  #add({ id, key, name, words, at }) {
    const list = element('messages')
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80
    const item = element('message').content.cloneNode(true).querySelector('li')
    face(item.querySelector('.face'), key, name)
    item.querySelector('b').textContent = name
    item.querySelector('p').textContent = words
    const time = item.querySelector('time')
    if (at > 0 && at < 8.64e15) {
      time.dateTime = new Date(at).toISOString()
      time.textContent = clock.format(at)
    }
    this.#messages.set(id, item)
    list.append(item)
    if (this.#messages.size > 500) {
      const [oldest, first] = this.#messages.entries().next().value
      first.remove()
      this.#messages.delete(oldest)
    }
    if (atEnd || key === me.key) list.scrollTop = list.scrollHeight
    return item
  }

  #state(item, state) {
    item.toggleAttribute('data-pending', state !== 'sent')
    item.toggleAttribute('data-failed', state === 'failed')
    item.querySelector('button').hidden = state !== 'failed'
  }

  #notice(words) {
    const item = document.createElement('li')
    item.className = 'notice'
    item.textContent = words
    element('messages').append(item)
  }

  // Who is here, and who is typing.

  /** Tells the others the new name of the user. */
  track() {
    this.#channel.push('track', { name: me.name })
  }

  #showPeople(people) {
    element('count').textContent = people.length
    people.sort((one, other) => one.name.localeCompare(other.name))
    element('people').replaceChildren(...people.map(({ key, name, tabs }) => {
      const item = element('person').content.cloneNode(true).querySelector('li')
      face(item.querySelector('.face'), key, name)
      const label = item.querySelector('.name')
      label.textContent = name
      if (tabs > 1) label.dataset.tabs = tabs
      if (key === me.key) label.dataset.self = ''
      return item
    }))
  }

  /** The user has changed the text of a message. */
  typed() {
    if (performance.now() - this.#typed < typingEvery) return
    this.#typed = performance.now()
    this.#signs.push('typing', { key: me.key, name: me.name, on: true })
  }

  #sign({ key, name, on }) {
    clearTimeout(this.#typing.get(key)?.timer)
    this.#typing.delete(key)
    if (on && key !== me.key) {
      const timer = setTimeout(() => this.#typing.delete(key) && this.#showTyping(), typingLasts)
      this.#typing.set(key, { name: text(name, 24) || 'Somebody', timer })
    }
    this.#showTyping()
  }

  #showTyping() {
    if (this.#left) return
    const names = [...this.#typing.values()].map(({ name }) => name)
    const who = names.length > 3 ? 'Several people' : names.join(names.length > 2 ? ', ' : ' and ')
    element('typing').textContent = names.length ? `${who} ${names.length > 1 ? 'are' : 'is'} typing …` : ''
  }

  leave() {
    this.#left = true
    for (const { timer } of this.#typing.values()) clearTimeout(timer)
    this.#channel.leave()
    this.#signs.leave()
  }
}

/** Fills the circle of a person: the first letter, on a colour that follows from the key. */
function face(circle, key, name) {
  let hue = 0
  for (const character of key) hue = (hue * 31 + character.codePointAt(0)) % 360
  circle.style.setProperty('--hue', hue)
  circle.textContent = [...name][0].toUpperCase()
}

// Rooms are in the address, so that links and the browser's history work.

let room

function open() {
  const asked = location.hash.slice(1)
  const name = /^[\w-]{1,30}$/.test(asked) ? asked : rooms[0]
  if (room?.name === name) return
  room?.leave()
  room = new Room(name)
  document.title = `# ${name} · Murre`
  if (!rooms.includes(name)) rooms.push(name)
  element('rooms').replaceChildren(...rooms.map((each) => {
    const item = document.createElement('li')
    const button = document.createElement('button')
    button.textContent = each
    if (each === name) button.ariaCurrent = 'page'
    button.addEventListener('click', () => (location.hash = each))
    item.append(button)
    return item
  }))
}

addEventListener('hashchange', open)
element('other').addEventListener('submit', (event) => {
  event.preventDefault()
  location.hash = event.target.room.value.toLowerCase()
  event.target.reset()
})

element('composer').addEventListener('submit', (event) => {
  event.preventDefault()
  const words = element('text').value.trim()
  if (words) room.say(words)
  element('text').value = ''
  element('text').focus()
})
element('text').addEventListener('input', ({ target }) => target.value && room.typed())
element('name').value = me.name
element('name').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter') return
  event.preventDefault()
  element('text').focus()
})
element('name').addEventListener('change', ({ target }) => {
  me.name = target.value.trim() || me.name
  target.value = me.name
  try {
    localStorage.setItem('murre-chat-name', me.name)
  } catch {
    // The name lasts as long as the page.
  }
  room.track()
})

socket.connect()
open()
