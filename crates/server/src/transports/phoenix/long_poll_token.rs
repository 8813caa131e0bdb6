//! The token of a long-poll session, which a client repeats in each of its requests.

use std::hash::{BuildHasher, RandomState};

use murre_router::Shard;

/// A session of this process: its shard, its slot there, and a proof that nobody can guess. The keys of
/// proofs are drawn when the process starts, so the token of another process, or of an earlier session in
/// the same slot, names no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollToken {
    pub(super) shard: Shard,
    pub(super) slot: u32,
    pub(super) proof: u128,
}

/// Tells tokens from those of users, which may have a parameter of the same name.
const PREFIX: &str = "phx.";

impl PollToken {
    /// Reads a token; `None` for other texts.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split('.');
        let [shard, slot, proof] = [parts.next()?, parts.next()?, parts.next()?];
        let token = PollToken {
            shard: shard.parse().ok()?,
            slot: slot.parse().ok()?,
            proof: u128::from_str_radix(proof, 16).ok()?,
        };
        (parts.next().is_none() && token.text() == text).then_some(token)
    }

    /// The token as text, which needs no escapes in JSON and in a query.
    pub(super) fn text(&self) -> String {
        let PollToken { shard, slot, proof } = self;
        format!("{PREFIX}{shard}.{slot}.{proof:032x}")
    }
}

/// Makes proofs, each once.
pub(super) struct Proofs {
    /// Two keys for the keyed hash of the standard library, its only source of unpredictable numbers. Both
    /// come from one secret of 128 bits.
    keys: [RandomState; 2],
    made: u64,
}

impl Default for Proofs {
    fn default() -> Self {
        Proofs { keys: [RandomState::new(), RandomState::new()], made: 0 }
    }
}

impl Proofs {
    pub(super) fn next(&mut self) -> u128 {
        self.made = self.made.wrapping_add(1);
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(self.made)));
        high << 64 | low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token is read back from its text, and no other text is a token.
    #[test]
    fn tokens_are_read_back() {
        let mut proofs = Proofs::default();
        for (shard, slot) in [(0, 0), (3, 77), (Shard::MAX, u32::MAX)] {
            let token = PollToken { shard, slot, proof: proofs.next() };
            assert_eq!(PollToken::read(&token.text()), Some(token));
            assert_ne!(proofs.next(), token.proof);
        }
        let zeros = "0".repeat(32);
        for text in ["", "phx", "phx.", "phx.0.0", "phx.0.0.0", "a.b.c", "phx.-1.0.", "phx.0.+1."] {
            for text in [text.to_owned(), format!("{text}{zeros}x"), format!("{text}.{zeros}.")] {
                assert_eq!(PollToken::read(&text), None, "{text}");
            }
        }
        assert!(PollToken::read(&format!("phx.0.1.{zeros}")).is_some());
        assert!(PollToken::read(&format!("phx.0.+1.{zeros}")).is_none());
        assert!(PollToken::read(&format!("phx.65536.1.{zeros}")).is_none());
    }
}
