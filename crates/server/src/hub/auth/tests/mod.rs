//! Tests of authentication, with tokens made by hand, by openssl and by the library.

mod cost;
mod grants;
mod key_files;
mod key_sets;
mod required;
mod signatures;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use spki::der::Document;

use super::claims::Claims;
use super::key::{Key, hmac, public_key};
use super::*;

/// The secret of the HMAC tokens in `tokens.txt`.
const SECRET: &str = "thirty-two bytes or more of secret";
const RSA_PUBLIC: &str = include_str!("../keys/rsa.public.pem");
const RSA_4096_PUBLIC: &str = include_str!("../keys/rsa-4096.public.pem");
const EC_PUBLIC: &str = include_str!("../keys/ec.public.pem");
const ED_PUBLIC: &str = include_str!("../keys/ed.public.pem");
const RSA_PRIVATE: &str = include_str!("../keys/rsa.private.pem");
const EC_PRIVATE: &str = include_str!("../keys/ec.private.pem");
const ED_PRIVATE: &str = include_str!("../keys/ed.private.pem");

/// The time of most tests, in Unix seconds.
const NOW: u64 = 1_500_000_000;

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::ES256,
    Algorithm::EdDSA,
];

fn key_for(algorithm: Algorithm) -> Key {
    let key = match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => hmac(SECRET.as_bytes()),
        Algorithm::RS256 => public_key(RSA_PUBLIC.as_bytes()),
        Algorithm::ES256 => public_key(EC_PUBLIC.as_bytes()),
        _ => public_key(ED_PUBLIC.as_bytes()),
    };
    key.expect("it is a key")
}

fn keys_for(algorithm: Algorithm) -> Keys {
    Keys(vec![key_for(algorithm)])
}

/// A token signed by the library.
fn signed(algorithm: Algorithm, claims: &Value) -> String {
    let der = |pem: &str| Document::from_pem(pem).expect("it is PEM").1;
    let key = match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            EncodingKey::from_secret(SECRET.as_bytes())
        }
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::PS256 => {
            EncodingKey::from_rsa_der(der(RSA_PRIVATE).as_bytes())
        }
        Algorithm::ES256 => EncodingKey::from_ec_der(der(EC_PRIVATE).as_bytes()),
        _ => EncodingKey::from_ed_der(der(ED_PRIVATE).as_bytes()),
    };
    encode(&Header::new(algorithm), claims, &key).expect("it can be signed")
}

/// A token with the signature of another token.
fn forged(algorithm: Algorithm, claims: &Value) -> String {
    let (token, other) = (signed(algorithm, claims), signed(algorithm, &json!({"sub": "other"})));
    let message = token.rsplit_once('.').expect("there are three parts").0;
    let signature = other.rsplit_once('.').expect("there are three parts").1;
    format!("{message}.{signature}")
}

/// Checks a token twice with a new verifier and returns the result. The second check, which may use
/// the cache, must give the same result.
fn verify(keys: &Keys, token: &str, unix: u64) -> Result<User, BadToken> {
    let mut verifier = Verifier::new(keys.clone(), Required::default(), 100);
    let [first, second] = [(); 2].map(|()| {
        verifier.begin_turn(Duration::ZERO);
        verifier.check(token, Some(1), Duration::ZERO, unix)
    });
    assert_eq!(first, second);
    match first {
        Verdict::Good(user) => Ok(user),
        Verdict::Bad(bad) => Err(bad),
        other => panic!("one token in a turn is checked: {other:?}"),
    }
}

/// A token for alice with the header field `kid`, signed by the library.
fn signed_as(algorithm: Algorithm, kid: Option<&str>, secret: &[u8]) -> String {
    let der = |pem: &str| Document::from_pem(pem).expect("it is PEM").1;
    let key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_der(der(RSA_PRIVATE).as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_der(der(EC_PRIVATE).as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_der(der(ED_PRIVATE).as_bytes()),
        _ => EncodingKey::from_secret(secret),
    };
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, &json!({"sub": "alice"}), &key).expect("it can be signed")
}

fn alice(expires: Option<u64>) -> User {
    let expires = expires.map(|at| UnixSeconds::new(at).expect("it is not too far"));
    User { name: "alice".into(), expires, grants: None }
}
