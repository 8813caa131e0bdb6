//! Tokens whose signatures were right, so that a client that comes again costs no signature check.
//!
//! There are two generations. A token enters the young one; when that is full or five minutes old, it
//! becomes the old one and what was old is forgotten. A token that is used while it is old becomes
//! young again. So a token that is not used is forgotten within ten minutes, and memory is bounded
//! without a list of who was used when.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::claims::Claims;

/// What stands for a token: nobody can find another token with the same hash, and the token itself,
/// which is a secret, is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of `token`; `None` if it is too long to be kept, as hashing it is not paid for.
    pub(super) fn of(token: &str) -> Option<Self> {
        let hash = || TokenHash(Sha256::digest(token).into());
        (token.len() <= TOKEN_BYTES_MAX).then(hash)
    }
}

/// Good tokens of one shard.
#[derive(Default)]
pub(super) struct Cache {
    young: Generation,
    old: Generation,
    /// When the young generation began.
    began: Duration,
}

#[derive(Default)]
struct Generation {
    tokens: HashMap<TokenHash, Claims>,
    /// Bytes of all entries, with those on the heap.
    bytes: usize,
}

/// Longer tokens are checked each time.
const TOKEN_BYTES_MAX: usize = 4096;
/// Entries of one generation.
const GENERATION_TOKENS_MAX: usize = 2048;
/// Bytes of one generation: some 2,000 users with names of 50 bytes.
const GENERATION_BYTES_MAX: usize = 256 << 10;
const GENERATION_TIME: Duration = Duration::from_secs(300);

impl Cache {
    /// The claims of a token that is kept.
    pub(super) fn get(&mut self, hash: &TokenHash) -> Option<&Claims> {
        if let Some(claims) = self.old.remove(hash) {
            self.insert(*hash, claims);
        }
        self.young.tokens.get(hash)
    }

    /// Keeps the claims of a token whose signature is right.
    pub(super) fn insert(&mut self, hash: TokenHash, claims: Claims) {
        self.young.insert(hash, claims);
        if self.young.is_full() {
            self.age();
        }
    }

    /// Forgets a token.
    pub(super) fn remove(&mut self, hash: &TokenHash) {
        self.young.remove(hash);
        self.old.remove(hash);
    }

    /// Forgets tokens that have not been used for long, at `now` on the shard's clock.
    pub(super) fn trim(&mut self, now: Duration) {
        if now.saturating_sub(self.began) >= GENERATION_TIME {
            self.age();
            self.began = now;
        }
    }

    /// Tokens that are kept.
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

    /// Bytes are those of the entries that are there: a token that is kept again and again, or
    /// forgotten, takes no room from others.
    #[test]
    fn bytes_are_given_back() {
        let claims =
            Claims::parse(br#"{"sub":"alice"}"#, &Default::default()).expect("they are claims");
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
