//! Checks one token without limits on the cost, for `murre token`.

use super::BadToken;
use super::claims::{Claims, Required, Token};
use super::grants::SharedGrants;
use super::jws::Jws;
use super::keys::Keys;

/// A token with a good signature.
pub(crate) struct Inspected {
    pub(crate) algorithm: String,
    pub(crate) key_id: Option<Box<str>>,
    pub(crate) token: Token,
    /// The time before which it is not valid, in Unix seconds; 0 without `nbf`.
    pub(crate) not_before: u64,
    /// Whether it is valid now, or why not.
    pub(crate) valid: Result<(), BadToken>,
}

/// Checks a token at `now`, in Unix seconds.
///
/// # Errors
/// The token cannot be read, or its signature or its claims are wrong.
pub(crate) fn inspect(
    token: &str,
    keys: &Keys,
    required: &Required,
    now: u64,
) -> Result<Inspected, BadToken> {
    let jws = Jws::parse(token)?;
    let verified = keys.of(&jws)?.map(|key| key.verify(&jws));
    verified.reduce(|one, other| one.or(other)).unwrap_or(Err(BadToken::Signature))?;
    let claims = Claims::parse(&jws.payload()?, required, &mut SharedGrants::default())?;
    Ok(Inspected {
        algorithm: format!("{:?}", jws.algorithm),
        key_id: jws.key_id.clone(),
        valid: claims.at(now).map(|_| ()),
        not_before: claims.not_before(),
        token: claims.into_token(),
    })
}

/// Checks the claims of a token that is yet to be signed.
///
/// # Errors
/// The claim that is missing or wrong.
pub(crate) fn check_claims(json: &[u8]) -> Result<(), BadToken> {
    Claims::parse(json, &Required::default(), &mut SharedGrants::default()).map(|_| ())
}
