//! A cache of verified tokens, so that a client that reconnects costs no signature check.
//!
//! The cache has two generations. A token enters the young generation. When that is full or five
//! minutes old, it becomes the old generation, and the former old generation is dropped. A token
//! that is used while it is in the old generation moves to the young one. So an unused token is
//! dropped within ten minutes, and memory is bounded without a list of times of use.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::claims::Claims;

/// The SHA-256 of a token, the key of the cache. It is infeasible to find another token with the
/// same hash, and the token itself, which is a secret, is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of `token`; `None` if it has more than [`TOKEN_BYTES_MAX`] bytes, because the
    /// budget of a turn does not count the hash.
    pub(super) fn of(token: &str) -> Option<Self> {
        let hash = || TokenHash(Sha256::digest(token).into());
        (token.len() <= TOKEN_BYTES_MAX).then(hash)
    }
}

/// The verified tokens of one shard.
#[derive(Default)]
pub(super) struct Cache {
    young: Generation,
    old: Generation,
    /// The time at which the young generation began, on the shard's clock.
    began: Duration,
}

#[derive(Default)]
struct Generation {
    tokens: HashMap<TokenHash, Claims>,
    /// Bytes of all entries, with their bytes on the heap.
    bytes: usize,
}

/// Longest token that is cached, in bytes. Longer tokens are verified each time.
const TOKEN_BYTES_MAX: usize = 4096;
/// The most entries of one generation: as many as a table of 2,048 slots has room for, so that a full
/// generation leaves no slots empty.
const GENERATION_TOKENS_MAX: usize = 2048 / 8 * 7;
/// The bytes at which a generation is full: as many users with names of 50 bytes.
const GENERATION_BYTES_MAX: usize = 256 << 10;
const GENERATION_TIME: Duration = Duration::from_secs(300);

impl Cache {
    /// The claims of a cached token.
    pub(super) fn get(&mut self, hash: &TokenHash) -> Option<&Claims> {
        if let Some(claims) = self.old.remove(hash) {
            self.insert(*hash, claims);
        }
        self.young.tokens.get(hash)
    }

    /// Caches the claims of a verified token.
    pub(super) fn insert(&mut self, hash: TokenHash, claims: Claims) {
        self.young.insert(hash, claims);
        if self.young.is_full() {
            self.age();
        }
    }

    /// Removes a token.
    pub(super) fn remove(&mut self, hash: &TokenHash) {
        self.young.remove(hash);
        self.old.remove(hash);
    }

    /// Starts a new generation if the young one is five minutes old at `now` on the shard's clock.
    pub(super) fn trim(&mut self, now: Duration) {
        if now.saturating_sub(self.began) >= GENERATION_TIME {
            self.age();
            self.began = now;
        }
    }

    /// The number of cached tokens.
    pub(super) fn len(&self) -> usize {
        self.young.tokens.len() + self.old.tokens.len()
    }

    fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

impl Generation {
    fn insert(&mut self, hash: TokenHash, claims: Claims) {
        self.bytes += bytes(&claims);
        if let Some(before) = self.tokens.insert(hash, claims) {
            self.bytes -= bytes(&before);
        }
    }

    fn remove(&mut self, hash: &TokenHash) -> Option<Claims> {
        let claims = self.tokens.remove(hash)?;
        self.bytes -= bytes(&claims);
        Some(claims)
    }

    fn is_full(&self) -> bool {
        self.tokens.len() >= GENERATION_TOKENS_MAX || self.bytes >= GENERATION_BYTES_MAX
    }
}

fn bytes(claims: &Claims) -> usize {
    size_of::<(TokenHash, Claims)>() + claims.heap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(token: &str) -> TokenHash {
        TokenHash::of(token).expect("it is short")
    }

    /// The byte count is the sum of the entries: inserting a token again and removing a token leave
    /// no bytes behind.
    #[test]
    fn bytes_are_given_back() {
        let claims =
            Claims::parse(br#"{"sub":"alice"}"#, &Default::default(), &mut Default::default())
                .expect("they are claims");
        let mut cache = Cache::default();
        cache.insert(hash("first"), claims.clone());
        for _ in 0..10 * GENERATION_BYTES_MAX / bytes(&claims) {
            cache.insert(hash("kept"), claims.clone());
            cache.insert(hash("forgotten"), claims.clone());
            cache.remove(&hash("forgotten"));
            assert_eq!((cache.len(), cache.young.bytes), (2, 2 * bytes(&claims)));
        }
    }
}
