//! Delivery tokens: of the shards that share a core, one at a time makes long fan-outs.
//!
//! A fan-out to thousands of subscribers keeps a core busy for many turns. If all shards of a core did
//! that at once, the connections of each would wait for the time slices of all others. So each core has
//! one token, and a shard needs it to continue deliveries after its first turn of them. The other shards
//! sleep until a connection or the token wakes them, and the scheduler soon runs a thread that slept.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use murre_router::Shard;

/// The tokens of all cores.
pub(crate) struct DeliveryTokens {
    tokens: Box<[Mutex<Token>]>,
    /// By shard, the token of its core.
    of: Box<[usize]>,
}

/// One core's token.
#[derive(Default)]
struct Token {
    holder: Option<Shard>,
    /// The shards that wait, in the order in which they asked.
    waiting: VecDeque<Shard>,
}

impl DeliveryTokens {
    /// For shards that run on these cores.
    pub(crate) fn new(cores: &[usize]) -> Self {
        let mut known = cores.to_vec();
        known.sort_unstable();
        known.dedup();
        let place = |core| known.binary_search(core).expect("each is among them");
        DeliveryTokens {
            of: cores.iter().map(place).collect(),
            tokens: known.iter().map(|_| Mutex::default()).collect(),
        }
    }

    fn of(&self, shard: Shard) -> MutexGuard<'_, Token> {
        let token = &self.tokens[self.of[usize::from(shard)]];
        // No code that holds the lock can panic.
        token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the token. Returns whether the shard has it now; if not, a later [`pass`](Self::pass) or
    /// [`retire`](Self::retire) of another shard returns this shard.
    pub(crate) fn take(&self, shard: Shard) -> bool {
        let mut token = self.of(shard);
        let holder = *token.holder.get_or_insert(shard);
        if holder != shard && !token.waiting.contains(&shard) {
            token.waiting.push_back(shard);
        }
        holder == shard
    }

    /// Passes the token on after a turn of the shard that has it. With `more` to deliver the shard waits
    /// for the token again. Returns the shard that has the token now, if that is another one.
    pub(crate) fn pass(&self, shard: Shard, more: bool) -> Option<Shard> {
        let mut token = self.of(shard);
        debug_assert_eq!(token.holder, Some(shard), "it has the token");
        let next = token.waiting.pop_front();
        match next {
            Some(_) if more => token.waiting.push_back(shard),
            None if more => return None,
            _ => {}
        }
        token.holder = next;
        next
    }

    /// Removes a shard that ends, and passes the token on if it has it. Returns the shard that got it.
    pub(crate) fn retire(&self, shard: Shard) -> Option<Shard> {
        let mut token = self.of(shard);
        token.waiting.retain(|&waiting| waiting != shard);
        if token.holder != Some(shard) {
            return None;
        }
        token.holder = token.waiting.pop_front();
        token.holder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core's token goes round, another core's is independent of it, a shard that asks twice waits
    /// once, and the last shard that has something to deliver keeps it.
    #[test]
    fn one_shard_of_a_core_at_a_time_and_all_in_turn() {
        let tokens = DeliveryTokens::new(&[4, 7, 4, 7, 4]);
        assert!(tokens.take(0) && tokens.take(0) && tokens.take(1));
        assert!(!tokens.take(2) && !tokens.take(4) && !tokens.take(2));
        assert_eq!(tokens.pass(0, true), Some(2));
        assert!(!tokens.take(0) && tokens.take(2));
        assert_eq!(tokens.pass(2, false), Some(4));
        assert_eq!(tokens.pass(4, true), Some(0));
        assert_eq!(tokens.pass(0, false), Some(4));
        assert_eq!(tokens.pass(4, true), None);
        assert!(tokens.take(4));
        assert_eq!(tokens.pass(4, false), None);
        assert!(tokens.take(2), "it was free");
        assert!(tokens.take(1), "untouched meanwhile");
    }

    /// A shard that has ended holds nothing up: it passes the token on, and is not given it.
    #[test]
    fn a_shard_that_ends_passes_it_on() {
        let tokens = DeliveryTokens::new(&[0, 0, 0]);
        assert!(tokens.take(0) && !tokens.take(1) && !tokens.take(2));
        assert_eq!(tokens.retire(1), None, "it only waited");
        assert_eq!(tokens.retire(0), Some(2));
        assert!(tokens.take(2));
        assert_eq!(tokens.retire(2), None);
        assert!(tokens.take(1), "nobody holds it");
    }
}
