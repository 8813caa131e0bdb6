//! What is remembered of each connection that uses channels: 12 bytes beside its subscriptions.

use murre_core::{ConnId, Pool};

use crate::hub::auth::User;
use crate::hub::expiry::Expiries;
use crate::hub::rate::BucketState;

/// Every connection's, by slot.
pub(crate) struct Clients {
    clients: Vec<Client>,
    /// Beside `clients`: together they would have 4 bytes between them that nobody uses.
    spent: Vec<BucketState>,
    /// Of those who have authenticated.
    users: Pool<User>,
    expiries: Expiries<ConnId>,
}

/// How a client is told of publications, and the key of its user in the lower bits.
#[derive(Clone, Copy)]
struct Client(u32);

const _: () = assert!(size_of::<Client>() + size_of::<BucketState>() == 12);

impl Client {
    const USER_BITS: u32 = 29;
    const NOBODY: u32 = (1 << Self::USER_BITS) - 1;
    /// A slot that uses no channels.
    const NOTHING: Client = Client::new(Speaks::Nothing, Self::NOBODY);

    const fn new(speaks: Speaks, user: u32) -> Self {
        assert!(user <= Self::NOBODY);
        Client((speaks as u32) << Self::USER_BITS | user)
    }

    fn speaks(self) -> Speaks {
        SPEAKS[(self.0 >> Self::USER_BITS) as usize]
    }

    fn user(self) -> Option<u32> {
        let user = self.0 & Self::NOBODY;
        (user != Self::NOBODY).then_some(user)
    }
}

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

/// In the order of their numbers.
const SPEAKS: [Speaks; 5] =
    [Speaks::Nothing, Speaks::WebSocket, Speaks::Events, Speaks::MixedEvents, Speaks::Poll];

impl Clients {
    /// Nobody's, with room for so many: memory that is not touched before it is used.
    pub(crate) fn new(room: usize) -> Self {
        Clients {
            clients: Vec::with_capacity(room),
            spent: Vec::with_capacity(room),
            users: Pool::default(),
            expiries: Expiries::default(),
        }
    }

    /// A connection begins to use channels.
    pub(crate) fn enter(&mut self, id: ConnId, speaks: Speaks, user: Option<User>) {
        let index = id.index() as usize;
        if self.clients.len() <= index {
            self.clients.resize(index + 1, Client::NOTHING);
            self.spent.resize(index + 1, BucketState::FULL);
        }
        self.clients[index] = Client::new(speaks, Client::NOBODY);
        self.spent[index] = BucketState::FULL;
        if let Some(user) = user {
            self.authenticate(id, user);
        }
    }

    /// A connection's use of channels is over.
    pub(crate) fn leave(&mut self, id: ConnId) {
        let client = &mut self.clients[id.index() as usize];
        if let Some(user) = std::mem::replace(client, Client::NOTHING).user() {
            let user = self.users.remove(user);
            self.expiries.replace(id, user.expires, None);
        }
    }

    /// How the connection in a slot is told of publications.
    pub(crate) fn speaks(&self, slot: u32) -> Speaks {
        self.clients.get(slot as usize).map_or(Speaks::Nothing, |client| client.speaks())
    }

    /// What the connection has spent on commands.
    pub(crate) fn spent(&mut self, id: ConnId) -> &mut BucketState {
        &mut self.spent[id.index() as usize]
    }

    /// From now on the connection is this user's.
    pub(crate) fn authenticate(&mut self, id: ConnId, user: User) {
        let known = self.user(id.index()).and_then(|known| known.expires);
        self.expiries.replace(id, known, user.expires);
        let client = &mut self.clients[id.index() as usize];
        match client.user() {
            Some(known) => *self.users.get_mut(known) = user,
            None => *client = Client::new(client.speaks(), self.users.insert(user)),
        }
    }

    /// Whose the connection is, if it has authenticated.
    pub(crate) fn user(&self, slot: u32) -> Option<&User> {
        let user = self.clients.get(slot as usize)?.user()?;
        Some(self.users.get(user))
    }

    /// The next connection whose token has expired at `now`, in Unix seconds.
    pub(crate) fn expired(&mut self, now: u64) -> Option<ConnId> {
        self.expiries.expired(now)
    }

    /// When the next token may have expired, in Unix seconds.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.expiries.next()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is packed together comes apart again, for every way to be told and with a user or none.
    #[test]
    fn clients_come_apart() {
        for (number, speaks) in SPEAKS.into_iter().enumerate() {
            assert_eq!(speaks as usize, number);
            for user in [0, 1, Client::NOBODY - 1] {
                let client = Client::new(speaks, user);
                assert_eq!((client.speaks(), client.user()), (speaks, Some(user)));
            }
            assert_eq!(Client::new(speaks, Client::NOBODY).user(), None);
        }
    }
}
