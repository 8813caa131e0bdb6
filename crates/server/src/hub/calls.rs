//! Calls of the backend that this shard waits for, and the commands that wait behind them.
//!
//! A connection has an entry only while a call is out for it or a command waits. Calls of one connection
//! about one channel are made one after the other, and later commands for that channel wait behind a call;
//! commands for other channels go on.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use murre_core::ConnId;
use smallvec::SmallVec;

use super::command::{OwnedCommand, RequestId};
use super::pending::Name;
use crate::backend::{Answer, CallId, CallKind};

/// The calls of a shard.
#[derive(Default)]
pub(super) struct Calls {
    /// Calls without an answer.
    out: HashMap<CallId, CallOut>,
    /// Their deadlines, and the times at which answers that nobody has taken are dropped. All have the
    /// same delay, so they are in order.
    deadlines: VecDeque<(Instant, Deadline)>,
    connections: HashMap<ConnId, OfConnection>,
    last: CallId,
}

/// A call without an answer.
pub(super) struct CallOut {
    pub(super) conn: ConnId,
    pub(super) kind: CallKind,
    /// The channel or service; empty for the connection itself.
    pub(super) name: Name,
    /// The user whose session is refreshed. When the answer comes, the connection may have another one.
    pub(super) refreshed: Option<Box<str>>,
}

enum Deadline {
    Call(CallId),
    Request(ConnId),
}

/// The calls and waiting commands of one connection.
struct OfConnection {
    subjects: SmallVec<[Subject; 1]>,
    /// Waiting commands of all subjects, and their bytes.
    waiting: usize,
    bytes: usize,
    /// Whether it is a request that is held until all of its calls are answered.
    is_request: bool,
}

/// What is asked about one channel or service, or about the connection itself.
struct Subject {
    name: Name,
    kind: CallKind,
    /// The user for whom it is asked.
    user: Option<Box<str>>,
    state: State,
    waiting: VecDeque<Waiting>,
}

enum State {
    Out(CallId),
    /// The command that asked has yet to take the answer.
    Answered(Answer),
    Idle,
}

/// A command or message that waits for an answer.
pub(crate) enum Waiting {
    Command(RequestId, OwnedCommand),
    /// A message that its protocol handles.
    Message(Box<[u8]>, MessageKind),
}

/// The kind of a stored message; the protocol that stores it knows the meaning.
pub(crate) type MessageKind = murre_codec::Kind;

/// Commands of one connection that wait at most, those that ask among them.
const WAITING_MAX: usize = 16;
/// Bytes of these commands at most. A single one may be longer.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// The tables keep room for this number of entries.
const KEPT: usize = 64;

impl Waiting {
    fn bytes(&self) -> usize {
        match self {
            Waiting::Command(_, command) => command.bytes(),
            Waiting::Message(bytes, _) => bytes.len(),
        }
    }
}

/// What an answer is for.
pub(super) enum Answered {
    /// Nobody waits for it any more.
    Late,
    /// A session, whose commands about this can go on.
    Session(ConnId, Name),
    /// A request, all of whose calls are answered.
    Request(ConnId),
    /// A request with other calls.
    NotYet,
    /// The refresh of the connection's session of this user: the answer itself.
    Refresh(ConnId, Option<Box<str>>, Answer),
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.out.is_empty()
    }

    /// Sizes of all tables; 0 when nothing waits.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.connections.len() + self.out.len()
    }

    /// The largest numbers of commands that wait for one connection, and of their bytes, counted anew.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn most_waiting(&self) -> (usize, usize) {
        let count = |of: &OfConnection| {
            let waiting = || of.subjects.iter().flat_map(|subject| &subject.waiting);
            let counted = (waiting().count(), waiting().map(Waiting::bytes).sum());
            assert_eq!(counted, (of.waiting, of.bytes), "the counters are right");
            counted
        };
        let counted = self.connections.values().map(count);
        counted.fold((0, 0), |most, of| (most.0.max(of.0), most.1.max(of.1)))
    }

    /// Number of calls without an answer.
    pub(super) fn out(&self) -> usize {
        self.out.len()
    }

    /// A number for the next call.
    pub(super) fn next_id(&mut self) -> CallId {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// Whether commands of a connection about this wait.
    pub(super) fn is_busy(&self, conn: ConnId, name: &str) -> bool {
        !self.connections.is_empty() && self.subject(conn, name).is_some()
    }

    /// Whether a connection may have another command waiting, with this number of bytes.
    pub(super) fn has_room(&self, conn: ConnId, bytes: usize) -> bool {
        self.connections.get(&conn).is_none_or(|of| {
            of.waiting < WAITING_MAX && of.bytes.saturating_add(bytes) <= WAITING_BYTES_MAX
        })
    }

    /// Records a call that has been queued.
    pub(super) fn begin(
        &mut self,
        id: CallId,
        call: CallOut,
        user: Option<&str>,
        is_request: bool,
        deadline: Instant,
    ) {
        if call.kind != CallKind::Refresh {
            let subject = self.subject_or_new(call.conn, &call.name, call.kind);
            subject.state = State::Out(id);
            subject.kind = call.kind;
            subject.user = user.map(Box::from);
            if let Some(of) = self.connections.get_mut(&call.conn) {
                of.is_request = is_request;
            }
        }
        self.out.insert(id, call);
        self.deadlines.push_back((deadline, Deadline::Call(id)));
    }

    /// An answer has arrived.
    pub(super) fn answered(&mut self, id: CallId, answer: Answer, expires: Instant) -> Answered {
        let Some(CallOut { conn, kind, name, refreshed }) = self.out.remove(&id) else {
            return Answered::Late;
        };
        self.shrink();
        if kind == CallKind::Refresh {
            return Answered::Refresh(conn, refreshed, answer);
        }
        let Some(of) = self.connections.get_mut(&conn) else { return Answered::Late };
        let subject = of.subjects.iter_mut().find(|subject| *subject.name == *name);
        let Some(subject) =
            subject.filter(|subject| matches!(subject.state, State::Out(call) if call == id))
        else {
            return Answered::Late;
        };
        subject.state = State::Answered(answer);
        if !of.is_request {
            return Answered::Session(conn, name);
        }
        if of.subjects.iter().any(|subject| matches!(subject.state, State::Out(_))) {
            return Answered::NotYet;
        }
        self.deadlines.push_back((expires, Deadline::Request(conn)));
        Answered::Request(conn)
    }

    /// Takes the answer to a question of this kind for this user. An answer to another question is dropped.
    pub(super) fn take(
        &mut self,
        conn: ConnId,
        name: &str,
        kind: CallKind,
        user: Option<&str>,
    ) -> Option<Answer> {
        if self.connections.is_empty() {
            return None;
        }
        let subject = self.connections.get_mut(&conn)?.subjects.iter_mut();
        let subject = subject.into_iter().find(|subject| *subject.name == *name)?;
        let State::Answered(_) = subject.state else { return None };
        let same = subject.kind == kind && subject.user.as_deref() == user;
        let State::Answered(answer) = std::mem::replace(&mut subject.state, State::Idle) else {
            unreachable!("it was just seen")
        };
        self.remove_if_idle(conn, name);
        same.then_some(answer)
    }

    /// The answer that a request has got, which stays.
    pub(super) fn answer(&self, conn: ConnId, name: &str, user: Option<&str>) -> Option<&Answer> {
        match self.subject(conn, name)? {
            Subject { state: State::Answered(answer), user: of, .. } if of.as_deref() == user => {
                Some(answer)
            }
            _ => None,
        }
    }

    /// Whether a call of a connection about this is out.
    pub(super) fn is_out(&self, conn: ConnId, name: &str) -> bool {
        self.subject(conn, name).is_some_and(|subject| matches!(subject.state, State::Out(_)))
    }

    /// The connections with a request that is held.
    pub(super) fn requests(&self) -> impl Iterator<Item = ConnId> {
        self.connections.iter().filter(|(_, of)| of.is_request).map(|(conn, _)| *conn)
    }

    /// Lets a command wait: behind all others about this, or before them if it has just asked. The caller
    /// has checked that there is room.
    pub(super) fn wait(&mut self, conn: ConnId, name: &str, waiting: Waiting, first: bool) {
        let bytes = waiting.bytes();
        let subject = self.subject_or_new(conn, &name.into(), CallKind::Rpc);
        match first {
            true => subject.waiting.push_front(waiting),
            false => subject.waiting.push_back(waiting),
        }
        if let Some(of) = self.connections.get_mut(&conn) {
            of.waiting = of.waiting.saturating_add(1);
            of.bytes = of.bytes.saturating_add(bytes);
        }
    }

    /// Takes the next command about this, unless a call is out. `takes` says whether it can be handled now.
    pub(super) fn next(
        &mut self,
        conn: ConnId,
        name: &str,
        takes: impl FnOnce(&Waiting) -> bool,
    ) -> Option<Waiting> {
        let of = self.connections.get_mut(&conn)?;
        let subject = of.subjects.iter_mut().find(|subject| *subject.name == *name)?;
        if matches!(subject.state, State::Out(_)) {
            return None;
        }
        if !subject.waiting.front().is_some_and(takes) {
            self.remove_if_idle(conn, name);
            return None;
        }
        let waiting = subject.waiting.pop_front()?;
        of.waiting = of.waiting.saturating_sub(1);
        of.bytes = of.bytes.saturating_sub(waiting.bytes());
        Some(waiting)
    }

    /// The command that asked has been handled. An answer that it has not taken, because the rules or the user
    /// have changed since, is dropped.
    pub(super) fn settle(&mut self, conn: ConnId, name: &str) {
        if let Some(of) = self.connections.get_mut(&conn)
            && let Some(subject) = of.subjects.iter_mut().find(|subject| *subject.name == *name)
        {
            if matches!(subject.state, State::Answered(_)) {
                subject.state = State::Idle;
            }
            self.remove_if_idle(conn, name);
        }
    }

    /// The channels and services about which commands of a connection wait, and no call is out.
    pub(super) fn ready(&self, conn: ConnId) -> Vec<Name> {
        let Some(of) = self.connections.get(&conn) else { return Vec::new() };
        let ready = of.subjects.iter().filter(|subject| !matches!(subject.state, State::Out(_)));
        ready.map(|subject| Name::from(&*subject.name)).collect()
    }

    /// Removes what a connection has here: its session has ended. Answers of its calls are late.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if self.connections.remove(&conn).is_some() {
            self.shrink();
        }
    }

    /// Removes the answers of a request.
    pub(super) fn forget_request(&mut self, conn: ConnId) {
        if self.connections.get(&conn).is_some_and(|of| of.is_request) {
            self.forget(conn);
        }
    }

    /// The next call whose deadline has passed at `now`. Answers that no request has taken are dropped.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<CallId> {
        while let Some((at, _)) = self.deadlines.front()
            && *at <= now
        {
            match self.deadlines.pop_front()?.1 {
                Deadline::Call(id) if self.out.contains_key(&id) => return Some(id),
                Deadline::Call(_) => {}
                Deadline::Request(conn) => {
                    let is_out = |subject: &Subject| matches!(subject.state, State::Out(_));
                    let of = self.connections.get(&conn);
                    if of.is_some_and(|of| !of.subjects.iter().any(is_out)) {
                        self.forget_request(conn);
                    }
                }
            }
        }
        None
    }

    /// The time of the next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Removes the deadlines at the front that are of nothing any more.
    fn trim(&mut self) {
        while let Some((_, deadline)) = self.deadlines.front() {
            let needed = match deadline {
                Deadline::Call(id) => self.out.contains_key(id),
                Deadline::Request(conn) => {
                    self.connections.get(conn).is_some_and(|of| of.is_request)
                }
            };
            if needed {
                return;
            }
            self.deadlines.pop_front();
        }
        self.deadlines.shrink_to(KEPT);
    }

    fn subject(&self, conn: ConnId, name: &str) -> Option<&Subject> {
        let of = self.connections.get(&conn)?;
        of.subjects.iter().find(|subject| *subject.name == *name)
    }

    fn subject_or_new(&mut self, conn: ConnId, name: &Name, kind: CallKind) -> &mut Subject {
        let of = self.connections.entry(conn).or_insert_with(|| OfConnection {
            subjects: SmallVec::new(),
            waiting: 0,
            bytes: 0,
            is_request: false,
        });
        let known = of.subjects.iter().position(|subject| *subject.name == **name);
        let at = known.unwrap_or_else(|| {
            let (name, waiting) = (Name::from(&**name), VecDeque::new());
            of.subjects.push(Subject { name, kind, user: None, state: State::Idle, waiting });
            of.subjects.len().saturating_sub(1)
        });
        &mut of.subjects[at]
    }

    fn remove_if_idle(&mut self, conn: ConnId, name: &str) {
        let Some(of) = self.connections.get_mut(&conn) else { return };
        of.subjects.retain(|subject| {
            *subject.name != *name
                || !subject.waiting.is_empty()
                || !matches!(subject.state, State::Idle)
        });
        if of.subjects.is_empty() {
            self.forget(conn);
        }
    }

    fn shrink(&mut self) {
        if self.connections.is_empty() {
            self.connections.shrink_to(KEPT);
        }
        if self.out.is_empty() {
            self.out.shrink_to(KEPT);
        }
        self.trim();
    }
}
