//! Transports: how the values of the hub reach a session's connection, and its bytes the hub.
//!
//! Each transport is a file: [`websocket`], [`sse`] and [`long_poll`]. A session's [`Wire`] says which
//! transport and protocol it has; a new protocol adds its own and its arms in [`Wires`].

mod cors;
mod event_id;
pub(crate) mod long_poll;
mod query;
pub(crate) mod sse;
mod token;
pub(crate) mod websocket;

use std::time::Instant;

use murre_codec::http::Response;
use murre_core::{ConnId, DateClock, Outbox};

use crate::hub::{Disconnect, Error, Hub, Outlet, Push, Reply, RequestId, Session, Wire};
use crate::log::connections as log;
use crate::protocols::murre_v1::encode;
use crate::protocols::murre_v1::errors::WireError;
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
/// A long poll that has not been answered.
pub(crate) const MURRE_POLL: Wire = Wire(4);
/// [`MURRE_EVENTS`] and [`MURRE_MIXED_EVENTS`] for clients of HTTP/1.0, which has no chunks.
pub(crate) const MURRE_PLAIN_EVENTS: Wire = Wire(5);
pub(crate) const MURRE_PLAIN_MIXED_EVENTS: Wire = Wire(6);

/// The transport of a session, and the form that it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    Events(Form),
    Poll,
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
            wire => unreachable!("no transport has {wire:?}"),
        }
    }
}

/// What the transports of a shard store of its sessions, beside what the hub does.
#[derive(Default)]
pub(crate) struct Transports {
    streams: Streams,
    polls: Polls,
    dates: DateClock,
    /// Sessions whose input may go on.
    resumed: Vec<ConnId>,
    /// What is being written. It keeps its memory from one value to the next.
    scratch: Vec<u8>,
}

impl Transports {
    /// The next session whose input may go on.
    pub(crate) fn resumed(&mut self) -> Option<ConnId> {
        self.resumed.pop()
    }

    /// The next poll that has been answered: its session is over.
    pub(crate) fn answered(&mut self) -> Option<ConnId> {
        self.polls.answered()
    }

    /// The connection ends with the answer to its poll.
    pub(crate) fn ends_with_answer(&mut self, conn: ConnId) {
        self.polls.ends_with_answer(conn);
    }

    /// A session is over.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.streams.forget(conn.index());
        self.polls.forget(conn.index());
    }

    /// Entries of streams of several channels and of polls; none are left when all have ended.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn entries(&self) -> usize {
        self.streams.len() + self.polls.len()
    }
}

/// The transports at work: they queue on the connections of the shard.
pub(crate) struct Wires<'a> {
    pub(crate) out: &'a mut Outbox,
    pub(crate) transports: &'a mut Transports,
}

impl Wires<'_> {
    /// A session whose answer is not at its end has waited for another ping interval.
    pub(crate) fn waited(&mut self, session: Session) {
        let Wires { out, transports: Transports { polls, dates, .. } } = self;
        match Transport::of(session) {
            Transport::WebSocket => {}
            Transport::Events(form) => sse::keep_alive(session.conn, form.framing, out),
            Transport::Poll => polls.waited(session.conn, dates, out),
        }
    }
}

/// A text written into memory that is used again.
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

    fn is_open(&self, conn: ConnId) -> bool {
        self.out.is_open(conn)
    }

    fn address(&self, conn: ConnId) -> Option<u32> {
        self.out.address(conn)
    }

    fn congested(&self, conn: ConnId) -> bool {
        self.out.congested(conn)
    }

    fn queued(&self, conn: ConnId) -> u32 {
        self.out.queued(conn)
    }

    fn reply(&mut self, session: Session, request: &RequestId, reply: Reply<'_>) {
        let Wires { out, transports: Transports { streams, polls, dates, scratch, .. } } = self;
        let conn = session.conn;
        match Transport::of(session) {
            Transport::WebSocket => websocket::reply(conn, request, reply, scratch, out),
            Transport::Events(form) => streams.reply(conn, form, reply, scratch, out),
            Transport::Poll => polls.reply(conn, reply, dates, out),
        }
    }

    fn push(&mut self, session: Session, push: Push<'_>) {
        let Wires { out, transports: Transports { streams, polls, dates, scratch, .. } } = self;
        let conn = session.conn;
        match Transport::of(session) {
            Transport::WebSocket => websocket::push(conn, push, scratch, out),
            Transport::Events(form) => streams.push(conn, form, push, out),
            Transport::Poll => polls.push(conn, push, dates, out),
        }
    }

    fn end(&mut self, session: Session, disconnect: Disconnect) {
        let Wires { out, transports: Transports { streams, polls, dates, scratch, .. } } = self;
        let conn = session.conn;
        log::session_ended(conn, disconnect.reason, out);
        match Transport::of(session) {
            Transport::WebSocket => websocket::end(conn, disconnect.reason, scratch, out),
            Transport::Events(form) => streams.end(conn, form, disconnect.reason, out),
            Transport::Poll => polls.end(conn, disconnect.reason, dates, out),
        }
    }

    fn resume(&mut self, session: Session) {
        self.transports.resumed.push(session.conn);
    }
}

/// The answer to a request that is refused, where there is no WebSocket or stream to say it on.
pub(crate) fn refusal(why: Error<'_>, cors: &Cors) -> Response {
    rejection(why.into(), cors)
}

/// Ends a session whose first command is refused. Returns the answer to its request.
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
        // RFC 9110 section 11.6.1: a 401 names a scheme; of what it refuses, RFC 6750 section 3.1.
        401 => response.with("WWW-Authenticate", "Bearer error=\"invalid_token\""),
        _ => response,
    };
    cors.add_to(response.with("Cache-Control", "no-store"))
}
