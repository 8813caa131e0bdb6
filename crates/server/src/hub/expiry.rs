//! The expiry of the tokens of sessions and subscriptions.

use std::collections::BTreeSet;

use super::auth::{LEEWAY_SECONDS, UnixSeconds};

/// The sessions whose tokens have an expiry, earliest first, with one entry each. A session that ends or
/// presents another token removes its entry, so the set has no more entries than there are such
/// sessions, and its nodes are freed as it shrinks.
pub(crate) struct Expiries<S>(BTreeSet<(UnixSeconds, S)>);

const _: () = assert!(size_of::<(UnixSeconds, murre_core::ConnId)>() == 16);

impl<S: Ord> Default for Expiries<S> {
    fn default() -> Self {
        Expiries(BTreeSet::new())
    }
}

impl<S: Ord> Expiries<S> {
    /// The token of `session` expired at `old` and now expires at `new`. `None` is a session without
    /// a token or with one that never expires, and `new` of a session that has left.
    pub(crate) fn replace(
        &mut self,
        mut session: S,
        old: Option<UnixSeconds>,
        new: Option<UnixSeconds>,
    ) {
        if let Some(old) = old {
            // `expired` has already removed the entry of a session that it returned.
            let entry = (old, session);
            self.0.remove(&entry);
            session = entry.1;
        }
        if let Some(new) = new {
            self.0.insert((new, session));
        }
    }

    /// Removes and returns a session whose token has expired at `now`, in Unix seconds, earliest first.
    pub(crate) fn expired(&mut self, now: u64) -> Option<S> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, session)| session)
    }

    /// The time at which the next session ends, in Unix seconds: the expiry of its token plus the leeway.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.first().map(|(expiry, _)| expiry.get().saturating_add(LEEWAY_SECONDS))
    }

    /// Number of sessions whose tokens have an expiry.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set beside a table of sessions that is searched from end to end, through random arrivals,
    /// new tokens, departures and steps of the clock both ways.
    #[test]
    fn agrees_with_a_table() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut expiries = Expiries::default();
            let mut table: [Option<UnixSeconds>; 20] = [None; 20];
            let mut now = 1000;
            for _ in 0..500 {
                let session = random.usize(..table.len());
                let expiry = UnixSeconds::new(now + random.u64(..50));
                let new = [None, expiry, expiry][random.usize(..3)];
                expiries.replace(session, table[session], new);
                table[session] = new;
                now = (now + random.u64(..4)).saturating_sub(random.u64(..3));
                while let Some(session) = expiries.expired(now) {
                    let ended = table[session].expect("a session with an expiry");
                    assert!(ended.get() + LEEWAY_SECONDS <= now, "{seed}");
                    assert_eq!(table.iter().flatten().min(), Some(&ended), "{seed}");
                    // A session may be taken out again when it leaves.
                    expiries.replace(session, Some(ended), None);
                    table[session] = None;
                }
                let first = table.iter().flatten().min();
                assert_eq!(expiries.next(), first.map(|at| at.get() + LEEWAY_SECONDS), "{seed}");
                assert!(expiries.next().is_none_or(|next| next > now), "{seed}");
                assert_eq!(expiries.len(), table.iter().flatten().count(), "{seed}");
            }
            for (session, expiry) in table.into_iter().enumerate() {
                expiries.replace(session, expiry, None);
            }
            assert_eq!(expiries.len(), 0, "{seed}");
        }
    }

    /// A client that authenticates again and again, with the same token or with two in turns, has one
    /// entry.
    #[test]
    fn one_entry_for_a_session() {
        let tokens = [UnixSeconds::new(1_000_000), UnixSeconds::new(2_000_000)];
        for step in [0, 1] {
            let mut expiries = Expiries::default();
            let mut last = None;
            for turn in 0..1000 {
                let token = tokens[turn * step % 2];
                expiries.replace(7_u32, last, token);
                last = token;
                assert_eq!(expiries.len(), 1);
            }
            expiries.replace(7, last, None);
            assert_eq!((expiries.len(), expiries.next()), (0, None));
        }
    }
}
