//! Authentication of users: JSON Web Tokens, the keys that verify them, and limits on the cost of
//! it.
//!
//! [`Verifier`] looks a token up in the [`cache`]. If it is unknown, the verifier refuses it when
//! its address has sent too many bad tokens ([`failures`]), and puts it off when the budget of the
//! turn is spent ([`price`]). Otherwise it splits the token ([`jws`]), checks its signature
//! ([`keys`], [`key`], [`key_set`]) and parses its [`claims`] with the rights that it [`grants`].

mod bad_token;
mod cache;
mod claims;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod claims_oracle;
mod failures;
mod grants;
mod inspect;
mod jws;
mod key;
mod key_set;
mod keys;
mod price;
mod signer;
mod verifier;

pub(crate) use bad_token::BadToken;
pub(crate) use claims::{LEEWAY_SECONDS, Required, SubscriptionToken, Token, UnixSeconds, User};
pub(crate) use grants::{Grants, Right};
pub(crate) use inspect::{Inspected, check_claims, inspect};
pub(crate) use keys::{KeyFiles, Keys};
pub(crate) use signer::Signer;
pub(crate) use verifier::{Verdict, Verifier, VerifierCounts};

#[cfg(test)]
mod tests;
