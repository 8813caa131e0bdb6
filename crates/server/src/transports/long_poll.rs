//! `murre.v1` by long polls: each request is a session, and its answer one slice of a channel.

use std::collections::HashMap;

use murre_codec::http::{Request, Response};
use murre_core::{CloseReason, ConnId, Origins, Outbox};
use murre_router::channels::{Direction, HistoryQuery, Position, Start};

use super::query::Query;
use super::{Cors, MURRE_POLL, Wires, end_refused, json_response, refusal, rejection};
use crate::hub::auth::User;
use crate::hub::output::DisconnectReason;
use crate::hub::{About, Command, Error, ErrorCode, Hub, Page, Push, Reply, RequestId, Session};
use crate::protocols::murre_v1::encode;
use crate::protocols::murre_v1::errors::{Code, WireError};

/// The polls that have not been answered, by slot.
#[derive(Default)]
pub(super) struct Polls {
    waiting: HashMap<u32, Poll>,
    /// Polls that have been answered, whose sessions are to be closed.
    answered: Vec<ConnId>,
}

/// A poll that has not been answered.
struct Poll {
    channel: Box<str>,
    /// What the client has seen of the channel, if it has said so.
    position: Option<Position>,
    cors: Cors,
}

/// Begins a poll: `/poll?topic=A&position=E-N`, as a user's or as nobody's in particular.
///
/// # Errors
/// The answer to a request that cannot be obeyed.
pub(crate) fn begin(
    conn: ConnId,
    request: &Request<'_, '_>,
    user: Option<User>,
    origins: &Origins,
    hub: &mut Hub,
    wires: &mut Wires<'_>,
) -> Result<(), Response> {
    let cors = Cors::of(request, origins).ok_or_else(Cors::refused)?;
    let query = Query::read(request).map_err(|why| rejection(why, &cors))?;
    let [channel] = &query.channels[..] else {
        let why = "a poll is of one channel: /poll?topic=A&position=E-N";
        return Err(rejection(WireError::new(Code::BadCommand, why), &cors));
    };
    hub.may_subscribe(channel, user.is_some()).map_err(|why| refusal(why, &cors))?;
    if !hub.keeps_history(channel) {
        let why = Error::from(ErrorCode::NoHistory).about(About::Channel(channel));
        return Err(refusal(why, &cors));
    }
    let session = Session { conn, wire: MURRE_POLL };
    hub.open(session, user);
    let position = query.position;
    let poll = Poll { channel: channel.as_str().into(), position, cors: cors.clone() };
    wires.transports.polls.waiting.insert(conn.index(), poll);
    let command = match query.position {
        Some(position) => Command::Await { channel, start: Start::After(position) },
        None => Command::History { channel, query: POSITION_ONLY },
    };
    if let Err(why) = hub.execute(session, RequestId::None, command, wires) {
        return Err(end_refused(conn, why, &cors, hub, wires));
    }
    hub.dispatch(wires);
    Ok(())
}

const POSITION_ONLY: HistoryQuery =
    HistoryQuery { start: Start::Head, limit: 0, bytes_max: 0, direction: Direction::Forward };

/// A poll has waited for as long as it may.
pub(crate) fn waited(conn: ConnId, wires: &mut Wires<'_>) {
    let Wires { out, transports } = wires;
    transports.polls.answer_with_nothing(conn, out);
}

impl Polls {
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.answered.len()
    }

    /// The next poll that has been answered.
    pub(super) fn answered(&mut self) -> Option<ConnId> {
        self.answered.pop()
    }

    /// The session is over.
    pub(super) fn forget(&mut self, slot: u32) {
        if self.waiting.remove(&slot).is_some() && self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
    }

    /// Answers with a page, or notes that there is nothing yet.
    pub(super) fn reply(&mut self, conn: ConnId, reply: Reply<'_>, out: &mut Outbox) {
        match reply {
            Reply::History { page, .. } => self.answer(conn, &page, out),
            Reply::Error(why) => self.refuse(conn, why, out),
            Reply::Subscribed { recovery: Some(recovery), .. } => {
                // Something was lost just now, or there is no time left to wait.
                if recovery.recovered == Some(false) {
                    let page = Page { recovered: Some(false), ..empty(recovery.position) };
                    self.answer(conn, &page, out);
                } else if out.is_draining() {
                    self.answer_with_nothing(conn, out);
                }
            }
            _ => unreachable!("a poll asks for nothing else"),
        }
    }

    /// Answers with the publication that the poll has waited for.
    pub(super) fn push(&mut self, conn: ConnId, push: Push<'_>, out: &mut Outbox) {
        if let Push::Publication { publication, .. } = push
            && let Some(position) = publication.position
        {
            let publications = std::slice::from_ref(publication);
            self.answer(conn, &Page { publications, ..empty(position) }, out);
        }
    }

    /// Answers with the reason why the session ends.
    pub(super) fn end(&mut self, conn: ConnId, reason: DisconnectReason, out: &mut Outbox) {
        match reason.error() {
            Some(code) => self.refuse(conn, code.into(), out),
            None => self.answer_with_nothing(conn, out),
        }
    }

    /// Answers that there is nothing new. A poll without a position waits for the current one, which
    /// its answer is to tell.
    fn answer_with_nothing(&mut self, conn: ConnId, out: &mut Outbox) {
        if let Some(position) = self.waiting.get(&conn.index()).and_then(|poll| poll.position) {
            self.answer(conn, &empty(position), out);
        }
    }

    fn answer(&mut self, conn: ConnId, page: &Page<'_>, out: &mut Outbox) {
        let Some(Poll { channel, cors, .. }) = self.take(conn) else { return };
        let mut body = Vec::new();
        encode::poll(&mut body, &channel, page);
        respond(conn, &json_response(200, body, &cors), out);
    }

    fn refuse(&mut self, conn: ConnId, why: Error<'_>, out: &mut Outbox) {
        if let Some(Poll { cors, .. }) = self.take(conn) {
            let response = refusal(why, &cors);
            respond(conn, &response, out);
            // A guess costs a connection, as for requests that are refused at once.
            if response.status == 401 {
                out.close(conn, CloseReason::Finished);
            }
        }
    }

    /// The poll, which is answered now; `None` if it has been.
    fn take(&mut self, conn: ConnId) -> Option<Poll> {
        let poll = self.waiting.remove(&conn.index())?;
        self.answered.push(conn);
        Some(poll)
    }
}

fn empty(position: Position) -> Page<'static> {
    Page { position, recovered: Some(true), publications: &[], more: false }
}

fn respond(conn: ConnId, response: &Response, out: &mut Outbox) {
    let keep_alive = !out.is_draining() && response.status != 401;
    // A client that is gone needs no answer.
    let _ = out.write_answer(conn, |bytes| response.write(bytes, false, keep_alive, 1, None));
}
