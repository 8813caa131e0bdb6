//! JSON Web Key Sets (RFC 7517): files with several keys. A token selects a key by its `kid`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::key::{Key, bits, rsa, secret};

#[derive(Deserialize)]
struct Set<'j> {
    #[serde(borrow)]
    keys: Vec<&'j RawValue>,
}

/// The members of a key that the server reads (RFC 7517 section 4, RFC 7518 section 6, RFC 8037
/// section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<Box<str>>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    /// Only private keys have this member.
    d: Option<IgnoredAny>,
}

/// Parses the keys of a set. Keys of kinds, curves or uses that the server does not support are
/// left out, as RFC 7517 section 5 requires.
///
/// # Errors
/// The file is not a key set, a key of a supported kind is malformed, or no key is left.
pub(super) fn keys(file: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set<'_> = serde_json::from_slice(file)
        .map_err(|error| format!("it is not a JSON Web Key Set, {{\"keys\":[...]}}: {error}"))?;
    let mut keys = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let read = serde_json::from_str(jwk.get()).map_err(|error| error.to_string());
        let key = read.and_then(key).map_err(|why| format!("key {index} of the set: {why}"))?;
        keys.extend(key);
    }
    if keys.is_empty() {
        return Err("it has no key for HS256, HS384, HS512, RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
}

/// Parses a key; `None` if the server does not support its kind.
fn key(jwk: Jwk) -> Result<Option<Key>, String> {
    let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig")
        || jwk.key_ops.as_ref().is_some_and(|ops| !verifies(ops))
    {
        return Ok(None);
    }
    let is_for = |algorithms: &[&str]| match jwk.alg.as_deref() {
        None => true,
        Some(algorithm) => algorithms.contains(&algorithm),
    };
    let curve = jwk.crv.as_deref();
    let mut key = match (&*jwk.kty, curve) {
        ("oct", _) if is_for(&["HS256", "HS384", "HS512"]) => {
            let mut key = secret(&bytes("k", &jwk.k)?)?;
            key.narrow(jwk.alg.as_deref());
            key
        }
        ("RSA" | "EC" | "OKP", _) if jwk.d.is_some() => {
            return Err(
                "it is a private key, which only the issuer of tokens needs; leave out its \
                        private members"
                    .into(),
            );
        }
        ("RSA", _) if is_for(&["RS256"]) => {
            let (modulus, exponent) = (bytes("n", &jwk.n)?, bytes("e", &jwk.e)?);
            let key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
            rsa(key, bits(&modulus), bits(&exponent))?
        }
        ("EC", Some("P-256")) if is_for(&["ES256"]) => {
            let (x, y) = (bytes("x", &jwk.x)?, bytes("y", &jwk.y)?);
            if (x.len(), y.len()) != (32, 32) {
                return Err("`x` and `y` of P-256 have 32 bytes each".into());
            }
            // An uncompressed point: both coordinates follow the first byte (SEC 1 section 2.3.3).
            let point = [&[4], &x[..], &y[..]].concat();
            Key::new(DecodingKey::from_ec_der(&point), 256, &[Algorithm::ES256])?
        }
        ("OKP", Some("Ed25519")) if is_for(&["EdDSA", "Ed25519"]) => {
            let x = bytes("x", &jwk.x)?;
            if x.len() != 32 {
                return Err("`x` of Ed25519 has 32 bytes".into());
            }
            Key::new(DecodingKey::from_ed_der(&x), 256, &[Algorithm::EdDSA])?
        }
        _ => return Ok(None),
    };
    key.id = jwk.kid;
    Ok(Some(key))
}

fn bytes(name: &str, member: &Option<String>) -> Result<Vec<u8>, String> {
    let text = member.as_deref().ok_or_else(|| format!("`{name}` is missing"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("`{name}` is not base64url without padding"))
}
