// The quotes page: a channel for each symbol, and one for the sequence that everybody hears.

import { Murre } from '/demo/murre.js'

const names = {
  AAPL: 'Apple',
  MSFT: 'Microsoft',
  NVDA: 'NVIDIA',
  GOOG: 'Alphabet',
  AMZN: 'Amazon',
  META: 'Meta',
  TSLA: 'Tesla',
  NFLX: 'Netflix',
  ORCL: 'Oracle',
  IBM: 'IBM',
  INTC: 'Intel',
  AMD: 'AMD',
}
/** How many of these are subscribed to at first. */
const first = 8
/** Points of a trend: half a minute of them. */
const trendMax = 60

const element = (id) => document.getElementById(id)
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const price = new Intl.NumberFormat('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 })
const percent = new Intl.NumberFormat('en', {
  style: 'percent',
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
  signDisplay: 'exceptZero',
})
const still = matchMedia('(prefers-reduced-motion: reduce)')

const murre = new Murre('/ws')
/** By symbol, in the order of the table. */
const rows = new Map()

class Row {
  #last = {}
  #trend = []
  #cells = {}

  constructor(symbol) {
    const { content } = document.querySelector('template')
    this.element = content.cloneNode(true).querySelector('tr')
    this.element.dataset.symbol = symbol
    this.element.querySelector('b').textContent = symbol
    this.element.querySelector('small').textContent = names[symbol] ?? ''
    for (const cell of this.element.querySelectorAll('[data-of]')) {
      this.#cells[cell.dataset.of] = cell
    }
    const button = this.element.querySelector('button')
    button.ariaLabel = button.title = `Unsubscribe from ${symbol}`
    button.addEventListener('click', () => unsubscribe(symbol))

    this.subscription = murre.subscribe(`quotes:${symbol}`, (quote) => this.#show(quote), {
      onState: ({ error }) => error && refused(symbol, error),
    })
  }

  #show({ bid, ask, counter }) {
    count()
    this.#move('bid', bid)
    this.#move('ask', ask)
    this.#cells.spread.textContent = price.format(ask - bid)
    this.#cells.counter.textContent = whole.format(counter)
    this.element.querySelector('th').dataset.counter = whole.format(counter)

    this.#trend.push((bid + ask) / 2)
    if (this.#trend.length > trendMax) this.#trend.shift()
    const change = this.#trend.at(-1) / this.#trend[0] - 1
    const move = direction(Math.round(change * 10_000))
    this.#cells.change.textContent = percent.format(change)
    this.#cells.change.dataset.move = move
    draw(this.element.querySelector('svg'), this.#trend, move)
  }

  /** Shows a price, in green if it has risen and in red if it has fallen. */
  #move(of, value) {
    const cell = this.#cells[of]
    const move = direction(value - (this.#last[of] ?? value))
    this.#last[of] = value
    cell.textContent = price.format(value)
    if (move === 'none') return
    cell.dataset.move = move
    if (!still.matches) cell.animate({ backgroundColor: ['var(--flash)', 'transparent'] }, 700)
  }
}

function direction(difference) {
  if (difference === 0) return 'none'
  return difference > 0 ? 'rise' : 'fall'
}

function draw(svg, trend, move) {
  const { width, height } = svg.viewBox.baseVal
  const [low, high] = [Math.min(...trend), Math.max(...trend)]
  const x = (index) => width - ((trend.length - 1 - index) * width) / (trendMax - 1)
  const y = (value) => height - 4 - ((value - low) / (high - low || 1)) * (height - 8)
  const line = trend.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`)
  const [area, stroke, dot] = svg.children
  svg.dataset.move = move
  stroke.setAttribute('points', line.join(' '))
  area.setAttribute('points', [`${x(0)},${height}`, ...line, `${width},${height}`].join(' '))
  dot.setAttribute('cx', width)
  dot.setAttribute('cy', y(trend.at(-1)))
}

function subscribe(symbol) {
  element('problem').hidden = true
  if (!rows.has(symbol)) {
    const row = new Row(symbol)
    rows.set(symbol, row)
    document.querySelector('tbody').append(row.element)
    offer()
  }
  return rows.get(symbol)
}

function unsubscribe(symbol) {
  const row = rows.get(symbol)
  rows.delete(symbol)
  row.subscription.unsubscribe()
  row.element.remove()
  offer()
}

function refused(symbol, error) {
  unsubscribe(symbol)
  element('problem').textContent = `${symbol}: ${error.message}`
  element('problem').hidden = false
}

/** Offers what is not subscribed to. */
function offer() {
  const buttons = Object.keys(names)
    .filter((symbol) => !rows.has(symbol))
    .map((symbol) => {
      const button = document.createElement('button')
      button.type = 'button'
      button.textContent = symbol
      button.title = `Subscribe to ${names[symbol]}`
      button.addEventListener('click', () => subscribe(symbol))
      return button
    })
  element('offered').replaceChildren(...buttons)
  element('empty').hidden = rows.size > 0
}

document.querySelector('form').addEventListener('submit', (event) => {
  event.preventDefault()
  const input = element('symbol')
  const row = subscribe(input.value.toUpperCase())
  row.element.scrollIntoView({ block: 'nearest' })
  input.value = ''
})

// Messages, and how many of them come in a second. As they come in bursts, every half second, this
// is measured from the first message of one burst to that of another.

let messages = 0
let since = { messages: 0, time: performance.now() }

function count() {
  const time = performance.now()
  if (time - since.time >= 1_750) {
    element('rate').textContent = whole.format(
      (messages - since.messages) / ((time - since.time) / 1_000),
    )
    since = { messages, time }
  }
  messages++
  element('messages').textContent = whole.format(messages)
}

function silent() {
  element('rate').textContent = '0'
  since = { messages, time: performance.now() }
}

setInterval(() => performance.now() - since.time > 3_000 && silent(), 500)

// The connection, and when the next one is tried.

let reconnects = -1
let countdown

function show(state, text) {
  clearInterval(countdown)
  document.body.dataset.state = state
  element('state').textContent = text
  element('now').hidden = state !== 'closed'
}

murre.on('connecting', () => show('connecting', 'Connecting'))
murre.on('open', () => {
  show('open', 'Connected')
  element('reconnects').textContent = whole.format(++reconnects)
  silent()
})
murre.on('closed', ({ reason, retryIn }) => {
  show('closed', 'Disconnected')
  silent()
  if (retryIn === null) return (element('state').textContent = `Disconnected: ${reason}`)
  const due = performance.now() + retryIn
  const tick = () => {
    const left = Math.max(0, due - performance.now()) / 1_000
    element('state').textContent = `Retry in ${left.toFixed(1)} s`
  }
  tick()
  countdown = setInterval(tick, 100)
})
element('now').addEventListener('click', () => murre.connect())
addEventListener('online', () => murre.connect())

murre.subscribe('quotes:sequence', ({ sequence }) => {
  count()
  element('sequence').textContent = whole.format(sequence)
})
for (const symbol of Object.keys(names).slice(0, first)) subscribe(symbol)
