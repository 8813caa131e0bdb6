//! Checks tokens on one shard, within limits on the cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::value::RawValue;

use super::cache::{Cache, TokenHash};
use super::claims::{Claims, Required, SubscriptionToken, Token};
use super::failures::Failures;
use super::grants::{Grants, SharedGrants};
use super::jws::Jws;
use super::keys::Keys;
use super::price::{self, Budget};
use super::{BadToken, User};

/// The verifier of tokens of one shard.
///
/// A signature check takes up to 0.7 ms, and a token may need up to four checks. So each turn has a
/// budget for checks, and each address has a rate limit on bad tokens. A good token that comes
/// again is found in the cache.
pub(crate) struct Verifier {
    keys: Keys,
    required: Required,
    /// Set to ask for newer keys; `None` if no others can be had.
    wanted: Option<Arc<AtomicBool>>,
    cache: Cache,
    grants: SharedGrants,
    failures: Failures,
    /// The budget that is left of this turn.
    budget: Budget,
    /// The time of the next trim of the tables.
    trim_at: Duration,
    counts: VerifierCounts,
}

/// The result of [`Verifier::check`] for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T = User> {
    /// The token is good: the user of a connection, or a subscription.
    Good(T),
    /// The token is refused for this reason.
    Bad(BadToken),
    /// The budget of this turn is spent, and the token was not checked. The caller checks it again
    /// in the next turn, in the order of arrival, and checks no other token in this turn.
    NotNow,
    /// The address has sent too many bad tokens, so this token was refused without a check.
    TooMany,
}

/// Counts of checks since the start of the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VerifierCounts {
    /// Signature checks.
    pub(crate) checks: u64,
    /// Tokens that were found in the cache.
    pub(crate) cached: u64,
    /// Tokens that were refused without a check, because their address had sent too many bad ones.
    pub(crate) refused_without_check: u64,
    /// Checks that were put off to a later turn.
    pub(crate) put_off: u64,
}

/// The time between two trims of the tables.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

impl Verifier {
    /// A verifier that checks tokens with `keys` and requires the claims `required`. Each address
    /// may send `failures_per_second` bad tokens per second, and twice as many at once.
    pub(crate) fn new(keys: Keys, required: Required, failures_per_second: u32) -> Self {
        Verifier {
            keys,
            required,
            wanted: None,
            cache: Cache::default(),
            grants: SharedGrants::default(),
            failures: Failures::new(failures_per_second),
            budget: Budget::of_turn(),
            trim_at: Duration::ZERO,
            counts: VerifierCounts::default(),
        }
    }

    /// The same verifier, which sets `wanted` when a token needs a key that it has not.
    pub(crate) fn asking(self, wanted: Option<Arc<AtomicBool>>) -> Self {
        Verifier { wanted, ..self }
    }

    /// Replaces the keys and clears the cache, so that known tokens are verified again.
    pub(crate) fn replace_keys(&mut self, keys: Keys) {
        self.keys = keys;
        self.cache = Cache::default();
    }

    /// Begins a turn with a new budget. `now` is the time since the start.
    pub(crate) fn begin_turn(&mut self, now: Duration) {
        self.budget = Budget::of_turn();
        if now >= self.trim_at {
            self.cache.trim(now);
            self.grants.trim();
            self.failures.trim(now);
            self.trim_at = now.saturating_add(TRIM_INTERVAL);
        }
    }

    /// Finds the user of `token`, which is presented for a connection. `address` is the key of the
    /// peer's address, or `None` if its failures are not counted. `now` is the time since the start,
    /// and `unix` the wall clock in Unix seconds.
    ///
    /// Every turn checks at least one token, so a turn spends at most its budget and one check.
    pub(crate) fn check(
        &mut self,
        token: &str,
        address: Option<u32>,
        now: Duration,
        unix: u64,
    ) -> Verdict {
        self.check_for(token, address, now, unix, |token| match token {
            Token::Connection(user) => Ok(user),
            Token::Subscription(_) => Err(BadToken::ForSubscription),
        })
    }

    /// [`check`](Self::check) of a token that `user` presents for the subscription to `channel`.
    pub(crate) fn check_subscription(
        &mut self,
        token: &str,
        (channel, user): (&str, Option<&str>),
        address: Option<u32>,
        now: Duration,
        unix: u64,
    ) -> Verdict<SubscriptionToken> {
        self.check_for(token, address, now, unix, |token| match token {
            Token::Connection(_) => Err(BadToken::ForConnection),
            Token::Subscription(token) if *token.channel != *channel => Err(BadToken::OtherChannel),
            Token::Subscription(token) if token.user.as_deref() != user => Err(BadToken::OtherUser),
            Token::Subscription(token) => Ok(token),
        })
    }

    /// Checks a token, and whether it is for the purpose that `purpose` tests.
    fn check_for<T>(
        &mut self,
        token: &str,
        address: Option<u32>,
        now: Duration,
        unix: u64,
        purpose: impl FnOnce(Token) -> Result<T, BadToken>,
    ) -> Verdict<T> {
        if self.keys.is_empty() {
            self.ask_for_keys();
            let why = if self.wanted.is_some() { BadToken::NoKeysYet } else { BadToken::NoKeys };
            return Verdict::Bad(why);
        }
        let hash = TokenHash::of(token);
        if let Some(known) = hash.and_then(|hash| self.cached(&hash, unix)) {
            self.counts.cached += 1;
            return known.and_then(purpose).map_or_else(Verdict::Bad, Verdict::Good);
        }
        if address.is_some_and(|address| !self.failures.allows(address, now)) {
            self.counts.refused_without_check += 1;
            return Verdict::TooMany;
        }
        if self.budget.is_spent() {
            self.counts.put_off += 1;
            return Verdict::NotNow;
        }
        let verified = self.verify(token).and_then(|claims| Ok((claims.at(unix)?.clone(), claims)));
        let fits = verified.and_then(|(token, claims)| {
            if let Some(hash) = hash {
                self.cache.insert(hash, claims);
            }
            purpose(token)
        });
        match fits {
            Ok(good) => Verdict::Good(good),
            Err(bad) => {
                if matches!(bad, BadToken::KeyId | BadToken::Algorithm) {
                    self.ask_for_keys();
                }
                if let Some(address) = address {
                    self.failures.count(address, now);
                }
                Verdict::Bad(bad)
            }
        }
    }

    /// The rights of the claims `channels` and `subs`, as a token has them.
    ///
    /// # Errors
    /// As of a token.
    pub(crate) fn grants(
        &mut self,
        channels: Option<&RawValue>,
        subs: Option<&RawValue>,
    ) -> Result<Option<Arc<Grants>>, BadToken> {
        let grants = Grants::parse(channels, subs)?;
        Ok(grants.map(|grants| self.grants.share(grants)))
    }

    /// The counts of this verifier.
    pub(crate) fn counts(&self) -> VerifierCounts {
        self.counts
    }

    /// The number of cached tokens, addresses and shared grants; 0 after ten minutes of turns without
    /// tokens.
    pub(crate) fn kept(&self) -> usize {
        self.cache.len() + self.failures.len() + self.grants.len()
    }

    fn ask_for_keys(&self) {
        if let Some(wanted) = &self.wanted {
            wanted.store(true, Ordering::Relaxed);
        }
    }

    /// A cached token, or why it is not valid now; `None` if it is not cached. A token that is not
    /// valid now is removed from the cache.
    fn cached(&mut self, hash: &TokenHash, unix: u64) -> Option<Result<Token, BadToken>> {
        let token = self.cache.get(hash)?.at(unix).cloned();
        if token.is_err() {
            self.cache.remove(hash);
        }
        Some(token)
    }

    /// Parses a token, checks its signature, and subtracts the cost from the budget.
    fn verify(&mut self, token: &str) -> Result<Claims, BadToken> {
        self.budget.spend(price::of_bytes(token.len()));
        let jws = Jws::parse(token)?;
        let mut verified = Err(BadToken::Signature);
        for key in self.keys.of(&jws)? {
            self.counts.checks += 1;
            self.budget.spend(key.price());
            verified = key.verify(&jws);
            if verified.is_ok() {
                break;
            }
        }
        verified?;
        Claims::parse(&jws.payload()?, &self.required, &mut self.grants)
    }
}
