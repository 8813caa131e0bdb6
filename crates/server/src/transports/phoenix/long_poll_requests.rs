//! The requests of long polls that wait for their answers, and the mail between the shard of a request and
//! the shard of its session.

use std::collections::{HashMap, VecDeque};

use murre_codec::http::{Request, ResponseOptions};
use murre_core::{ConnId, DateClock, Outbox};
use murre_router::Shard;

use super::super::Transports;
use super::Phoenix;
use super::long_poll::response;
use super::long_poll_body::PostBody;
use super::long_poll_sessions::UNAVAILABLE;
use super::long_poll_token::PollToken;

/// The requests of a shard's connections, and the mail for other shards.
pub(crate) struct PollRequests {
    shard: Shard,
    /// By slot of their connections.
    waiting: HashMap<u32, Waiting>,
    /// How many there have been.
    count: u32,
    mails: VecDeque<(Shard, PollMail)>,
    /// Bytes of messages in `mails`.
    bytes: usize,
}

/// Bytes of messages of clients that wait for shards whose mailboxes are full.
const BYTES_MAX: usize = 64 << 20;

/// A request that waits for its answer.
#[derive(Clone, Copy)]
struct Waiting {
    asker: Asker,
    token: PollToken,
    is_get: bool,
    keep_alive: bool,
    minor_version: u8,
}

/// One request of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    shard: Shard,
    conn: ConnId,
    number: u32,
}

/// Mail between the shards of connections and of sessions.
#[derive(Debug)]
pub(crate) enum PollMail {
    Ask(Ask),
    /// The answer to a request.
    Answer {
        asker: Asker,
        body: Vec<u8>,
    },
}

/// A request for a session.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(super) asker: Asker,
    pub(super) token: PollToken,
    pub(super) asked: Asked,
}

#[derive(Debug)]
pub(crate) enum Asked {
    /// Messages for the client, when there are some.
    Get,
    /// Messages of the client.
    Post(PostBody),
    /// The connection of a GET has closed: messages wait for the next one.
    Gone,
}

impl PollMail {
    /// The bytes of a client's messages in it.
    fn bytes(&self) -> usize {
        match self {
            PollMail::Ask(Ask { asked: Asked::Post(body), .. }) => body.bytes(),
            PollMail::Ask(_) | PollMail::Answer { .. } => 0,
        }
    }
}

impl PollRequests {
    pub(super) fn new(shard: Shard) -> Self {
        PollRequests { shard, waiting: HashMap::new(), count: 0, mails: VecDeque::new(), bytes: 0 }
    }

    /// Whether a POST with so many bytes may wait for the shard of its session.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= BYTES_MAX
    }

    /// Passes a request on to the shard of its session.
    pub(super) fn ask(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        token: PollToken,
        asked: Asked,
    ) {
        self.count = self.count.wrapping_add(1);
        let asker = Asker { shard: self.shard, conn, number: self.count };
        let waiting = Waiting {
            asker,
            token,
            is_get: matches!(asked, Asked::Get),
            keep_alive: request.keep_alive,
            minor_version: request.minor_version,
        };
        self.waiting.insert(conn.index(), waiting);
        self.push(token.shard, PollMail::Ask(Ask { asker, token, asked }));
    }

    /// Queues the answer to a request, which may be of another shard.
    pub(super) fn answer(&mut self, asker: Asker, body: Vec<u8>) {
        self.push(asker.shard, PollMail::Answer { asker, body });
    }

    /// Whether a request of this connection waits.
    pub(crate) fn waits(&self, conn: ConnId) -> bool {
        self.waiting.get(&conn.index()).is_some_and(|waiting| waiting.asker.conn == conn)
    }

    /// Makes the connection end after the answer.
    pub(crate) fn ends_with_answer(&mut self, conn: ConnId) {
        if let Some(waiting) = self.waiting.get_mut(&conn.index()) {
            waiting.keep_alive = false;
        }
    }

    /// Writes the answer to a request, if it still waits.
    pub(super) fn respond(
        &mut self,
        asker: Asker,
        body: Vec<u8>,
        dates: &mut DateClock,
        out: &mut Outbox,
    ) {
        let slot = asker.conn.index();
        if self.waiting.get(&slot).is_none_or(|waiting| waiting.asker != asker) {
            return;
        }
        let Some(waiting) = self.remove(slot) else { return };
        let options = ResponseOptions {
            to_head: false,
            keep_alive: waiting.keep_alive && !out.is_draining(),
            minor_version: waiting.minor_version,
            date: Some(dates.date(out.now())),
        };
        let response = response(body);
        // A client that has closed needs no answer.
        let _ = out.write_answer(asker.conn, |bytes| response.write(bytes, &options));
    }

    /// The connection of a request has closed. The session is told, if it was a GET.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        if self.waits(conn)
            && let Some(waiting) = self.remove(conn.index())
        {
            self.withdraw(&waiting);
        }
    }

    /// The connection of a request drains: its client is told to begin a session elsewhere. A POST is
    /// answered when its messages have been handled.
    pub(super) fn leave(&mut self, conn: ConnId, dates: &mut DateClock, out: &mut Outbox) {
        let Some(waiting) = self.waiting.get_mut(&conn.index()) else { return };
        waiting.keep_alive = false;
        if waiting.asker.conn == conn && waiting.is_get {
            let withdrawn = *waiting;
            self.respond(withdrawn.asker, UNAVAILABLE.to_vec(), dates, out);
            self.withdraw(&withdrawn);
        }
    }

    fn withdraw(&mut self, &Waiting { asker, token, is_get, .. }: &Waiting) {
        if is_get {
            let gone = Ask { asker, token, asked: Asked::Gone };
            self.push(token.shard, PollMail::Ask(gone));
        }
    }

    fn remove(&mut self, slot: u32) -> Option<Waiting> {
        let waiting = self.waiting.remove(&slot);
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        waiting
    }

    /// The shard of these requests.
    pub(crate) fn shard(&self) -> Shard {
        self.shard
    }

    /// Takes the next mail, and the shard that it is for: another one or this one.
    pub(crate) fn take_mail(&mut self) -> Option<(Shard, PollMail)> {
        let (to, mail) = self.mails.pop_front()?;
        self.bytes = self.bytes.saturating_sub(mail.bytes());
        if self.mails.is_empty() {
            self.mails.shrink_to_fit();
        }
        Some((to, mail))
    }

    /// Takes mail back that could not be posted.
    pub(crate) fn put_back(&mut self, to: Shard, mail: PollMail) {
        self.push(to, mail);
    }

    fn push(&mut self, to: Shard, mail: PollMail) {
        self.bytes = self.bytes.saturating_add(mail.bytes());
        self.mails.push_back((to, mail));
    }

    /// The number of mails that wait.
    pub(crate) fn mails(&self) -> usize {
        self.mails.len()
    }

    /// The number of stored entries.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.mails.len()
    }
}

impl Phoenix {
    /// Passes the answers of this shard's sessions on to the shards of their requests.
    pub(crate) fn pass_answers(&mut self) {
        while let Some((asker, body)) = self.polls.take_answer() {
            self.requests.answer(asker, body);
        }
    }
}

impl Transports {
    /// Handles mail for this shard.
    pub(crate) fn poll_mail(&mut self, mail: PollMail, out: &mut Outbox) {
        let Transports { phoenix, dates, .. } = self;
        match mail {
            PollMail::Ask(ask) => phoenix.polls.ask(ask, out.now()),
            PollMail::Answer { asker, body } => phoenix.requests.respond(asker, body, dates, out),
        }
    }

    /// The connection of a request that waits drains.
    pub(crate) fn poll_leaves(&mut self, conn: ConnId, out: &mut Outbox) {
        let Transports { phoenix, dates, .. } = self;
        phoenix.requests.leave(conn, dates, out);
    }
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    /// POSTs that wait for a shard with a full mailbox are bounded by their bytes, whether or not their
    /// connections are still there.
    #[test]
    fn posts_that_wait_have_a_bound() {
        let text = "x".repeat(1000);
        let head = "POST /longpoll HTTP/1.1\r\nHost: m\r\nContent-Length: 1000\r\n\r\n";
        let bytes = format!("{head}{text}");
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        let decoded = decoder
            .decode(bytes.as_bytes(), &mut fields, &RequestLimits::default())
            .expect("right");
        let Progress::Request(request) = decoded else { panic!("it is whole") };
        let mut requests = PollRequests::new(0);
        let token = PollToken { shard: 1, slot: 0, proof: 0 };
        let conn: ConnId = "5-7".parse().expect("an id");
        let body = PostBody::read(&request).expect("a message");
        requests.ask(conn, &request, token, Asked::Post(body));
        requests.ask(conn, &request, token, Asked::Get);
        requests.forget(conn);
        let left = BYTES_MAX - 1000;
        assert!(requests.has_room(left) && !requests.has_room(left + 1));
        let (to, mail) = requests.take_mail().expect("the POST");
        assert!(requests.has_room(BYTES_MAX));
        requests.put_back(to, mail);
        assert!(!requests.has_room(left + 1));
        while requests.take_mail().is_some() {}
        assert!(requests.has_room(BYTES_MAX) && requests.len() == 0);
    }
}
