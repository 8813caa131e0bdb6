//! Users: JSON Web Tokens, the keys they are verified with, and what that may cost.
//!
//! A token goes through [`Verifier`]: it is known ([`cache`]), or refused or put off for what its
//! address and its turn have cost ([`failures`], [`price`]), or taken apart ([`jws`]), verified
//! ([`keys`], [`jwks`]) and read ([`claims`]).

mod bad_token;
mod cache;
mod claims;
mod failures;
mod jwks;
mod jws;
mod keys;
mod price;
mod verifier;

pub(crate) use bad_token::BadToken;
pub(crate) use claims::{LEEWAY_SECONDS, Required, UnixSeconds, User};
pub(crate) use keys::{KeyFiles, Keys};
pub(crate) use verifier::{Verdict, Verifier, VerifierCounts};

#[cfg(test)]
mod tests;
