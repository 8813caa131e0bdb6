//! The parts of a signed token (RFC 7515 section 3.1).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::BadToken;

/// A token in its compact form, before its signature is checked.
pub(super) struct Jws<'t> {
    pub(super) algorithm: Algorithm,
    /// The `kid` of the token, which names the key of its signature.
    pub(super) key_id: Option<Box<str>>,
    /// The signed text: header and payload in their encoded form.
    pub(super) signed: &'t str,
    /// Encoded.
    payload: &'t str,
    /// Encoded.
    pub(super) signature: &'t str,
}

/// Longest token, in bytes: more than any request head may have.
const TOKEN_BYTES_MAX: usize = 1 << 16;

#[derive(Deserialize)]
struct Header<'h> {
    #[serde(borrow)]
    alg: Cow<'h, str>,
    #[serde(borrow, default, deserialize_with = "text")]
    kid: Option<Cow<'h, str>>,
    /// Extensions that the server must support (RFC 7515 section 4.1.11). It supports none.
    #[serde(default, deserialize_with = "is_present")]
    crit: bool,
}

impl<'t> Jws<'t> {
    /// Splits a token into its parts and parses its header.
    ///
    /// # Errors
    /// The text is not a signed token, or the server does not support its algorithm or an
    /// extension.
    pub(super) fn parse(token: &'t str) -> Result<Self, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(BadToken::Malformed)?;
        let header = decode(header)?;
        let header: Header<'_> = object(&header)?;
        if header.crit || payload.contains('.') {
            return Err(BadToken::Malformed);
        }
        let algorithm = header.alg.parse().map_err(|_| BadToken::Algorithm)?;
        let key_id = header.kid.map(|id| id.into_owned().into());
        Ok(Jws { algorithm, key_id, signed, payload, signature })
    }

    /// The payload, decoded.
    ///
    /// # Errors
    /// The payload is not base64url.
    pub(super) fn payload(&self) -> Result<Vec<u8>, BadToken> {
        decode(self.payload)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, BadToken> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| BadToken::Malformed)
}

/// Parses a JSON object (RFC 7515 section 4, RFC 7519 section 4). `serde` would also parse a struct
/// from an array of its fields, so arrays are refused here.
///
/// # Errors
/// The text is not an object, or its members do not fit `T`.
pub(super) fn object<'j, T: Deserialize<'j>>(json: &'j [u8]) -> Result<T, BadToken> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(BadToken::Malformed);
    }
    serde_json::from_slice(json).map_err(|_| BadToken::Malformed)
}

/// Deserializes a string. Any other value becomes `None`, because the member is optional (RFC 7515
/// section 4.1.4).
fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    let value = <&RawValue>::deserialize(value)?;
    Ok(serde_json::from_str(value.get()).ok().map(Cow::Owned))
}

fn is_present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Result<Algorithm, BadToken> {
        let token = format!("{}.e30.", URL_SAFE_NO_PAD.encode(header));
        Jws::parse(&token).map(|jws| jws.algorithm)
    }

    /// A header must name its algorithm and no critical extension; other members are ignored.
    #[test]
    fn headers() {
        for header in [
            r#"{"alg":"ES256"}"#,
            r#"{"alg":"ES\u003256","typ":7,"kid":null,"more":[1e400,{}]}"#,
            " \n{ \"alg\" : \"ES256\" } ",
        ] {
            assert_eq!(parse(header), Ok(Algorithm::ES256), "{header}");
        }
        for header in [r#"{"alg":"none"}"#, r#"{"alg":""}"#, r#"{"alg":"es256"}"#] {
            assert_eq!(parse(header), Err(BadToken::Algorithm), "{header}");
        }
        for header in [
            "",
            "null",
            r#"["ES256"]"#,
            r#"{"alg":null}"#,
            r#"{"alg":256}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"ES256","alg":"HS256"}"#,
            r#"{"alg":"ES256","crit":["b64"]}"#,
            r#"{"alg":"ES256","crit":[]}"#,
            r#"{"alg":"ES256","crit":null}"#,
            r#"{"alg":"ES256"}}"#,
        ] {
            assert_eq!(parse(header), Err(BadToken::Malformed), "{header}");
        }
    }

    /// A token has exactly three parts, separated by dots.
    #[test]
    fn parts() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        for (rest, good) in [(".e30.x", true), ("..", true), ("", false), (".e30", false)] {
            assert_eq!(Jws::parse(&format!("{header}{rest}")).is_ok(), good, "{rest}");
        }
        for rest in [".e30.x.y", "=.e30.x", " .e30.x", "...", "+.e30.x"] {
            assert!(Jws::parse(&format!("{header}{rest}")).is_err(), "{rest}");
        }
    }
}
