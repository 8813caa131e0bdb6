//! Sessions of Phoenix clients that poll (`lib/phoenix/transports/long_poll_server.ex`).
//!
//! A session outlives its requests: a GET takes the messages that are queued for it, and a POST brings
//! messages of the client. It has a slot of the shard as a connection has, but no socket. Its requests may
//! arrive on any shard, which passes them on ([`long_poll_requests`](super::long_poll_requests)):
//!
//! ```text
//!   shard of a connection                        shard of the session
//!   request ── Ask ────────────────────────────▶ messages of POSTs ──▶ incoming ──▶ Hub
//!   response ◀─────────────────────── Answer ─── queue ◀──────────── Reply, Push ◀───┘
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use murre_codec::Kind;
use murre_core::{ConnId, Outbox};
use murre_router::Shard;

use super::long_poll_body::PostBody;
use super::long_poll_requests::{Ask, Asked, Asker};
use super::long_poll_token::{PollToken, Proofs};
use crate::hub::output::DisconnectReason;
use crate::hub::{HubCounters, Session, Wire};

/// Bytes in the queue of a session from which on it is congested, as those of a connection.
const CONGESTED_BYTES: u32 = 64 << 10;
/// POSTs of one session that wait at a time. Clients before Phoenix 1.7 send each message by itself, at once.
const POSTS_MAX: usize = 256;

/// For POSTs: the session does not exist, or has ended. The client begins another one, and joins again.
pub(super) const GONE: &[u8] = br#"{"status":410,"token":null,"messages":[]}"#;
pub(super) const FORBIDDEN: &[u8] = br#"{"status":403,"token":null,"messages":[]}"#;
/// For GETs: the session does not exist, has ended, or cannot begin now. Every release of the client connects again after this, and
/// joins again; those before 1.8.2 do not join again after 410.
pub(super) const UNAVAILABLE: &[u8] = br#"{"status":500,"token":null,"messages":[]}"#;
const TAKEN: &[u8] = br#"{"status":200}"#;
/// For POSTs whose messages have not all been handled in time, or that have no room to wait.
pub(super) const LATE: &[u8] = br#"{"status":408}"#;

/// The long-poll sessions of a shard.
pub(crate) struct PollSessions {
    shard: Shard,
    limits: PollLimits,
    /// By slot.
    sessions: HashMap<u32, PollSession>,
    proofs: Proofs,
    /// The next deadline of each session.
    deadlines: BTreeSet<(Instant, u32)>,
    /// Sessions whose GET can perhaps be answered.
    ready: Vec<ConnId>,
    /// Sessions whose messages can perhaps be handled.
    resumed: Vec<ConnId>,
    /// Sessions whose queue a GET has taken.
    taken: Vec<ConnId>,
    /// Sessions that have ended, and must be closed, with the reason if it is of this file.
    ended: Vec<(ConnId, Option<DisconnectReason>)>,
    answers: VecDeque<(Asker, Vec<u8>)>,
    draining: bool,
    counters: Arc<HubCounters>,
}

/// The limits of the sessions of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollLimits {
    pub(super) sessions_max: u32,
    /// Bytes in the queue of a session.
    pub(super) queue_bytes_max: u32,
    /// The longest wait of a GET, and of a POST.
    pub(super) window: Duration,
}

struct PollSession {
    session: Session,
    proof: u128,
    queue: VecDeque<Bytes>,
    queued_bytes: u32,
    get: Option<Asker>,
    /// The end of the wait of `get`, or without one of the session.
    due: Instant,
    posts: VecDeque<Post>,
    /// The deadline in `PollSessions::deadlines`.
    deadline: Instant,
    has_ended: bool,
}

/// A POST that has not been answered, or whose time was over before all of its messages were handled.
struct Post {
    asker: Option<Asker>,
    body: PostBody,
    /// The bytes of the whole body, which the messages that have been taken are parts of.
    bytes: usize,
    due: Instant,
}

impl PollSession {
    fn is_open(&self, conn: ConnId) -> bool {
        self.session.conn == conn && !self.has_ended
    }

    fn token(&self, shard: Shard) -> PollToken {
        PollToken { shard, slot: self.session.conn.index(), proof: self.proof }
    }

    /// The first moment at which time alone changes something.
    fn next_deadline(&self) -> Instant {
        let posts = self.posts.iter().filter(|post| post.asker.is_some()).map(|post| post.due);
        posts.chain([self.due]).min().expect("one at least")
    }
}

impl PollSessions {
    /// No sessions, on `shard`.
    pub(super) fn new(shard: Shard, limits: PollLimits, counters: Arc<HubCounters>) -> Self {
        PollSessions {
            shard,
            limits,
            sessions: HashMap::new(),
            proofs: Proofs::default(),
            deadlines: BTreeSet::new(),
            ready: Vec::new(),
            resumed: Vec::new(),
            taken: Vec::new(),
            ended: Vec::new(),
            answers: VecDeque::new(),
            draining: false,
            counters,
        }
    }

    /// Begins a session for a request of `conn`. Returns it with its token, or `None` at a limit.
    pub(super) fn open(
        &mut self,
        conn: ConnId,
        wire: Wire,
        out: &mut Outbox,
    ) -> Option<(Session, PollToken)> {
        let has_room = self.sessions.len() < self.limits.sessions_max as usize;
        let Some(conn) = has_room.then(|| out.take_slot(conn)).flatten() else {
            self.counters.phoenix_polls_refused.add(1);
            return None;
        };
        let due = later(out.now(), self.idle());
        let there = PollSession {
            session: Session { conn, wire },
            proof: self.proofs.next(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            get: None,
            due,
            posts: VecDeque::new(),
            deadline: due,
            has_ended: false,
        };
        let opened = (there.session, there.token(self.shard));
        self.deadlines.insert((due, conn.index()));
        self.sessions.insert(conn.index(), there);
        self.counters.phoenix_polls.set(self.sessions.len() as u64);
        Some(opened)
    }

    /// The time without a GET after which a session ends: 1.5 windows, as in Phoenix.
    fn idle(&self) -> Duration {
        let window = self.limits.window;
        window.saturating_add(window.checked_div(2).unwrap_or_default())
    }

    /// The session, if it has not ended.
    fn get_mut(&mut self, conn: ConnId) -> Option<&mut PollSession> {
        self.sessions.get_mut(&conn.index()).filter(|there| there.is_open(conn))
    }

    fn get(&self, conn: ConnId) -> Option<&PollSession> {
        self.sessions.get(&conn.index()).filter(|there| there.is_open(conn))
    }

    /// Whether there is no session.
    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether this is a session that has not ended.
    pub(crate) fn is_open(&self, conn: ConnId) -> bool {
        self.get(conn).is_some()
    }

    pub(crate) fn congested(&self, conn: ConnId) -> bool {
        self.queued(conn) >= CONGESTED_BYTES.min(self.limits.queue_bytes_max)
    }

    /// Bytes that wait for the next GET.
    pub(crate) fn queued(&self, conn: ConnId) -> u32 {
        self.get(conn).map_or(0, |there| there.queued_bytes)
    }

    /// Queues a message for a session. Ends one that has not taken its messages for too long.
    pub(super) fn queue(&mut self, conn: ConnId, message: Bytes) {
        if self.queued(conn) > self.limits.queue_bytes_max {
            self.counters.disconnected.add(1);
            return self.end_for(conn, Some(DisconnectReason::Slow));
        }
        self.answer(conn, message);
    }

    /// Queues an answer to a message of the session, whose number its messages limit.
    pub(super) fn answer(&mut self, conn: ConnId, message: Bytes) {
        let Some(there) = self.get_mut(conn) else { return };
        let bytes = message.len() as u32;
        there.queued_bytes = there.queued_bytes.saturating_add(bytes);
        there.queue.push_back(message);
        if there.get.is_some() && there.queue.len() == 1 {
            self.ready.push(conn);
        }
        self.count_bytes(bytes, 0);
    }

    /// Ends a session: its requests are answered, and its messages are dropped.
    pub(crate) fn end(&mut self, conn: ConnId) {
        self.end_for(conn, None);
    }

    fn end_for(&mut self, conn: ConnId, why: Option<DisconnectReason>) {
        let Some(there) = self.get_mut(conn) else { return };
        there.has_ended = true;
        let (get, posts) = (there.get.take(), mem::take(&mut there.posts));
        self.answers.extend(get.map(|asker| (asker, UNAVAILABLE.to_vec())));
        let posts = posts.into_iter().filter_map(|post| post.asker);
        self.answers.extend(posts.map(|asker| (asker, GONE.to_vec())));
        self.ended.push((conn, why));
    }

    /// Takes the next session that has ended, and forgets it. Its slot must be freed. With it comes the
    /// reason, if nobody else knows it.
    pub(crate) fn take_ended(&mut self) -> Option<(ConnId, Option<DisconnectReason>)> {
        let (conn, why) = self.ended.pop()?;
        let there = self.sessions.remove(&conn.index()).expect("it is removed once");
        self.deadlines.remove(&(there.deadline, conn.index()));
        self.count_bytes(0, there.queued_bytes);
        self.counters.phoenix_polls.set(self.sessions.len() as u64);
        if self.sessions.is_empty() {
            self.sessions.shrink_to_fit();
        }
        Some((conn, why))
    }

    fn count_bytes(&self, queued: u32, taken: u32) {
        let bytes = &self.counters.phoenix_polls_bytes;
        bytes.set(bytes.get().saturating_add(queued.into()).saturating_sub(taken.into()));
    }

    /// The session of a token, if there is one.
    fn of(&self, token: PollToken) -> Option<ConnId> {
        let there = self.sessions.get(&token.slot)?;
        (there.proof == token.proof && !there.has_ended).then_some(there.session.conn)
    }

    /// Handles a request for a session of this shard, whose answer follows.
    pub(super) fn ask(&mut self, Ask { asker, token, asked }: Ask, now: Instant) {
        let PollLimits { queue_bytes_max, window, .. } = self.limits;
        let (shard, bytes_max) = (self.shard, queue_bytes_max as usize);
        let Some(there) = self.of(token).and_then(|conn| self.get_mut(conn)) else {
            return match asked {
                Asked::Gone => {}
                Asked::Get => self.answers.push_back((asker, UNAVAILABLE.to_vec())),
                Asked::Post(_) => self.answers.push_back((asker, GONE.to_vec())),
            };
        };
        let conn = there.session.conn;
        match asked {
            Asked::Get => {
                let token = there.token(shard);
                let before = there.get.replace(asker);
                self.answers.extend(before.map(|asker| (asker, nothing(token))));
                self.ready.push(conn);
                self.set_due(conn, later(now, self.limits.window));
            }
            Asked::Gone if there.get == Some(asker) => {
                there.get = None;
                self.rest(conn, now);
            }
            Asked::Gone => {}
            Asked::Post(body) => {
                let waiting: usize = there.posts.iter().map(|post| post.bytes).sum();
                if there.posts.len() >= POSTS_MAX || waiting > bytes_max {
                    self.answers.push_back((asker, LATE.to_vec()));
                    return;
                }
                let (bytes, due) = (body.bytes(), later(now, window));
                there.posts.push_back(Post { asker: Some(asker), body, bytes, due });
                self.resumed.push(conn);
                self.set_deadline(conn);
            }
        }
    }

    /// The session waits for its next GET.
    fn rest(&mut self, conn: ConnId, now: Instant) {
        // A client of a server that drains must not come back to it.
        let span = if self.draining { Duration::ZERO } else { self.idle() };
        self.set_due(conn, later(now, span));
    }

    fn set_due(&mut self, conn: ConnId, due: Instant) {
        if let Some(there) = self.get_mut(conn) {
            there.due = due;
            self.set_deadline(conn);
        }
    }

    fn set_deadline(&mut self, conn: ConnId) {
        let Some(there) = self.get_mut(conn) else { return };
        let after = there.next_deadline();
        let before = mem::replace(&mut there.deadline, after);
        self.deadlines.remove(&(before, conn.index()));
        self.deadlines.insert((after, conn.index()));
    }

    /// Takes the next session whose messages can perhaps be handled.
    pub(crate) fn take_resumed(&mut self) -> Option<ConnId> {
        self.resumed.pop()
    }

    /// The messages of a session may go on, after one of them has waited.
    pub(crate) fn resume(&mut self, conn: ConnId) {
        if self.is_open(conn) {
            self.resumed.push(conn);
        }
    }

    /// Takes the next message of a session, and answers the POSTs whose messages have all been handled.
    /// `None` without one, and while the client does not take the answers.
    pub(crate) fn take_message(&mut self, conn: ConnId) -> Option<(Session, Kind, Bytes)> {
        let is_congested = self.congested(conn);
        let PollSessions { sessions, answers, .. } = self;
        let there = sessions.get_mut(&conn.index()).filter(|there| there.is_open(conn))?;
        while let Some(post) = there.posts.front_mut() {
            if post.body.bytes() > 0 {
                let message = if is_congested { None } else { post.body.take() };
                return message.map(|(kind, bytes)| (there.session, kind, bytes));
            }
            answers.extend(post.asker.map(|asker| (asker, TAKEN.to_vec())));
            there.posts.pop_front();
        }
        there.posts.shrink_to_fit();
        self.set_deadline(conn);
        None
    }

    /// Answers the GETs for which there are messages, and the requests whose time is over, and ends
    /// sessions that have had no GET for too long.
    pub(crate) fn turn(&mut self, now: Instant, draining: bool) {
        if draining && !mem::replace(&mut self.draining, true) {
            let resting = self.sessions.values().filter(|there| there.get.is_none());
            let resting: Vec<_> = resting.map(|there| there.session.conn).collect();
            resting.into_iter().for_each(|conn| self.rest(conn, now));
        }
        for conn in mem::take(&mut self.ready) {
            self.deliver(conn, now);
        }
        while let Some(&(_, slot)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.expire(slot, now);
        }
    }

    /// Answers the requests of a session whose time is over, or ends it.
    fn expire(&mut self, slot: u32, now: Instant) {
        let shard = self.shard;
        let there = self.sessions.get_mut(&slot).expect("deadlines are of sessions");
        let conn = there.session.conn;
        if there.has_ended {
            // It is closed in this turn.
            self.deadlines.remove(&(there.deadline, slot));
            return;
        }
        let late = there.posts.iter_mut().filter(|post| post.due <= now);
        self.answers.extend(late.filter_map(|post| Some((post.asker.take()?, LATE.to_vec()))));
        if there.due > now {
            return self.set_deadline(conn);
        }
        match there.get.take() {
            None => self.end(conn),
            Some(asker) => {
                let token = there.token(shard);
                self.answers.push_back((asker, nothing(token)));
                self.rest(conn, now);
            }
        }
    }

    /// Answers the GET of a session with all of its messages, if there are some.
    fn deliver(&mut self, conn: ConnId, now: Instant) {
        let shard = self.shard;
        let Some(there) = self.get_mut(conn).filter(|there| !there.queue.is_empty()) else {
            return;
        };
        let Some(asker) = there.get.take() else { return };
        let token = there.token(shard);
        let bytes = mem::take(&mut there.queued_bytes);
        let messages = mem::take(&mut there.queue);
        self.answers.push_back((asker, delivery(token, &messages)));
        self.count_bytes(0, bytes);
        self.taken.push(conn);
        self.rest(conn, now);
    }

    /// Takes the next session whose queue a GET has taken.
    pub(crate) fn take_taken(&mut self) -> Option<ConnId> {
        self.taken.pop()
    }

    /// Takes the next answer, and the request that it is for.
    pub(super) fn take_answer(&mut self) -> Option<(Asker, Vec<u8>)> {
        self.answers.pop_front()
    }

    /// The latest time of the next turn: `now` for work that is there already.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let is_idle = self.ready.is_empty()
            && self.resumed.is_empty()
            && self.taken.is_empty()
            && self.ended.is_empty()
            && self.answers.is_empty();
        if is_idle { self.deadlines.first().map(|(at, _)| *at) } else { Some(now) }
    }

    /// The number of sessions.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

/// The clock can count to all times that a server lives to see.
fn later(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

/// The answer to a GET for which there was no message.
fn nothing(token: PollToken) -> Vec<u8> {
    format!(r#"{{"status":204,"token":"{}","messages":[]}}"#, token.text()).into_bytes()
}

/// The answer to a GET with messages, each as a string.
fn delivery(token: PollToken, messages: &VecDeque<Bytes>) -> Vec<u8> {
    let head = format!(r#"{{"status":200,"token":"{}","messages":["#, token.text());
    let mut body = head.into_bytes();
    for (number, message) in messages.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        let text = str::from_utf8(message).expect("messages of long polls are text");
        serde_json::to_writer(&mut body, text).expect("a vector takes all there is");
    }
    body.extend_from_slice(b"]}");
    body
}
