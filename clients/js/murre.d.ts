/** A connection to a Murre server that is made again when it is lost. */
export class Murre {
  /**
   * Connects at once. `url` is the server's `/ws`: `ws:`, `wss:`, `http:`, `https:` or, in a
   * browser, relative to the page.
   */
  constructor(url: string | URL, options?: MurreOptions)

  readonly state: ConnectionState

  /** Calls `listener` at each such event. Returns a function that ends this. */
  on<E extends keyof MurreEvents>(event: E, listener: (detail: MurreEvents[E]) => void): () => void

  /**
   * Subscribes to a channel, now and at each later connect, until it is unsubscribed. Throws if it
   * is subscribed to already.
   */
  subscribe<T = any>(
    identifier: string,
    onPublication?: (data: T, about: { identifier: string; offset: number | undefined }) => void,
    options?: SubscribeOptions,
  ): Subscription

  /**
   * Publishes a JSON value or, as they are, bytes. Resolves when the server has it; of bytes, which
   * are not answered, when they are sent: if they are refused, there is an `error` event.
   */
  publish(identifier: string, data: unknown, options?: CommandOptions): Promise<Published>

  /** The newest publications of a channel, or those after a position, oldest first. */
  history<T = any>(identifier: string, options?: HistoryOptions): Promise<History<T>>

  /** Asks one of those who serve `service`, and resolves with what it replies. */
  request<T = any>(service: string, data?: unknown, options?: CommandOptions): Promise<T>

  /**
   * Serves requests, now and after each later connect, until it is unserved. What `handler`
   * returns or resolves with is the reply; the requester hears the message of what it throws.
   */
  serve<T = any>(
    service: string,
    handler: (data: T, about: { service: string }) => unknown,
    options?: ServeOptions,
  ): Service

  /** Shows another token: now, or at the next connect if there is no connection. */
  authenticate(token: string): Promise<void>

  /** Connects now: instead of at the end of a delay, or again after the end. */
  connect(): void

  /** Ends the connection. What is subscribed to and served waits for a `connect`. */
  close(): void
}

/** Why something was refused or came to nothing. */
export class MurreError extends Error {
  constructor(code: string, message: string, about?: { identifier?: string; service?: string })
  /**
   * One of the protocol's, or `offline` (not sent: there is no connection), `connection_lost`
   * (sent, but the connection ended before the answer: it may have had its effect), `timeout`.
   */
  readonly code: string
  readonly identifier?: string | undefined
  readonly service?: string | undefined
}

export type ConnectionState = 'connecting' | 'open' | 'closed'

export interface MurreEvents {
  /** An attempt begins; `attempt` counts those since a connection was stable. */
  connecting: { attempt: number }
  /** The connection is there, authenticated, and all that waited has been sent. */
  open: void
  /** With the close code, 1006 if there was none. No `retryIn`: it stays closed until `connect`. */
  closed: { code: number; reason: string; retryIn: number | null }
  /** An error that is about no promise and no subscription. */
  error: Error
}

export interface MurreOptions {
  /** Shown at each connect, until the server refuses it. */
  token?: string
  /** Asked for a token when there is none, or it has expired or soon will, or was refused. */
  getToken?: () => string | null | undefined | Promise<string | null | undefined>
  /** Where the platform has none: in Node 20, that of the package `ws`. */
  WebSocket?: new (url: string, protocol: string) => any
  /** What a command does without a connection: wait for one until its timeout, or fail at once. */
  offline?: 'wait' | 'reject'
  /** Milliseconds in which a command must have its answer. 10,000 */
  timeout?: number
  /** How many commands may wait for a connection. 100 */
  waitingMax?: number
  /**
   * How many subscriptions and services are asked for or given up at once and in a second; the
   * rest follows. At most what the server takes of all commands. 100
   */
  commandsPerSecond?: number
  /** Milliseconds in which a connection must be there. 10,000 */
  connectTimeout?: number
  /** Milliseconds of silence after which the server is asked for a sign of life. 15,000 */
  pingInterval?: number
  /** Milliseconds in which it must give one. 10,000 */
  pongTimeout?: number
  /**
   * The n-th attempt (from 0) comes after 0 to min(`backoffMax`, `backoffBase` * 2^n) ms, or later
   * if the server has said so. 500
   */
  backoffBase?: number
  /** 30,000 */
  backoffMax?: number
  /** Milliseconds after which a connection is stable: the delays begin anew. 10,000 */
  stableAfter?: number
  /** From 0 to less than 1: where in its range a delay is. For tests. */
  random?: () => number
  /** For tests. */
  clock?: {
    now(): number
    setTimeout(then: () => void, milliseconds: number): any
    clearTimeout(timer: any): void
  }
}

/** Where a reader of a channel with history stands. */
export interface Position {
  epoch: number
  offset: number
}

/**
 * `pending`: asked for, or waiting for a connection. `active`: in effect. `ended`: by this side, or
 * because the server refused it.
 */
export type StandingState = 'pending' | 'active' | 'ended'

export interface SubscriptionChange {
  state: StandingState
  /**
   * When it becomes active again, or for the first time with a position: whether every publication
   * that was missed follows. If not, get the state from elsewhere.
   */
  recovered?: boolean | undefined
  /** Why the server refused it. */
  error?: MurreError | undefined
}

export interface SubscribeOptions {
  onState?: (change: SubscriptionChange) => void
  /** So many publications are missing here because this connection reads too slowly. */
  onDropped?: (count: number) => void
  /** Where an earlier reader stood: what came after that is delivered first. */
  position?: Position | undefined
}

export interface Subscription {
  readonly identifier: string
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

export interface Published {
  /** In a channel with history. */
  position?: Position | undefined
}

export interface History<T> {
  /** Of the newest publication. */
  position: Position
  publications: { offset: number; data: T }[]
}
