//! Checks tokens on one shard, within bounds of what that may cost.

use std::time::Duration;

use super::cache::{Cache, TokenHash};
use super::claims::{Claims, Required};
use super::failures::Failures;
use super::jws::Jws;
use super::keys::Keys;
use super::price::{self, Budget};
use super::{BadToken, User};

/// The keys of a server as one shard uses them.
///
/// A signature check takes up to 0.7 ms, and a token is tried with four keys at most, so a turn has a budget for them, and an address that sends
/// bad tokens gets only so many of them checked. A good token that comes again is known without a
/// check.
pub(crate) struct Verifier {
    keys: Keys,
    required: Required,
    cache: Cache,
    failures: Failures,
    /// What this turn may still spend.
    budget: Budget,
    /// When the tables are trimmed next.
    trim_at: Duration,
    counts: VerifierCounts,
}

/// What a [`Verifier`] says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is this user's.
    Good(User),
    /// It is refused.
    Bad(BadToken),
    /// The budget of this turn is spent: nothing is known of the token. Ask again next turn, in the
    /// order of arrival, and ask for no other that waits once this is the answer.
    NotNow,
    /// The address has sent too many bad tokens: this one was not checked.
    TooMany,
}

/// Totals since the start of the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VerifierCounts {
    /// Signatures that were checked.
    pub(crate) checks: u64,
    /// Tokens that were known without a check.
    pub(crate) cached: u64,
    /// Tokens that were refused because of their address, without a check.
    pub(crate) refused_without_check: u64,
    /// Answers that were put off to a later turn.
    pub(crate) put_off: u64,
}

/// How often the tables are trimmed.
const TRIM_INTERVAL: Duration = Duration::from_secs(10);

impl Verifier {
    /// Checks tokens with `keys`, and that they have what is `required`. Each address may send `failures_per_second` tokens that turn out to
    /// be bad, and twice as many at once.
    pub(crate) fn new(keys: Keys, required: Required, failures_per_second: u32) -> Self {
        Verifier {
            keys,
            required,
            cache: Cache::default(),
            failures: Failures::new(failures_per_second),
            budget: Budget::of_turn(),
            trim_at: Duration::ZERO,
            counts: VerifierCounts::default(),
        }
    }

    /// Checks tokens with these keys from now on. Tokens that were verified with others are verified
    /// again.
    pub(crate) fn replace_keys(&mut self, keys: Keys) {
        self.keys = keys;
        self.cache = Cache::default();
    }

    /// A turn begins, at `now` since the start: there is a new budget.
    pub(crate) fn begin_turn(&mut self, now: Duration) {
        self.budget = Budget::of_turn();
        if now >= self.trim_at {
            self.cache.trim(now);
            self.failures.trim(now);
            self.trim_at = now.saturating_add(TRIM_INTERVAL);
        }
    }

    /// Says whose `token` is. `address` is the key of the peer's address, or `None` if its failures
    /// are not counted; `now` is the time since the start and `unix` the wall clock in seconds.
    ///
    /// At least one token is checked in each turn, so a turn spends at most its budget and one check.
    pub(crate) fn check(
        &mut self,
        token: &str,
        address: Option<u32>,
        now: Duration,
        unix: u64,
    ) -> Verdict {
        if self.keys.is_empty() {
            return Verdict::Bad(BadToken::NoKeys);
        }
        let hash = TokenHash::of(token);
        if let Some(known) = hash.and_then(|hash| self.cached(&hash, unix)) {
            self.counts.cached += 1;
            return known;
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
        match verified {
            Ok((user, claims)) => {
                if let Some(hash) = hash {
                    self.cache.insert(hash, claims);
                }
                Verdict::Good(user)
            }
            Err(bad) => {
                if let Some(address) = address {
                    self.failures.count(address, now);
                }
                Verdict::Bad(bad)
            }
        }
    }

    /// What has been counted.
    pub(crate) fn counts(&self) -> VerifierCounts {
        self.counts
    }

    /// Tokens and addresses that are kept: 0 when nothing has come for ten minutes of turns.
    pub(crate) fn kept(&self) -> usize {
        self.cache.len() + self.failures.len()
    }

    /// What a token that is kept says now. It is kept no longer once it has expired.
    fn cached(&mut self, hash: &TokenHash, unix: u64) -> Option<Verdict> {
        match self.cache.get(hash)?.at(unix) {
            Ok(user) => Some(Verdict::Good(user.clone())),
            Err(bad) => {
                self.cache.remove(hash);
                Some(Verdict::Bad(bad))
            }
        }
    }

    /// Reads a token and checks its signature, and takes what that costs off the budget.
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
        Claims::parse(&jws.payload()?, &self.required)
    }
}
