//! `murre.v1` over long polls: each request is a session, and its answer is one slice of a channel.

use std::collections::HashMap;

use murre_codec::http::{Length, Request, Response, ResponseOptions};
use murre_core::{CloseReason, ConnId, DateClock, Origins, Outbox};
use murre_router::channels::{Position, Start};

use super::query::Query;
use super::{Cors, MURRE_POLL, Wires, end_refused, json_response, refusal, rejection};
use crate::hub::auth::User;
use crate::hub::{
    About, Command, Disconnect, Error, ErrorCode, Hub, Page, Push, Reply, RequestId, Session,
};
use crate::protocols::murre_v1::encode;
use crate::protocols::murre_v1::errors::{Code, WireError};

/// The polls of a shard that have not been answered, by slot.
#[derive(Default)]
pub(super) struct Polls {
    waiting: HashMap<u32, Poll>,
    /// Polls that have been answered, whose sessions must be closed.
    answered: Vec<ConnId>,
}

/// A poll that has not been answered.
struct Poll {
    channel: Box<str>,
    /// The position up to which the client has seen the channel; `None` if the request has no
    /// position.
    position: Option<Position>,
    cors: Cors,
    /// Whether the connection stays open for another request.
    keep_alive: bool,
    /// The minor HTTP version of the request: 0 for HTTP/1.0, 1 for HTTP/1.1.
    minor_version: u8,
}

/// Begins a poll, `/poll?topic=A&position=E-N`, for a user or for an anonymous client.
///
/// # Errors
/// The answer to a request that is refused.
pub(crate) fn begin(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Option<User>,
    origins: &Origins,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Result<(), Response> {
    let (channel, position, cors) = asked(conn, request, user.as_ref(), origins, hub)?;
    let session = Session { conn, wire: MURRE_POLL };
    hub.open(session, user);
    if let Err(code) = hub.admit_request(session, wires) {
        return Err(end_refused(conn, code.into(), &cors, hub, wires));
    }
    let poll = Poll {
        channel: channel.as_str().into(),
        position,
        cors: cors.clone(),
        keep_alive: request.keep_alive,
        minor_version: request.minor_version,
    };
    wires.transports.polls.waiting.insert(conn.index(), poll);
    let start = position.map_or(Start::Head, Start::After);
    let command = Command::Await { channel: &channel, start };
    if let Err(why) = hub.execute(session, RequestId::None, command, wires) {
        return Err(end_refused(conn, why, &cors, hub, wires));
    }
    hub.dispatch(wires);
    Ok(())
}

/// The answer to HEAD: the status of GET at once, without the fields that depend on a wait.
pub(crate) fn answer_to_head(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Option<&User>,
    origins: &Origins,
    hub: &Hub,
) -> Response {
    let asked = asked(conn, request, user, origins, hub);
    asked.map_or_else(
        |refusal| refusal,
        |(_, _, cors)| Response { length: Length::Untold, ..json_response(200, Vec::new(), &cors) },
    )
}

/// The channel of a poll, and the position behind which it waits.
///
/// # Errors
/// The answer to a request that is malformed or not allowed.
fn asked(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Option<&User>,
    origins: &Origins,
    hub: &Hub,
) -> Result<(String, Option<Position>, Cors), Response> {
    let cors = Cors::of(request, origins).ok_or_else(Cors::refused)?;
    let Query { mut channels, position, .. } =
        Query::read(request).map_err(|why| rejection(why, &cors))?;
    let (Some(channel), true) = (channels.pop(), channels.is_empty()) else {
        let why = "a poll is of one channel: /poll?topic=A&position=E-N";
        return Err(rejection(WireError::new(Code::BadCommand, why), &cors));
    };
    hub.may_subscribe(conn, &channel, user).map_err(|why| refusal(why, &cors))?;
    if !hub.keeps_history(&channel) {
        let why = Error::from(ErrorCode::NoHistory).about(About::Channel(&channel));
        return Err(refusal(why, &cors));
    }
    Ok((channel, position, cors))
}

impl Polls {
    /// The number of stored polls, waiting or answered.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.answered.len()
    }

    /// Answers a poll that has waited for the longest time.
    pub(super) fn waited(&mut self, conn: ConnId, dates: &mut DateClock, out: &mut Outbox) {
        self.answer_with_nothing(conn, dates, out);
    }

    /// Makes the connection end after the answer.
    pub(super) fn ends_with_answer(&mut self, conn: ConnId) {
        if let Some(poll) = self.waiting.get_mut(&conn.index()) {
            poll.keep_alive = false;
        }
    }

    /// Takes the next poll that has been answered.
    pub(super) fn answered(&mut self) -> Option<ConnId> {
        self.answered.pop()
    }

    /// Removes the poll of a session that has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        if self.waiting.remove(&slot).is_some() && self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
    }

    /// Handles a reply of the hub: answers the poll, or lets it wait if there is no publication
    /// yet.
    pub(super) fn reply(
        &mut self,
        conn: ConnId,
        reply: Reply<'_>,
        dates: &mut DateClock,
        out: &mut Outbox,
    ) {
        match reply {
            Reply::History { page, .. } => self.answer(conn, &page, dates, out),
            Reply::Error(why) => self.refuse(conn, why, dates, out),
            Reply::Subscribed { recovery: Some(recovery), .. } => {
                // The poll is answered now if publications were lost, or if the server drains and
                // it cannot wait.
                if recovery.recovered == Some(false) {
                    let page = Page { recovered: Some(false), ..empty(recovery.position) };
                    self.answer(conn, &page, dates, out);
                } else if out.is_draining() {
                    self.answer_with_nothing(conn, dates, out);
                }
            }
            _ => unreachable!("a poll asks for nothing else"),
        }
    }

    /// Answers a poll with the publication for which it has waited.
    pub(super) fn push(
        &mut self,
        conn: ConnId,
        push: Push<'_>,
        dates: &mut DateClock,
        out: &mut Outbox,
    ) {
        match push {
            Push::Publication { publication, .. } => {
                if let Some(position) = publication.position {
                    let publications = std::slice::from_ref(publication);
                    self.answer(conn, &Page { publications, ..empty(position) }, dates, out);
                }
            }
            Push::Unsubscribed { channel, why } => {
                self.refuse(conn, why.about(About::Channel(channel)), dates, out);
            }
            // A poll watches nobody, and is not greeted.
            Push::Dropped { .. }
            | Push::Request { .. }
            | Push::Presence { .. }
            | Push::Connected { .. } => {}
        }
    }

    /// Answers a poll with the reason why its session ends.
    pub(super) fn end(
        &mut self,
        conn: ConnId,
        disconnect: Disconnect<'_>,
        dates: &mut DateClock,
        out: &mut Outbox,
    ) {
        match disconnect.error() {
            Some(error) => self.refuse(conn, error, dates, out),
            None => self.answer_with_nothing(conn, dates, out),
        }
    }

    /// Answers that there is no new publication. A poll without a position is not answered here,
    /// because its answer must have the current position, for which it waits.
    fn answer_with_nothing(&mut self, conn: ConnId, dates: &mut DateClock, out: &mut Outbox) {
        if let Some(position) = self.waiting.get(&conn.index()).and_then(|poll| poll.position) {
            self.answer(conn, &empty(position), dates, out);
        }
    }

    fn answer(&mut self, conn: ConnId, page: &Page<'_>, dates: &mut DateClock, out: &mut Outbox) {
        let Some(poll) = self.take(conn) else { return };
        let mut body = Vec::new();
        encode::poll(&mut body, &poll.channel, page);
        poll.respond(conn, &json_response(200, body, &poll.cors), dates, out);
    }

    fn refuse(&mut self, conn: ConnId, why: Error<'_>, dates: &mut DateClock, out: &mut Outbox) {
        if let Some(poll) = self.take(conn) {
            let response = refusal(why, &poll.cors);
            poll.respond(conn, &response, dates, out);
            // A bad token ends the connection, as for requests that are refused at once, so each
            // guess of a token costs a connection.
            if response.status == 401 {
                out.close(conn, CloseReason::Finished);
            }
        }
    }

    /// Takes a poll for its answer; `None` if it has been answered already.
    fn take(&mut self, conn: ConnId) -> Option<Poll> {
        let poll = self.waiting.remove(&conn.index())?;
        self.answered.push(conn);
        Some(poll)
    }
}

fn empty(position: Position) -> Page<'static> {
    Page { position, recovered: Some(true), publications: &[], more: false }
}

impl Poll {
    fn respond(&self, conn: ConnId, response: &Response, dates: &mut DateClock, out: &mut Outbox) {
        let keep_alive = self.keep_alive && !out.is_draining() && response.status != 401;
        let options = ResponseOptions {
            to_head: false,
            keep_alive,
            minor_version: self.minor_version,
            date: Some(dates.date(out.now())),
        };
        // A client that has closed needs no answer.
        let _ = out.write_answer(conn, |bytes| response.write(bytes, &options));
    }
}
