//! What is remembered of each connection that uses channels: 16 bytes beside its subscriptions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use murre_core::{ConnId, Pool};

use super::auth::{LEEWAY_SECONDS, User};
use super::rate::Spent;

/// Every connection's, by slot.
pub(crate) struct Clients {
    clients: Vec<Client>,
    /// Of those who have authenticated.
    users: Pool<User>,
    /// When the tokens of those say that they expire, in Unix seconds; some are gone, or newer.
    expiries: BinaryHeap<Reverse<(u64, ConnId)>>,
}

#[derive(Clone, Copy)]
struct Client {
    speaks: Speaks,
    user: u32,
    spent: Spent,
}

const _: () = assert!(size_of::<Client>() <= 16);

/// How a subscriber is told of publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Nothing: the slot is free, or its connection uses no channels.
    Nothing,
    /// `murre.v1` over WebSocket.
    WebSocket,
    /// Server-Sent Events of one channel.
    Events,
    /// Server-Sent Events of several channels.
    MixedEvents,
    /// A long poll that has not been answered.
    Poll,
}

const NOBODY: u32 = u32::MAX;
const NOTHING: Client = Client { speaks: Speaks::Nothing, user: NOBODY, spent: Spent::NOTHING };

impl Clients {
    /// Nobody's, with room for so many: memory that is not touched before it is used.
    pub(crate) fn new(room: usize) -> Self {
        Clients {
            clients: Vec::with_capacity(room),
            users: Pool::default(),
            expiries: BinaryHeap::new(),
        }
    }

    /// A connection begins to use channels.
    pub(crate) fn enter(&mut self, id: ConnId, speaks: Speaks, user: Option<User>) {
        let index = id.index() as usize;
        if self.clients.len() <= index {
            self.clients.resize(index + 1, NOTHING);
        }
        self.clients[index] = Client { speaks, ..NOTHING };
        if let Some(user) = user {
            self.authenticate(id, user);
        }
    }

    /// A connection's use of channels is over.
    pub(crate) fn leave(&mut self, id: ConnId) {
        let client = std::mem::replace(&mut self.clients[id.index() as usize], NOTHING);
        if client.user != NOBODY {
            self.users.remove(client.user);
        }
    }

    /// How the connection in a slot is told of publications.
    pub(crate) fn speaks(&self, slot: u32) -> Speaks {
        self.clients.get(slot as usize).map_or(Speaks::Nothing, |client| client.speaks)
    }

    /// What the connection has spent on commands.
    pub(crate) fn spent(&mut self, id: ConnId) -> &mut Spent {
        &mut self.clients[id.index() as usize].spent
    }

    /// From now on the connection is this user's.
    pub(crate) fn authenticate(&mut self, id: ConnId, user: User) {
        if let Some(expires) = user.expires {
            self.expiries.push(Reverse((expires, id)));
        }
        let client = &mut self.clients[id.index() as usize];
        if client.user == NOBODY {
            client.user = self.users.insert(user);
        } else {
            *self.users.get_mut(client.user) = user;
        }
    }

    /// Whose the connection is, if it has authenticated.
    pub(crate) fn user(&self, slot: u32) -> Option<&User> {
        let client = self.clients.get(slot as usize)?;
        (client.user != NOBODY).then(|| self.users.get(client.user))
    }

    /// The next connection whose token has expired at `now`, in Unix seconds.
    pub(crate) fn expired(&mut self, now: u64) -> Option<ConnId> {
        while self.next_expiry()? <= now {
            let Reverse((expires, id)) = self.expiries.pop()?;
            if self.user(id.index()).is_some_and(|user| user.expires == Some(expires)) {
                return Some(id);
            }
        }
        None
    }

    /// When the next token may have expired, in Unix seconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expiries.peek().map(|Reverse((expires, _))| expires.saturating_add(LEEWAY_SECONDS))
    }

    /// How many connections have authenticated.
    pub(crate) fn users(&self) -> u32 {
        self.users.len()
    }

    /// The slots of all connections of a user.
    pub(crate) fn of_user(&self, name: &str) -> Vec<u32> {
        let slots = 0..self.clients.len() as u32;
        slots.filter(|&slot| self.user(slot).is_some_and(|user| &*user.name == name)).collect()
    }
}
