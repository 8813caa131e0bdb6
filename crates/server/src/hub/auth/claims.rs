//! The claims of a token: its user, the time in which it is valid (RFC 7519 section 4.1), and its
//! rights in channels.

use std::num::NonZeroU64;
use std::sync::Arc;

use murre_router::presence::UserName;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::BadToken;
use super::grants::{Grants, SharedGrants};
use super::jws::object;

/// A time in whole seconds since 1970, from second 1 to the end of the year 9999. The bound makes
/// overflow impossible when the time is added to a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnixSeconds(NonZeroU64);

impl UnixSeconds {
    /// The end of the year 9999, the last year that RFC 3339 can write. A later expiry counts as no
    /// expiry.
    pub(crate) const MAX: u64 = 253_402_300_799;

    /// `seconds` as an expiry: `None` after [`MAX`](Self::MAX), and second 1 for second 0.
    pub(crate) fn new(seconds: u64) -> Option<Self> {
        let seconds = NonZeroU64::new(seconds).unwrap_or(NonZeroU64::MIN);
        (seconds.get() <= Self::MAX).then_some(UnixSeconds(seconds))
    }

    /// Seconds since 1970.
    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }
}

/// The user of a token. A session stores it for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// Shared with the members that the session is in channels.
    pub(crate) name: UserName,
    /// The time at which the token expires; `None` means never.
    pub(crate) expires: Option<UnixSeconds>,
    /// The rights in channels that the token grants; `None` means those of the namespace's rules.
    /// Users of a shard whose tokens grant the same share them.
    pub(crate) grants: Option<Arc<Grants>>,
}

const _: () = assert!(size_of::<Option<User>>() == 24);

/// A token for one channel, which a session presents when it subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionToken {
    /// The user who may subscribe; `None` is a session without a user.
    pub(crate) user: Option<Box<str>>,
    pub(crate) channel: Box<str>,
    /// The time at which the subscription ends; `None` means never.
    pub(crate) expires: Option<UnixSeconds>,
}

/// Whether a token has expired at `now`, in Unix seconds: [`LEEWAY_SECONDS`] after its `exp`.
fn has_expired(expires: Option<UnixSeconds>, now: u64) -> bool {
    let expires = expires.map(|expires| expires.get().saturating_add(LEEWAY_SECONDS));
    expires.is_some_and(|expires| now >= expires)
}

/// The most seconds by which the clock of a token's issuer may differ from the server's.
pub(crate) const LEEWAY_SECONDS: u64 = 10;
const USER_BYTES_MAX: usize = 255;

/// The claims of a token with a valid signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    token: Token,
    /// The time before which the token is not valid, in Unix seconds; 0 without `nbf`.
    not_before: u64,
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A connection.
    Connection(User),
    /// The subscription to one channel: the token has the claim `channel`.
    Subscription(SubscriptionToken),
}

impl Token {
    fn expires(&self) -> Option<UnixSeconds> {
        match self {
            Token::Connection(user) => user.expires,
            Token::Subscription(token) => token.expires,
        }
    }
}

/// The claims that the server requires besides a valid signature. `None` requires nothing, and the
/// claim is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Required {
    /// The text that `aud` must name (RFC 7519 section 4.1.3).
    pub(crate) audience: Option<Box<str>>,
    /// The text that `iss` must be (RFC 7519 section 4.1.1).
    pub(crate) issuer: Option<Box<str>>,
}

/// The claims as JSON values. A claim that is `null` is present and has the wrong type.
#[derive(Deserialize)]
struct RawClaims<'c> {
    #[serde(borrow, default, deserialize_with = "present")]
    sub: Option<&'c RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    exp: Option<&'c RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    nbf: Option<&'c RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    aud: Option<&'c RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    iss: Option<&'c RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    channel: Option<&'c RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    channels: Option<&'c RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    subs: Option<&'c RawValue>,
}

impl Required {
    fn check(&self, raw: &RawClaims<'_>) -> Result<(), BadToken> {
        if let Some(issuer) = &self.issuer {
            let claim = raw.iss.ok_or(BadToken::Issuer)?;
            let claim: Box<str> = parsed(claim).ok_or(BadToken::IssuerType)?;
            if claim != *issuer {
                return Err(BadToken::Issuer);
            }
        }
        if let Some(audience) = &self.audience {
            let claim = raw.aud.ok_or(BadToken::Audience)?;
            let one = parsed(claim).map(|one: Box<str>| vec![one]);
            let all = one.or_else(|| parsed(claim)).ok_or(BadToken::AudienceType)?;
            if !all.contains(audience) {
                return Err(BadToken::Audience);
            }
        }
        Ok(())
    }
}

fn parsed<T: serde::de::DeserializeOwned>(claim: &RawValue) -> Option<T> {
    serde_json::from_str(claim.get()).ok()
}

impl Claims {
    /// Parses the claims, a JSON object.
    ///
    /// # Errors
    /// The claim that is missing, has the wrong type or has a wrong value.
    pub(super) fn parse(
        json: &[u8],
        required: &Required,
        shared: &mut SharedGrants,
    ) -> Result<Claims, BadToken> {
        let raw: RawClaims<'_> = object(json)?;
        required.check(&raw)?;
        let expires = match raw.exp {
            Some(exp) => expiry(seconds(exp).ok_or(BadToken::ExpiryType)?),
            None => None,
        };
        let not_before = match raw.nbf {
            // The time is rounded up, so that the token is not valid before it. The conversion to
            // an integer saturates.
            Some(nbf) => seconds(nbf).ok_or(BadToken::NotBeforeType)?.ceil() as u64,
            None => 0,
        };
        let token = match raw.channel {
            Some(channel) => Token::Subscription(SubscriptionToken {
                user: raw.sub.map(name).transpose()?,
                channel: name(channel).map_err(|_| BadToken::Channel)?,
                expires,
            }),
            None => {
                let name = name(raw.sub.ok_or(BadToken::Subject)?)?;
                let grants = Grants::parse(raw.channels, raw.subs)?;
                let grants = grants.map(|grants| shared.share(grants));
                Token::Connection(User { name: name.into(), expires, grants })
            }
        };
        Ok(Claims { token, not_before })
    }

    /// The time before which the token is not valid, in Unix seconds; 0 without `nbf`.
    pub(super) fn not_before(&self) -> u64 {
        self.not_before
    }

    /// The token, whatever the time.
    pub(super) fn into_token(self) -> Token {
        self.token
    }

    /// The token at `now`, in Unix seconds.
    ///
    /// # Errors
    /// The token is not valid yet, or has expired.
    pub(super) fn at(&self, now: u64) -> Result<&Token, BadToken> {
        if self.not_before > now.saturating_add(LEEWAY_SECONDS) {
            return Err(BadToken::TooEarly);
        }
        if has_expired(self.token.expires(), now) {
            return Err(BadToken::Expired);
        }
        Ok(&self.token)
    }

    /// The bytes that the claims take on the heap. Grants count in full, although others may share
    /// them.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.token {
            Token::Connection(User { name, grants, .. }) => {
                name.len() + grants.as_ref().map_or(0, |grants| grants.heap_bytes())
            }
            Token::Subscription(SubscriptionToken { user, channel, .. }) => {
                user.as_ref().map_or(0, |user| user.len()) + channel.len()
            }
        }
    }
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

fn name(sub: &RawValue) -> Result<Box<str>, BadToken> {
    if !sub.get().starts_with('"') {
        return Err(BadToken::SubjectType);
    }
    // A string with invalid escapes is not a name.
    let name: Box<str> = serde_json::from_str(sub.get()).map_err(|_| BadToken::Subject)?;
    let fits = (1..=USER_BYTES_MAX).contains(&name.len());
    if fits && !name.contains(char::is_control) { Ok(name) } else { Err(BadToken::Subject) }
}

/// The number in a claim, of any size and with any fraction (RFC 7519 section 2, NumericDate);
/// `None` if the claim is not a number. A number that is too large for a float becomes infinite.
fn seconds(claim: &RawValue) -> Option<f64> {
    let text = claim.get();
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// An expiry, rounded down. A time before 1970 becomes second 1, which has passed. A time after the
/// year 9999 is no expiry.
fn expiry(seconds: f64) -> Option<UnixSeconds> {
    UnixSeconds::new(seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_500_000_000;

    fn parse(claims: &str) -> Result<Claims, BadToken> {
        Claims::parse(claims.as_bytes(), &Required::default(), &mut SharedGrants::default())
    }

    /// The expiry of a token with the number `exp`, at the time `now`.
    fn expires(exp: &str, now: u64) -> Result<Option<u64>, BadToken> {
        let claims = parse(&format!(r#"{{"sub":"alice","exp":{exp}}}"#))?;
        claims.at(now).map(|token| token.expires().map(UnixSeconds::get))
    }

    /// Every number in `exp` is a past expiry, a future expiry or no expiry, and none overflows.
    #[test]
    fn expiries_of_every_size() {
        let (past, never) = (Err(BadToken::Expired), Ok(None));
        for (exp, expected) in [
            ("0", past),
            ("-0", past),
            ("-0.0", past),
            ("-1", past),
            ("-1e300", past),
            ("-1e400", past),
            ("1e-400", past),
            ("1", past),
            ("2147483648", Ok(Some(1 << 31))),
            ("4294967296", Ok(Some(1 << 32))),
            ("253402300799", Ok(Some(UnixSeconds::MAX))),
            ("253402300799.9", Ok(Some(UnixSeconds::MAX))),
            ("253402300800", never),
            ("9007199254740992", never),
            ("9223372036854775807", never),
            ("9223372036854775808", never),
            ("18446744073709551610", never),
            ("18446744073709551615", never),
            ("18446744073709551616", never),
            ("1e19", never),
            ("1E+19", never),
            ("1e300", never),
            ("1e400", never),
            ("123456789012345678901234567890123456789012345678901234567890", never),
        ] {
            assert_eq!(expires(exp, NOW), expected, "{exp}");
            // No clock makes the comparison overflow.
            for now in [0, 1, 1 << 31, 1 << 53, u64::MAX - 5, u64::MAX] {
                let _ = expires(exp, now);
            }
        }
        assert_eq!(expires("1e400", u64::MAX), never);
    }

    /// Every number in `nbf` is a time before which the token is not valid.
    #[test]
    fn beginnings_of_every_size() {
        for (nbf, first) in [
            ("0", 0),
            ("-1", 0),
            ("-1e400", 0),
            ("1e-400", 0),
            ("2147483648", (1 << 31) - 10),
            ("4294967296", (1 << 32) - 10),
            ("9007199254740992", (1 << 53) - 10),
            ("9223372036854775808", (1 << 63) - 10),
            ("18446744073709551615", u64::MAX - 10),
            ("1e19", 10_000_000_000_000_000_000 - 10),
            ("1e300", u64::MAX - 10),
            ("1e400", u64::MAX - 10),
        ] {
            let claims = parse(&format!(r#"{{"sub":"alice","nbf":{nbf}}}"#)).expect(nbf);
            assert!(claims.at(first).is_ok(), "{nbf}");
            if let Some(before) = first.checked_sub(1) {
                assert_eq!(claims.at(before), Err(BadToken::TooEarly), "{nbf}");
            }
        }
    }

    /// Times are exact to the second, with ten seconds of leeway, and may have fractions.
    #[test]
    fn times() {
        assert_eq!(expires("1000", 1009), Ok(Some(1000)));
        assert_eq!(expires("1000", 1010), Err(BadToken::Expired));
        assert_eq!(expires("1000.9", 1009), Ok(Some(1000)));
        assert_eq!(expires("1000.9", 1010), Err(BadToken::Expired));
        for (nbf, first) in [("1000", 990), ("1000.1", 991), ("1e3", 990)] {
            let claims = parse(&format!(r#"{{"sub":"alice","nbf":{nbf}}}"#)).expect(nbf);
            assert_eq!(claims.at(first - 1), Err(BadToken::TooEarly), "{nbf}");
            assert!(claims.at(first).is_ok(), "{nbf}");
        }
    }

    /// A claim of the wrong type is refused with a sentence that names it, and never taken for
    /// absent.
    #[test]
    fn wrong_types() {
        for value in ["null", "true", "\"123\"", "\"NaN\"", "[1]", "{}"] {
            for (claim, refused) in
                [("exp", BadToken::ExpiryType), ("nbf", BadToken::NotBeforeType)]
            {
                let json = format!(r#"{{"sub":"alice","{claim}":{value}}}"#);
                assert_eq!(parse(&json), Err(refused), "{json}");
                assert!(refused.sentence().starts_with(&format!("`{claim}` in a token is a")));
            }
        }
        for value in ["null", "true", "42", "-1", "1e400", "[\"alice\"]", "{}"] {
            let json = format!(r#"{{"sub":{value}}}"#);
            assert_eq!(parse(&json), Err(BadToken::SubjectType), "{json}");
        }
        for json in [
            "",
            "null",
            "[]",
            "[\"alice\"]",
            "\"alice\"",
            "{",
            "{\"sub\":\"alice\"",
            "{\"sub\":\"alice\"}}",
            r#"{"sub":"alice","exp":NaN}"#,
            r#"{"sub":"alice","exp":Infinity}"#,
            r#"{"sub":"alice","exp":01}"#,
            r#"{"sub":"alice","exp":+1}"#,
            r#"{"sub":"alice","exp":1.}"#,
            r#"{"sub":"alice","exp":1,"exp":2}"#,
            r#"{"sub":"alice","sub":"mallory"}"#,
        ] {
            assert_eq!(parse(json), Err(BadToken::Malformed), "{json}");
        }
    }

    /// `sub` names the user and must be a valid name; unknown claims of any type are ignored.
    #[test]
    fn names() {
        for name in ["", "a\\nb", "\\u0000", "\\u0085", "\\ud800", &"n".repeat(256)] {
            let json = format!(r#"{{"sub":"{name}"}}"#);
            assert_eq!(parse(&json), Err(BadToken::Subject), "{json}");
        }
        assert_eq!(parse(r#"{"iss":"x"}"#), Err(BadToken::Subject));
        for (name, read) in [("\\u00e9", "\u{e9}"), (&*"n".repeat(255), &*"n".repeat(255))] {
            let json = format!(r#"{{"aud":"x","iat":1e400,"sub":"{name}","more":[null,{{}}]}}"#);
            let token = parse(&json).expect("it is a name").token;
            assert!(matches!(token, Token::Connection(user) if *user.name == *read));
        }
    }
}
