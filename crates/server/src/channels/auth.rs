//! Who a client is: JSON Web Tokens, and the keys they are verified with.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode, decode_header};
use murre_codec::http::Request;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use spki::der::asn1::UintRef;
use spki::der::{Decode, Document, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

/// The keys that tokens may be signed with; there may be none.
#[derive(Clone, Default)]
pub(crate) struct Keys(Vec<Key>);

/// A key and the algorithms that it is for. A token chooses among the keys by its `alg` and never
/// how a key is used: a public key is no secret to compute an HMAC with.
#[derive(Clone)]
struct Key {
    key: DecodingKey,
    validation: Validation,
}

/// Who a token says its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: Box<str>,
    /// Unix seconds.
    pub(crate) expires: Option<u64>,
}

/// Why a token is refused. All of these are `bad_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadToken {
    /// There are no keys.
    NoKeys,
    /// It is not a signed JSON Web Token, or one with extensions that we do not know.
    Malformed,
    /// There is no key for its algorithm.
    Algorithm,
    /// It was not signed with our key.
    Signature,
    /// It has no user, or one with a name that cannot be.
    User,
    /// It is not valid yet.
    TooEarly,
    /// It is not valid any more.
    Expired,
}

/// A key file that cannot be used.
#[derive(Debug)]
pub(crate) struct BadKeyFile {
    flag: &'static str,
    path: PathBuf,
    problem: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Keys {
    /// Reads what the files hold: a secret for HS256, HS384 and HS512, a public key for one of
    /// RS256, ES256 and EdDSA.
    ///
    /// # Errors
    /// Which file cannot be used, why, and what helps.
    pub(crate) fn read(secret: Option<&Path>, public: Option<&Path>) -> Result<Keys, BadKeyFile> {
        let files = [
            ("--jwt-hmac-secret-file", secret, hmac as fn(&[u8]) -> _),
            ("--jwt-public-key-file", public, public_key),
        ];
        let mut keys = Vec::new();
        for (flag, path, key) in files {
            let Some(path) = path else { continue };
            let key = match fs::read(path) {
                Ok(bytes) => key(&bytes),
                Err(error) => Err(format!("{error}; check the path and its permissions")),
            };
            keys.push(key.map_err(|problem| BadKeyFile { flag, path: path.into(), problem })?);
        }
        Ok(Keys(keys))
    }

    /// Who the bearer of `token` is at `now`, in Unix seconds.
    ///
    /// # Errors
    /// Why the token says nothing.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<User, BadToken> {
        if self.0.is_empty() {
            return Err(BadToken::NoKeys);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::Malformed);
        }
        let algorithm = decode_header(token).map_err(|_| BadToken::Malformed)?.alg;
        let key = self.0.iter().find(|key| key.validation.algorithms.contains(&algorithm));
        let Key { key, validation } = key.ok_or(BadToken::Algorithm)?;
        let TokenData { header, claims } =
            decode::<Claims>(token, key, validation).map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => BadToken::Signature,
                _ => BadToken::Malformed,
            })?;
        // RFC 7515 section 4.1.11: what must be understood, and is not.
        if header.crit.is_some() {
            return Err(BadToken::Malformed);
        }
        claims.user(now)
    }
}

/// Longer than any head may be.
const TOKEN_BYTES_MAX: usize = 1 << 16;

impl Claims {
    fn user(self, now: u64) -> Result<User, BadToken> {
        let name = self.sub.ok_or(BadToken::User)?;
        let fits = (1..=USER_BYTES_MAX).contains(&name.len());
        if !fits || name.contains(char::is_control) {
            return Err(BadToken::User);
        }
        if self.nbf.is_some_and(|from| from > now.saturating_add(LEEWAY_SECONDS) as f64) {
            return Err(BadToken::TooEarly);
        }
        // Seconds may have fractions (RFC 7519 section 2); out of range, they are the bound.
        let user = User { name: name.into(), expires: self.exp.map(|exp| exp as u64) };
        if user.has_expired(now) { Err(BadToken::Expired) } else { Ok(user) }
    }
}

impl User {
    /// Whether the token is over at `now`, in Unix seconds: at its `exp`, and for clocks that
    /// differ 10 seconds later.
    pub(crate) fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires.saturating_add(LEEWAY_SECONDS))
    }
}

/// By how much the clock of who signs tokens may differ from ours.
pub(crate) const LEEWAY_SECONDS: u64 = 10;
/// A name is kept for as long as its connection.
const USER_BYTES_MAX: usize = 255;

impl BadToken {
    /// What is wrong and what helps.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            BadToken::NoKeys => {
                "this server has no keys to check tokens with; connect without one, or ask who runs \
                 it to set --jwt-hmac-secret-file or --jwt-public-key-file"
            }
            BadToken::Malformed => "the token is not a signed JSON Web Token; get a new one",
            BadToken::Algorithm => {
                "this server has no key for the algorithm of the token; get one that is signed as \
                 it expects"
            }
            BadToken::Signature => "the token was not signed with this server's key; get a new one",
            BadToken::User => {
                "the token has no `sub`, the name of the user, of 1 to 255 bytes; get one that has"
            }
            BadToken::TooEarly => "the token is not valid yet; try again later, or get another one",
            BadToken::Expired => "the token has expired; get a new one",
        }
    }
}

/// The token that a request brings: as `Authorization: Bearer TOKEN` or else as `?token=TOKEN`.
pub(crate) fn token<'b>(request: &Request<'b, '_>) -> Option<Cow<'b, str>> {
    // What is not UTF-8 is no token either, so it may as well be changed.
    let bearer = request.header("authorization").and_then(bearer).map(String::from_utf8_lossy);
    let query = || Some(percent_decode_str(request.query("token")?).decode_utf8_lossy());
    bearer.or_else(query)
}

/// What follows the scheme, which is in any case (RFC 9110 section 11.1). Other schemes are for
/// others.
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// A secret as it is in its file, without the line end that editors and `openssl rand` leave.
fn hmac(file: &[u8]) -> Result<Key, String> {
    let secret = file.strip_suffix(b"\n").unwrap_or(file);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.starts_with(b"-----BEGIN ") {
        return Err("it is a key in PEM; name it with --jwt-public-key-file".into());
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "a secret has at least {SECRET_BYTES_MIN} bytes (RFC 7518 section 3.2); make one with \
             openssl rand -hex 32"
        ));
    }
    let algorithms = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
    Ok(Key::new(DecodingKey::from_secret(secret), algorithms))
}

const SECRET_BYTES_MIN: usize = 32;

/// A public key in PEM. What it is for is told by its algorithm (RFC 8410, RFC 5480, RFC 3279).
fn public_key(file: &[u8]) -> Result<Key, String> {
    let pem = str::from_utf8(file).ok().map(Document::from_pem);
    let Some(Ok((label, document))) = pem else {
        return Err("it is not a key in PEM".into());
    };
    match label {
        "PUBLIC KEY" => {}
        "RSA PUBLIC KEY" => return Err(RSA_ALONE.into()),
        "CERTIFICATE" => return Err(CERTIFICATE.into()),
        _ if label.ends_with("PRIVATE KEY") => return Err(PRIVATE.into()),
        _ => return Err(format!("it is a {label}, not a PUBLIC KEY")),
    }
    let info = SubjectPublicKeyInfoRef::try_from(document.as_bytes());
    let info = info.map_err(|error| format!("it is not a key in PEM: {error}"))?;
    let bits = info.subject_public_key.as_bytes().unwrap_or_default();
    let curve = info.algorithm.parameters_oid().ok();
    match (info.algorithm.oid, curve) {
        (RSA, _) => match modulus_bits(bits) {
            Ok(2048..=4096) => Ok(Key::new(DecodingKey::from_rsa_der(bits), &[Algorithm::RS256])),
            Ok(other) => Err(format!("an RSA key has 2048 to 4096 bits, this one has {other}")),
            Err(error) => Err(format!("it is not a key in PEM: {error}")),
        },
        (EC, Some(P256)) if bits.len() == 65 && bits[0] == UNCOMPRESSED => {
            Ok(Key::new(DecodingKey::from_ec_der(bits), &[Algorithm::ES256]))
        }
        (ED25519, _) if bits.len() == 32 => {
            Ok(Key::new(DecodingKey::from_ed_der(bits), &[Algorithm::EdDSA]))
        }
        _ => {
            Err("it is neither RSA nor EC P-256 (not compressed) nor Ed25519; use one of these"
                .into())
        }
    }
}

/// How long the modulus of an RSA key is, which is a sequence of modulus and exponent.
fn modulus_bits(key: &[u8]) -> spki::der::Result<usize> {
    let modulus = SliceReader::new(key)?.sequence(|numbers| {
        let modulus = UintRef::decode(numbers)?;
        UintRef::decode(numbers)?;
        Ok(modulus)
    })?;
    let leading = modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
    Ok(modulus.as_bytes().len() * 8 - leading)
}

const RSA_ALONE: &str = "it is an RSA PUBLIC KEY; convert it with openssl rsa -RSAPublicKey_in \
                         -in FILE -pubout";
const CERTIFICATE: &str = "it is a certificate; take its key with openssl x509 -in FILE -noout \
                           -pubkey";
const PRIVATE: &str = "it is a private key, which belongs to who signs tokens; take the public part \
                       with openssl pkey -in FILE -pubout";
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// The first byte of a point that is given by both its coordinates.
const UNCOMPRESSED: u8 = 4;

impl Key {
    /// What the library checks is the signature. Times are checked by our clock, and nothing is
    /// known of audiences and issuers.
    fn new(key: DecodingKey, algorithms: &[Algorithm]) -> Self {
        let mut validation = Validation::new(algorithms[0]);
        validation.algorithms = algorithms.to_vec();
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Key { key, validation }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms = self.0.iter().flat_map(|key| &key.validation.algorithms);
        f.debug_list().entries(algorithms).finish()
    }
}

impl fmt::Display for BadKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.flag, self.path.display(), self.problem)
    }
}

#[cfg(test)]
mod tests;
