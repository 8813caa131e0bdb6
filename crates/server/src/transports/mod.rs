//! Transports, which carry the values of the hub to the connection of a session, and its bytes to
//! the hub.
//!
//! Each transport is one file: [`websocket`], [`sse`] and [`long_poll`]; those of Phoenix are in
//! [`phoenix`]. The [`Wire`] of a session
//! names its transport and protocol. A new protocol adds its wires here and its match arms in
//! [`Wires`].

mod cors;
mod event_id;
pub(crate) mod long_poll;
mod next_turn;
pub(crate) mod phoenix;
mod query;
pub(crate) mod sse;
mod token;
pub(crate) mod websocket;

use std::sync::Arc;
use std::time::Instant;

use murre_codec::http::{Request, Response};
use murre_core::{ConnId, DateClock, Outbox};
use murre_router::Shard;

use self::phoenix::{Carrier, Phoenix};
use crate::hub::{
    Disconnect, Error, Hub, HubConfig, HubCounters, Outlet, Push, Reply, RequestId, Session, Wire,
};
use crate::log::connections as log;
use crate::protocols::murre_v1::encode;
use crate::protocols::murre_v1::errors::WireError;
use crate::protocols::phoenix::Dialect;
use long_poll::Polls;
use sse::{Form, Framing, Of, Streams};

pub(crate) use cors::Cors;
pub(crate) use token::token;

/// `murre.v1` over WebSocket.
pub(crate) const MURRE_WEBSOCKET: Wire = Wire(1);
/// `murre.v1` in Server-Sent Events of one channel.
pub(crate) const MURRE_EVENTS: Wire = Wire(2);
/// `murre.v1` in Server-Sent Events of several channels.
pub(crate) const MURRE_MIXED_EVENTS: Wire = Wire(3);
/// `murre.v1` over a long poll.
pub(crate) const MURRE_POLL: Wire = Wire::ONE_REQUEST;
/// [`MURRE_EVENTS`] for clients of HTTP/1.0, which has no chunks.
pub(crate) const MURRE_PLAIN_EVENTS: Wire = Wire(5);
/// [`MURRE_MIXED_EVENTS`] for clients of HTTP/1.0.
pub(crate) const MURRE_PLAIN_MIXED_EVENTS: Wire = Wire(6);

/// Phoenix Channels, version 1, over WebSocket.
pub(crate) const PHOENIX_V1_WEBSOCKET: Wire = Wire(7);
/// Phoenix Channels, version 2, over WebSocket.
pub(crate) const PHOENIX_V2_WEBSOCKET: Wire = Wire(8);
/// Phoenix Channels, version 1, over long polls.
pub(crate) const PHOENIX_V1_POLL: Wire = Wire(9);
/// Phoenix Channels, version 2, over long polls.
pub(crate) const PHOENIX_V2_POLL: Wire = Wire(10);
/// The same with the additions of Supabase, version 1.
pub(crate) const SUPABASE_V1_WEBSOCKET: Wire = Wire(16);
/// The same with the additions of Supabase, version 2.
pub(crate) const SUPABASE_V2_WEBSOCKET: Wire = Wire(17);

/// The transport of a session, with the form of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Events(Form),
    Poll,
    Phoenix(Dialect),
    PhoenixPoll(Dialect),
}

impl Transport {
    fn of(session: Session) -> Self {
        let events = |of, framing| Transport::Events(Form { of, framing });
        match session.wire {
            MURRE_WEBSOCKET => Transport::WebSocket,
            MURRE_EVENTS => events(Of::One, Framing::Chunks),
            MURRE_MIXED_EVENTS => events(Of::Several, Framing::Chunks),
            MURRE_PLAIN_EVENTS => events(Of::One, Framing::Plain),
            MURRE_PLAIN_MIXED_EVENTS => events(Of::Several, Framing::Plain),
            MURRE_POLL => Transport::Poll,
            PHOENIX_V1_WEBSOCKET => Transport::Phoenix(Dialect::V1),
            PHOENIX_V2_WEBSOCKET => Transport::Phoenix(Dialect::V2),
            PHOENIX_V1_POLL => Transport::PhoenixPoll(Dialect::V1),
            PHOENIX_V2_POLL => Transport::PhoenixPoll(Dialect::V2Text),
            SUPABASE_V1_WEBSOCKET => Transport::Phoenix(Dialect::SupabaseV1),
            SUPABASE_V2_WEBSOCKET => Transport::Phoenix(Dialect::SupabaseV2),
            wire => unreachable!("no transport has {wire:?}"),
        }
    }
}

/// The state of the transports of a shard, in addition to the state of the hub.
pub(crate) struct Transports {
    streams: Streams,
    polls: Polls,
    pub(crate) phoenix: Phoenix,
    dates: DateClock,
    /// Sessions that may handle further input.
    resumed: Vec<ConnId>,
    /// A buffer for the text that is being written. It is reused for each value.
    scratch: Vec<u8>,
}

impl Transports {
    /// No sessions, on `shard`, whose hub has these counters.
    pub(crate) fn new(shard: Shard, config: &HubConfig, counters: Arc<HubCounters>) -> Self {
        Transports {
            streams: Streams::default(),
            polls: Polls::default(),
            phoenix: Phoenix::new(shard, config, counters),
            dates: DateClock::default(),
            resumed: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes the next session that may handle further input.
    pub(crate) fn resumed(&mut self) -> Option<ConnId> {
        self.resumed.pop()
    }

    /// Takes the next poll that has been answered. Its session must be closed.
    pub(crate) fn answered(&mut self) -> Option<ConnId> {
        self.polls.answered()
    }

    /// Makes the connection end after the answer to its poll.
    pub(crate) fn ends_with_answer(&mut self, conn: ConnId) {
        self.polls.ends_with_answer(conn);
        self.phoenix.requests.ends_with_answer(conn);
    }

    /// Removes the state of a session that has ended.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.streams.forget(conn.index());
        self.polls.forget(conn.index());
        self.phoenix.forget(conn.index());
    }

    /// The number of entries of polls, of streams of several channels and of Phoenix sessions; 0 when all
    /// have ended.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn entries(&self) -> usize {
        self.streams.len() + self.polls.len() + self.phoenix.len()
    }
}

/// The transports of a shard together with the outbox, in which they queue bytes for connections.
pub(crate) struct Wires<'a> {
    pub(crate) out: &'a mut Outbox,
    pub(crate) transports: &'a mut Transports,
}

impl Wires<'_> {
    /// Handles a stream or poll that has waited for another ping interval.
    pub(crate) fn waited(&mut self, session: Session) {
        let Wires { out, transports: Transports { polls, dates, .. } } = self;
        match Transport::of(session) {
            Transport::WebSocket | Transport::Phoenix(_) | Transport::PhoenixPoll(_) => {}
            Transport::Events(form) => sse::keep_alive(session.conn, form.framing, out),
            Transport::Poll => polls.waited(session.conn, dates, out),
        }
    }

    /// Resumes the input of a session, which was held.
    fn release(&mut self, conn: ConnId) {
        self.out.release(conn);
        self.transports.phoenix.polls.resume(conn);
    }
}

/// The text that `write` writes into a reused buffer.
fn written(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
    scratch.clear();
    scratch.shrink_to(SCRATCH_BYTES);
    write(scratch);
    scratch
}

const SCRATCH_BYTES: usize = 64 * 1024;

impl Outlet for Wires<'_> {
    fn now(&self) -> Instant {
        self.out.now()
    }

    fn at(&self, slot: u32) -> Option<ConnId> {
        self.out.at(slot)
    }

    fn transport(&self, session: Session) -> (&'static str, &'static str) {
        match Transport::of(session) {
            Transport::WebSocket => ("websocket", "murre.v1"),
            Transport::Events(_) => ("sse", "murre.v1"),
            Transport::Poll => ("long_poll", "murre.v1"),
            Transport::Phoenix(_) => ("websocket", "phoenix"),
            Transport::PhoenixPoll(_) => ("long_poll", "phoenix"),
        }
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.out.is_open(conn) || self.transports.phoenix.polls.is_open(conn)
    }

    fn address(&self, conn: ConnId) -> Option<u32> {
        self.out.address(conn)
    }

    fn congested(&self, conn: ConnId) -> bool {
        let polls = &self.transports.phoenix.polls;
        // Only a session that polls has no open connection.
        self.out.congested(conn)
            || !polls.is_empty() && !self.out.is_open(conn) && polls.congested(conn)
    }

    fn queued(&self, conn: ConnId) -> u32 {
        self.out.queued(conn).saturating_add(self.transports.phoenix.polls.queued(conn))
    }

    fn reply(&mut self, session: Session, request: &RequestId, reply: Reply<'_>) {
        let Wires { out, transports } = self;
        let Transports { streams, polls, phoenix, dates, scratch, resumed } = &mut **transports;
        let conn = session.conn;
        match Transport::of(session) {
            Transport::WebSocket => websocket::reply(conn, request, reply, scratch, out),
            Transport::Events(form) => streams.reply(conn, form, reply, scratch, out),
            Transport::Poll => polls.reply(conn, reply, dates, out),
            Transport::Phoenix(dialect) => {
                let carrier = &mut Carrier::WebSocket(out);
                if phoenix::reply(conn, dialect, request, reply, scratch, carrier) {
                    resumed.push(conn);
                }
            }
            Transport::PhoenixPoll(dialect) => {
                let carrier = &mut Carrier::Poll(&mut phoenix.polls);
                if phoenix::reply(conn, dialect, request, reply, scratch, carrier) {
                    resumed.push(conn);
                }
            }
        }
    }

    fn push(&mut self, session: Session, push: Push<'_>) {
        let Wires { out, transports } = self;
        let Transports { streams, polls, phoenix, dates, scratch, .. } = &mut **transports;
        let conn = session.conn;
        match Transport::of(session) {
            Transport::WebSocket => websocket::push(conn, push, scratch, out),
            Transport::Events(form) => streams.push(conn, form, push, out),
            Transport::Poll => polls.push(conn, push, dates, out),
            Transport::Phoenix(dialect) => {
                let carrier = &mut Carrier::WebSocket(out);
                phoenix::push(conn, dialect, push, &phoenix.joins, scratch, carrier);
            }
            Transport::PhoenixPoll(dialect) => {
                let carrier = &mut Carrier::Poll(&mut phoenix.polls);
                phoenix::push(conn, dialect, push, &phoenix.joins, scratch, carrier);
            }
        }
    }

    fn end(&mut self, session: Session, disconnect: Disconnect<'_>) {
        let Wires { out, transports } = self;
        let Transports { streams, polls, phoenix, dates, scratch, .. } = &mut **transports;
        let conn = session.conn;
        log::session_ended(conn, disconnect.reason, out);
        match Transport::of(session) {
            Transport::WebSocket => websocket::end(conn, disconnect, scratch, out),
            Transport::Events(form) => streams.end(conn, form, disconnect, out),
            Transport::Poll => polls.end(conn, disconnect, dates, out),
            Transport::Phoenix(_) => phoenix::end(conn, disconnect, out),
            Transport::PhoenixPoll(_) => phoenix.polls.end(conn),
        }
    }

    fn resume(&mut self, session: Session) {
        self.transports.resumed.push(session.conn);
    }
}

/// The channels of a request for a stream or a poll; none if they cannot be read.
pub(crate) fn channels_of(request: &Request<'_, '_>) -> Vec<String> {
    query::Query::read(request).map(|query| query.channels).unwrap_or_default()
}

/// The answer to a refused request, before a WebSocket or a stream has begun.
pub(crate) fn refusal(why: Error<'_>, cors: &Cors) -> Response {
    rejection(why.into(), cors)
}

/// Ends a session whose first command was refused. Returns the answer to its request.
fn end_refused(
    conn: ConnId,
    why: Error<'_>,
    cors: &Cors,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Response {
    let answer = refusal(why, cors);
    wires.transports.forget(conn);
    hub.close(conn, wires);
    answer
}

fn rejection(why: WireError<'_>, cors: &Cors) -> Response {
    let mut body = Vec::new();
    encode::error(&mut body, &RequestId::None, why);
    json_response(why.code.status(), body, cors)
}

/// An answer in JSON.
fn json_response(status: u16, body: Vec<u8>, cors: &Cors) -> Response {
    let response = Response { content_type: "application/json", ..Response::text(status, body) };
    let response = match status {
        // A 401 must name a scheme (RFC 9110 section 11.6.1) and the reason (RFC 6750 section 3.1).
        401 => response.with("WWW-Authenticate", "Bearer error=\"invalid_token\""),
        _ => response,
    };
    cors.add_to(response.with("Cache-Control", "no-store"))
}
