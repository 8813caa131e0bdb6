//! The table of sessions: 12 bytes each, beside their subscriptions.

use murre_core::{BucketState, ConnId, Pool};

use super::auth::{UnixSeconds, User};
use super::expiry::Expiries;

/// A session: a connection that uses channels and services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    pub(crate) wire: Wire,
}

/// The number of a session's transport and protocol. The hub stores it and does not interpret it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire(pub(crate) u8);

impl Wire {
    /// No session.
    const NONE: Wire = Wire(0);
    const BITS: u32 = 5;

    /// Sessions that are one request, such as a poll: webhooks are not told of them.
    pub(crate) const ONE_REQUEST: Wire = Wire(31);
}

/// The sessions of a shard, by slot.
pub(crate) struct Sessions {
    entries: Vec<Entry>,
    /// Beside `entries`: together they would have 4 bytes of padding.
    buckets: Vec<BucketState>,
    /// The users of the sessions that have authenticated.
    users: Pool<User>,
    /// The expiries of their tokens.
    expiries: Expiries<ConnId>,
}

/// A session's wire, and the key of its user in the lower bits. After a session has ended, the lower
/// bits have the generation of its connection: the next session of the same connection, for instance
/// its next poll, keeps the token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u32);

const _: () = assert!(size_of::<Entry>() + size_of::<BucketState>() == 12);

impl Entry {
    const USER_BITS: u32 = u32::BITS - Wire::BITS;
    const NOBODY: u32 = (1 << Self::USER_BITS) - 1;
    const NONE: Entry = Entry::new(Wire::NONE, Self::NOBODY);

    const fn new(wire: Wire, user: u32) -> Self {
        assert!(user <= Self::NOBODY && wire.0 < 1 << Wire::BITS);
        Entry((wire.0 as u32) << Self::USER_BITS | user)
    }

    /// The entry of a connection whose session has ended.
    fn ended(conn: ConnId) -> Self {
        Entry::new(Wire::NONE, conn.generation())
    }

    fn wire(self) -> Wire {
        Wire((self.0 >> Self::USER_BITS) as u8)
    }

    fn user(self) -> Option<u32> {
        let user = self.0 & Self::NOBODY;
        (user != Self::NOBODY && self.wire() != Wire::NONE).then_some(user)
    }
}

impl Sessions {
    /// No sessions, with room for `room` of them. The memory is not touched before it is used.
    pub(crate) fn new(room: usize) -> Self {
        Sessions {
            entries: Vec::with_capacity(room),
            buckets: Vec::with_capacity(room),
            users: Pool::default(),
            expiries: Expiries::default(),
        }
    }

    /// Begins a session, of a user or anonymous.
    pub(crate) fn open(&mut self, session: Session, user: Option<User>) {
        assert!(session.wire != Wire::NONE);
        let index = session.conn.index() as usize;
        if self.entries.len() <= index {
            let sessions = index.saturating_add(1);
            self.entries.resize(sessions, Entry::NONE);
            self.buckets.resize(sessions, BucketState::FULL);
        }
        let before = self.entries[index];
        assert!(before.wire() == Wire::NONE, "a connection has one session at a time");
        if before != Entry::ended(session.conn) {
            self.buckets[index] = BucketState::FULL;
        }
        self.entries[index] = Entry::new(session.wire, Entry::NOBODY);
        if let Some(user) = user {
            self.authenticate(session.conn, user);
        }
    }

    /// Ends the session of a connection. Returns whether there was one.
    pub(crate) fn close(&mut self, conn: ConnId) -> bool {
        let Some(entry) = self.entries.get_mut(conn.index() as usize) else { return false };
        if entry.wire() == Wire::NONE {
            return false;
        }
        let ended = std::mem::replace(entry, Entry::ended(conn));
        if let Some(user) = ended.user() {
            let user = self.users.remove(user);
            self.expiries.replace(conn, user.expires, None);
        }
        true
    }

    /// The session of a connection, if it has one.
    pub(crate) fn of(&self, conn: ConnId) -> Option<Session> {
        let wire = self.entries.get(conn.index() as usize)?.wire();
        (wire != Wire::NONE).then_some(Session { conn, wire })
    }

    /// The token bucket of the session's commands.
    pub(crate) fn bucket(&mut self, session: Session) -> &mut BucketState {
        &mut self.buckets[session.conn.index() as usize]
    }

    /// Makes the session that of `user`.
    pub(crate) fn authenticate(&mut self, conn: ConnId, user: User) {
        let entry = &mut self.entries[conn.index() as usize];
        let (expires, before) = (user.expires, entry.user());
        let before = match before {
            Some(known) => std::mem::replace(self.users.get_mut(known), user).expires,
            None => {
                *entry = Entry::new(entry.wire(), self.users.insert(user));
                None
            }
        };
        self.expiries.replace(conn, before, expires);
    }

    /// The user of the session in a slot, if it has authenticated.
    pub(crate) fn user(&self, slot: u32) -> Option<&User> {
        let user = self.entries.get(slot as usize)?.user()?;
        Some(self.users.get(user))
    }

    /// Removes the expiry of the next session whose token has expired at `now`, in Unix seconds, and
    /// returns the session.
    pub(crate) fn take_expired(&mut self, now: u64) -> Option<Session> {
        let conn = self.expiries.expired(now)?;
        self.of(conn)
    }

    /// The time at which the next session ends because its token expires, in Unix seconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expiries.next()
    }

    /// Number of sessions that have authenticated.
    pub(crate) fn users(&self) -> u32 {
        self.users.len()
    }

    /// Number of sessions whose tokens have an expiry.
    pub(crate) fn expiries(&self) -> usize {
        self.expiries.len()
    }

    /// All slots with a session are below this.
    pub(crate) fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Sets the expiry of the token of a session. Returns whether it has authenticated.
    pub(crate) fn refresh(&mut self, conn: ConnId, expires: Option<UnixSeconds>) -> bool {
        let Some(user) = self.entries[conn.index() as usize].user() else { return false };
        let before = std::mem::replace(&mut self.users.get_mut(user).expires, expires);
        self.expiries.replace(conn, before, expires);
        true
    }

    /// The slots of all sessions of a user.
    pub(crate) fn of_user(&self, name: &str) -> Vec<u32> {
        let slots = 0..self.entries.len() as u32;
        slots.filter(|&slot| self.user(slot).is_some_and(|user| &*user.name == name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use murre_core::{RateDecision, TokenBucket};

    /// An entry returns the wire and the user that it was made of.
    #[test]
    fn entries_come_apart() {
        for wire in [1, 7, 31].map(Wire) {
            for user in [0, 1, Entry::NOBODY - 1] {
                let entry = Entry::new(wire, user);
                assert_eq!((entry.wire(), entry.user()), (wire, Some(user)));
            }
            assert_eq!(Entry::new(wire, Entry::NOBODY).user(), None);
        }
    }

    /// The sessions of one connection, as of a client that polls, share a token bucket; another
    /// connection in the same slot begins with a full one.
    #[test]
    fn a_connection_keeps_its_bucket() {
        let mut sessions = Sessions::new(0);
        let conn = |generation| format!("5-{generation}").parse().expect("an id");
        let session = |generation: u32| Session { conn: conn(generation), wire: Wire(1) };
        sessions.open(session(7), None);
        let taken = TokenBucket::new(1, 1).take(sessions.bucket(session(7)), Duration::ZERO);
        assert_eq!(taken, RateDecision::Allow);
        let state = *sessions.bucket(session(7));
        assert!(sessions.close(conn(7)) && !sessions.close(conn(7)), "a session ends once");
        assert_eq!((sessions.of(conn(7)), sessions.user(5)), (None, None));
        sessions.open(session(7), None);
        assert_eq!(*sessions.bucket(session(7)), state);
        sessions.close(conn(7));
        sessions.open(session(8), None);
        assert_eq!(*sessions.bucket(session(8)), BucketState::FULL);
    }
}
