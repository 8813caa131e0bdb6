// What the types let through, and what they do not: checked by types.test.mjs, never run.

import { Murre, MurreError, type Position, type Subscription } from 'murre-client'

interface Quote {
  symbol: string
  bid: number
}

const client = new Murre(new URL('wss://example.org/ws'), {
  getToken: async () => (await fetch('/token')).text(),
  offline: 'reject',
})
const off: () => void = client.on('closed', ({ code, reason, retryIn }) => {
  const text: string = `${code.toFixed()} ${reason.trim()}`
  // @ts-expect-error: without another attempt there is no time of it
  retryIn.toFixed()
  return text
})
const subscription: Subscription = client.subscribe<Quote>(
  'quotes:AAPL',
  ({ symbol, bid }, { offset }) => `${symbol.trim()} ${bid.toFixed(2)} ${offset?.toFixed()}`,
  { onState: ({ state, recovered, error }) => state === 'active' && recovered === !error?.code },
)
const position: Position | undefined = subscription.position
const half: number = (await client.request<{ half: number }>('halve', 4, { timeout: 100 })).half
const published: Position | undefined = (await client.publish('a', new Uint8Array(1))).position
const bids: number[] = (await client.history<Quote>('a')).publications.map(({ data }) => data.bid)
client.serve<number>('double', (number, { service }) => `${service.trim()} ${number * 2}`).unserve()
const error: string = new MurreError('timeout', 'no answer').code

const room = client.subscribe<Quote, { typing: boolean }>('room:a', undefined, {
  meta: { typing: false },
  onPresence: ({ members, joins, clients }) =>
    `${members?.get('0-1-2')?.user.trim()} ${joins[0]?.meta?.typing} ${clients.toFixed()}`,
})
const typing: boolean | undefined = [...(room.members?.values() ?? [])][0]?.meta?.typing
const updated: Promise<void> = room.updateMeta({ typing: true })
const users: number = (await client.memberCount('room:a')).users
// @ts-expect-error: it says something else of itself
room.updateMeta({ asleep: true })
// @ts-expect-error: these are told by the server
room.members?.clear()
// @ts-expect-error: no such event
client.on('closing', () => {})
// @ts-expect-error: said by the server, not by the program
subscription.state = 'active'
// @ts-expect-error: what a command does without a connection is one of two things
client.publish('a', 1, { offline: 'perhaps' })
// @ts-expect-error: where there is no offset there is no position
client.history('a', { position: { epoch: 1 } })

export { bids, error, half, off, position, published, typing, updated, users }
