/** A client that keeps one connection to a Murre server and reconnects when it is lost. */
export class Murre {
  /**
   * Connects at once. `url` is the server's `/ws`: `ws:`, `wss:`, `http:`, `https:` or, in a
   * browser, relative to the page.
   */
  constructor(url: string | URL, options?: MurreOptions)

  readonly state: ConnectionState

  /** Calls `listener` at each event of this kind. Returns a function that removes the listener. */
  on<E extends keyof MurreEvents>(event: E, listener: (detail: MurreEvents[E]) => void): () => void

  /**
   * Subscribes to a channel, now and at each later connect, until `unsubscribe`. Throws if the
   * channel is subscribed to already.
   */
  subscribe<T = any, M = any>(
    channel: string,
    onPublication?: (data: T, about: { channel: string; offset: number | undefined }) => void,
    options?: SubscribeOptions<M>,
  ): Subscription<M>

  /**
   * Publishes a JSON value, or the bytes of a Uint8Array. A value resolves when the server has it.
   * Bytes resolve when they are sent, because the server does not answer them: if it refuses them,
   * there is an `error` event.
   */
  publish(channel: string, data: unknown, options?: CommandOptions): Promise<Published>

  /** The newest publications of a channel, or those after a position, oldest first. */
  history<T = any>(channel: string, options?: HistoryOptions): Promise<History<T>>

  /** The members of a channel, in no order, and how many there are. */
  members<M = any>(channel: string, options?: MembersOptions): Promise<Members<M>>

  /** How many members a channel has. */
  memberCount(channel: string, options?: CommandOptions): Promise<MemberCount>

  /** Sends a request to one client that serves `service`, and resolves with its reply. */
  request<T = any>(service: string, data?: unknown, options?: CommandOptions): Promise<T>

  /**
   * Serves requests, now and after each later connect, until `unserve`. What `handler` returns or
   * resolves with is the reply. If it throws, the requester gets `responder_failed` with the message.
   */
  serve<T = any>(
    service: string,
    handler: (data: T, about: { service: string }) => unknown,
    options?: ServeOptions,
  ): Service

  /** Authenticates with another token: now, or at the next connect if there is no connection. */
  authenticate(token: string): Promise<void>

  /** Connects now: before the delay of a reconnect is over, or after `close`. */
  connect(): void

  /** Ends the connection. Subscriptions and services are kept for the next `connect`. */
  close(): void
}

/** Why a command failed. */
export class MurreError extends Error {
  constructor(code: string, message: string, about?: { channel?: string; service?: string })
  /**
   * A code of the protocol, or `offline` (not sent: there is no connection), `connection_lost`
   * (sent, but the connection ended before the answer: it may have had its effect), `timeout`.
   */
  readonly code: string
  readonly channel?: string | undefined
  readonly service?: string | undefined
}

export type ConnectionState = 'connecting' | 'open' | 'closed'

export interface MurreEvents {
  /** An attempt begins; `attempt` counts those since a connection was stable. */
  connecting: { attempt: number }
  /** The connection is open and authenticated, and all waiting commands have been sent. */
  open: void
  /** `code` is 1006 without a close code. `retryIn` is in ms; null: closed until `connect`. */
  closed: { code: number; reason: string; retryIn: number | null }
  /** An error that belongs to no promise and no subscription. */
  error: Error
}

export interface MurreOptions {
  /** The token for each connect, until the server refuses it. */
  token?: string
  /** Called for a token when there is none, when it expires soon, and when it was refused. */
  getToken?: () => string | null | undefined | Promise<string | null | undefined>
  /** Needed where the platform has no WebSocket: in Node 20, the one of the package `ws`. */
  WebSocket?: new (url: string, protocol: string) => any
  /** Without a connection a command waits for one until its timeout, or fails at once. `wait` */
  offline?: 'wait' | 'reject'
  /** Milliseconds in which a command must have its answer. 10,000 */
  timeout?: number
  /** How many commands may wait for a connection. 100 */
  waitingMax?: number
  /**
   * Subscriptions and services that are begun or ended at once and per second; the rest follows.
   * At most the server's `max-commands-per-second`. 100
   */
  commandsPerSecond?: number
  /** Milliseconds in which a connection must open. 10,000 */
  connectTimeout?: number
  /** Milliseconds of silence after which the client pings the server. 15,000 */
  pingInterval?: number
  /** Milliseconds in which the server must answer the ping. 10,000 */
  pongTimeout?: number
  /**
   * The n-th attempt (from 0) follows after a random time of up to
   * min(`backoffMax`, `backoffBase` * 2^n) ms, or later if the server asks for it. 500
   */
  backoffBase?: number
  /** 30,000 */
  backoffMax?: number
  /** Milliseconds after which a connection counts as stable: n is 0 again. 10,000 */
  stableAfter?: number
  /** Returns a number from 0 to less than 1, for delays. For tests. */
  random?: () => number
  /** For tests. */
  clock?: {
    now(): number
    setTimeout(then: () => void, milliseconds: number): any
    clearTimeout(timer: any): void
  }
}

/** A place in a channel with history: the last publication seen. */
export interface Position {
  epoch: number
  offset: number
}

/**
 * `pending`: sent, or waiting for a connection. `active`: in effect. `ended`: by the program, or
 * refused by the server.
 */
export type StandingState = 'pending' | 'active' | 'ended'

export interface SubscriptionChange {
  state: StandingState
  /**
   * Set when it becomes active again, or for the first time with a position: whether all missed
   * publications follow. If false, get the state from elsewhere.
   */
  recovered?: boolean | undefined
  /** Why the server refused it. */
  error?: MurreError | undefined
}

export interface SubscribeOptions<M = any> {
  onState?: (change: SubscriptionChange) => void
  /** `count` publications are missing here, because this connection reads too slowly. */
  onDropped?: (count: number) => void
  /** The position of an earlier subscription: publications after it are delivered first. */
  position?: Position | undefined
  /** What this client says of itself to the channel's other members: any JSON. */
  meta?: M | undefined
  /** Whether it is no member until `updateMeta`. false */
  hidden?: boolean | undefined
  /** What it is told of them. With `onPresence`, `members` */
  presence?: 'members' | 'counts' | undefined
  /**
   * The members have changed. After a reconnect it is called with what has changed meanwhile. `members` is
   * null where only counts are told: if that was asked for, or there are too many members.
   */
  onPresence?: (change: PresenceChange<M>) => void
}

/** One connection of a user in a channel. */
export interface ChannelMember<M = any> {
  user: string
  connection: string
  meta: M | null
}

export interface MemberCount {
  /** Connections. */
  clients: number
  /** Different users. */
  users: number
}

export interface PresenceChange<M = any> extends MemberCount {
  /** All members, by their connections. */
  members: ReadonlyMap<string, ChannelMember<M>> | null
  /** Members that have come, or have other metadata. */
  joins: ChannelMember<M>[]
  /** Members that have gone. */
  leaves: ChannelMember<M>[]
}

export interface Subscription<M = any> {
  readonly channel: string
  /** The channel's members as they were told last; null before that, and where only counts are told. */
  readonly members: ReadonlyMap<string, ChannelMember<M>> | null
  /** How many there are, if that was told. */
  readonly count: MemberCount | null
  /** Replaces what this client says of itself, now and at each later connect. */
  updateMeta(meta: M | undefined, options?: CommandOptions): Promise<void>
  /** Leaves the members and stays subscribed, now and at each later connect, until `updateMeta`. */
  hide(options?: CommandOptions): Promise<void>
  readonly state: StandingState
  /** Of the last publication delivered, in a channel with history. */
  readonly position?: Position | undefined
  unsubscribe(): void
}

export interface ServeOptions {
  onState?: (change: { state: StandingState; error?: MurreError | undefined }) => void
}

export interface Service {
  readonly service: string
  readonly state: StandingState
  unserve(): void
}

export interface CommandOptions {
  offline?: 'wait' | 'reject'
  timeout?: number
}

export interface HistoryOptions extends CommandOptions {
  /** 0 to 1,000. 100 */
  limit?: number
  /** The publications after it, as far as they are kept; without it, the newest. */
  position?: Position | undefined
}

export interface MembersOptions extends CommandOptions {
  /** How many members at most. 1,000 */
  limit?: number
}

export interface Members<M = any> extends MemberCount {
  members: ChannelMember<M>[]
}

export interface Published {
  /** In a channel with history. */
  position?: Position | undefined
}

export interface History<T> {
  /** Of the newest publication. */
  position: Position
  publications: { offset: number; data: T }[]
}
