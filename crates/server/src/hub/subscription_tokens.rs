//! Subscriptions by a token of their own, which end when it expires.

use std::collections::BTreeMap;
use std::sync::Arc;

use murre_core::ShownPeer;
use murre_router::channels::Start;

use super::auth::{SubscriptionToken, UnixSeconds, Verdict};
use super::expiry::Expiries;
use super::pending::Recipient;
use super::{
    About, EXPIRED_PER_TURN, Error, ErrorCode, Flow, Hub, Outlet, Reply, RequestId, Session,
    unix_seconds,
};
use crate::log::connections as log;

/// The subscriptions of a shard that were made with a token of their own, by slot and channel. Others
/// cost nothing here.
#[derive(Default)]
pub(crate) struct SubscriptionTokens {
    entries: BTreeMap<Key, Option<UnixSeconds>>,
    expiries: Expiries<Key>,
}

type Key = (u32, Arc<str>);

impl SubscriptionTokens {
    /// Stores the expiry of a subscription.
    pub(super) fn insert(&mut self, slot: u32, channel: &str, expires: Option<UnixSeconds>) {
        let key = (slot, Arc::from(channel));
        let before = self.entries.insert(Key::clone(&key), expires).flatten();
        self.expiries.replace(key, before, expires);
    }

    /// Whether the session in a slot has subscribed to a channel with a token.
    pub(super) fn has(&self, slot: u32, channel: &str) -> bool {
        !self.entries.is_empty() && self.entries.contains_key(&(slot, Arc::from(channel)))
    }

    /// Removes a subscription that has ended.
    pub(super) fn remove(&mut self, slot: u32, channel: &str) {
        if self.entries.is_empty() {
            return;
        }
        let key = (slot, Arc::from(channel));
        if let Some(expires) = self.entries.remove(&key) {
            self.expiries.replace(key, expires, None);
        }
    }

    /// Removes the subscriptions of a session that has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        let first = (slot, Arc::from(""));
        while let Some((key, &expires)) = self.entries.range(&first..).next()
            && key.0 == slot
        {
            let key = Key::clone(key);
            self.entries.remove(&key);
            self.expiries.replace(key, expires, None);
        }
    }

    /// The next subscription that has ended at `now`, in Unix seconds. It stays until it is removed.
    fn take_expired(&mut self, now: u64) -> Option<Key> {
        self.expiries.expired(now)
    }

    /// The time at which the next subscription ends, in Unix seconds.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.expiries.next()
    }

    /// Number of subscriptions with a token.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Hub {
    /// Subscribes to a channel with a token for it, or renews such a subscription.
    ///
    /// # Errors
    /// The reason why the command is refused. The command has changed nothing.
    pub(super) fn subscribe_with_token<'c>(
        &mut self,
        session: Session,
        request: RequestId,
        (channel, start): (&'c str, Start),
        token: &str,
        out: &mut impl Outlet,
    ) -> Result<Flow, Error<'c>> {
        let (slot, about) = (session.conn.index(), About::Channel(channel));
        let user = self.sessions.user(slot);
        if !self.config.rules(channel)?.allow_with_token(channel, user) {
            return Err(Error::from(ErrorCode::NotAllowed).about(about));
        }
        let purpose = (channel, user.map(|user| &*user.name));
        let (since, address) = (self.since(out), out.address(session.conn));
        let verdict =
            self.verifier.check_subscription(token, purpose, address, since, unix_seconds());
        let SubscriptionToken { expires, .. } = match verdict {
            Verdict::Good(token) => token,
            Verdict::Bad(why) => return Err(Error::from(why).about(about)),
            Verdict::TooMany => {
                log::too_many_bad_tokens(self.connection_id(session.conn), ShownPeer(None));
                return Err(Error::from(ErrorCode::TooFast).about(about));
            }
            Verdict::NotNow => return Ok(Flow::Retry),
        };
        if self.channels.is_subscribed(slot, channel) {
            out.reply(session, &request, Reply::Renewed { channel });
        } else {
            self.subscribe(session, channel, start, Recipient::Session(session, request))?;
        }
        self.subscription_tokens.insert(slot, channel, expires);
        Ok(Flow::Continue)
    }

    /// Ends the subscriptions whose tokens have expired, at most [`EXPIRED_PER_TURN`]. For more,
    /// `next_expiry` asks for another turn.
    pub(super) fn expire_subscriptions(&mut self, out: &mut impl Outlet) {
        for _ in 0..EXPIRED_PER_TURN {
            let expired = self.subscription_tokens.take_expired(unix_seconds());
            let Some((slot, channel)) = expired else { return };
            if let Some(session) = out.at(slot).and_then(|conn| self.sessions.of(conn)) {
                self.end_subscription(session, &channel, ErrorCode::TokenExpired.into(), out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Option<UnixSeconds> {
        UnixSeconds::new(seconds)
    }

    /// A subscription that is renewed has one expiry, the last one; one that ends has none.
    #[test]
    fn one_expiry_each() {
        let mut tokens = SubscriptionTokens::default();
        for seconds in [100, 300, 200] {
            tokens.insert(1, "a", at(seconds));
        }
        tokens.insert(1, "b", None);
        tokens.insert(2, "a", at(150));
        assert_eq!((tokens.len(), tokens.expiries.len()), (3, 2));
        assert_eq!(tokens.take_expired(1000), Some((2, "a".into())));
        assert_eq!(tokens.take_expired(1000), Some((1, "a".into())));
        assert_eq!(tokens.take_expired(1000), None);
        tokens.remove(1, "a");
        tokens.remove(1, "unknown");
        assert!(tokens.has(1, "b") && !tokens.has(1, "a") && tokens.has(2, "a"));
    }

    /// A session that ends takes all its entries along, and those of no other session.
    #[test]
    fn sessions_end() {
        let mut tokens = SubscriptionTokens::default();
        for slot in [0, 1, 2, u32::MAX] {
            for channel in ["a", "b", "\u{10ffff}"] {
                tokens.insert(slot, channel, at(100));
            }
        }
        for (slot, left) in [(1, 9), (7, 9), (u32::MAX, 6), (0, 3), (2, 0)] {
            tokens.forget(slot);
            assert_eq!((tokens.len(), tokens.expiries.len()), (left, left));
        }
    }
}
