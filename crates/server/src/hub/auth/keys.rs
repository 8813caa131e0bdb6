//! The keys that tokens are verified with, and the files they are read from.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jsonwebtoken::crypto::verify;
use jsonwebtoken::{Algorithm, DecodingKey};
use spki::der::asn1::UintRef;
use spki::der::{Decode, Document, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::jws::Jws;
use super::{BadToken, price};

/// The keys that tokens may be signed with; there may be none.
#[derive(Clone, Default)]
pub(crate) struct Keys(pub(super) Vec<Key>);

/// A key and the algorithms that it is for. A token chooses among the keys by its `alg` and never
/// how a key is used: a public key is no secret to compute an HMAC with.
#[derive(Clone)]
pub(super) struct Key {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
    /// Microseconds of one check.
    price: u32,
}

/// A key file that cannot be used.
#[derive(Debug)]
pub(crate) struct BadKeyFile {
    flag: &'static str,
    path: PathBuf,
    problem: String,
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

    /// A secret for HS256, HS384 and HS512.
    ///
    /// # Panics
    /// If it is too short.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_secret(secret: &[u8]) -> Keys {
        Keys(vec![hmac(secret).expect("it is long enough")])
    }

    /// Whether no token can be good.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key for `algorithm`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of(&self, algorithm: Algorithm) -> Result<&Key, BadToken> {
        let key = self.0.iter().find(|key| key.algorithms.contains(&algorithm));
        key.ok_or(BadToken::Algorithm)
    }
}

impl Key {
    /// A key of `bits` for `algorithms`, which are of one family.
    ///
    /// # Errors
    /// The key is none, though its form is right.
    fn new(
        key: DecodingKey,
        bits: usize,
        algorithms: &'static [Algorithm],
    ) -> Result<Self, String> {
        let key = Key { price: price::of_signature(key.family(), bits), key, algorithms };
        // Every check begins with reading the key: no signature fits, but a point that is not on its
        // curve is an error.
        match verify("", b"", &key.key, algorithms[0]) {
            Ok(_) => Ok(key),
            Err(_) => {
                Err("its numbers are no key; write the file again from the private key".into())
            }
        }
    }

    /// Microseconds of one signature check.
    pub(super) fn price(&self) -> u32 {
        self.price
    }

    /// Checks the signature of `jws`, which has chosen this key by its algorithm.
    ///
    /// # Errors
    /// It does not fit, or is not one.
    pub(super) fn verify(&self, jws: &Jws<'_>) -> Result<(), BadToken> {
        match verify(jws.signature, jws.signed.as_bytes(), &self.key, jws.algorithm) {
            Ok(true) => Ok(()),
            Ok(false) => Err(BadToken::Signature),
            Err(_) => Err(BadToken::Malformed),
        }
    }
}

/// A secret as it is in its file, without the line end that editors and `openssl rand` leave.
pub(super) fn hmac(file: &[u8]) -> Result<Key, String> {
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
    Key::new(DecodingKey::from_secret(secret), secret.len() * 8, algorithms)
}

const SECRET_BYTES_MIN: usize = 32;

/// A public key in PEM; the algorithm in it says what it is for (RFC 8410, RFC 5480, RFC 3279).
pub(super) fn public_key(file: &[u8]) -> Result<Key, String> {
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
        (RSA, _) => match modulus_and_exponent(bits) {
            Ok((modulus @ 2048..=4096, 2..=33)) => {
                Key::new(DecodingKey::from_rsa_der(bits), modulus, &[Algorithm::RS256])
            }
            Ok((2048..=4096, other)) => {
                Err(format!("the exponent of an RSA key has 2 to 33 bits, this one has {other}"))
            }
            Ok((other, _)) => {
                Err(format!("an RSA key has 2048 to 4096 bits, this one has {other}"))
            }
            Err(error) => Err(format!("it is not a key in PEM: {error}")),
        },
        (EC, Some(P256)) if bits.len() == 65 && bits[0] == UNCOMPRESSED => {
            Key::new(DecodingKey::from_ec_der(bits), 256, &[Algorithm::ES256])
        }
        (ED25519, _) if bits.len() == 32 => {
            Key::new(DecodingKey::from_ed_der(bits), 256, &[Algorithm::EdDSA])
        }
        _ => {
            Err("it is neither RSA nor EC P-256 (not compressed) nor Ed25519; use one of these"
                .into())
        }
    }
}

/// Bits of the modulus and of the exponent of an RSA key, which is the sequence of both (RFC 8017
/// appendix A.1.1). An exponent of 1 would make every message its own signature.
fn modulus_and_exponent(key: &[u8]) -> spki::der::Result<(usize, usize)> {
    SliceReader::new(key)?
        .sequence(|numbers| Ok((bits(UintRef::decode(numbers)?), bits(UintRef::decode(numbers)?))))
}

fn bits(number: UintRef<'_>) -> usize {
    let leading = number.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
    number.as_bytes().len() * 8 - leading
}

const RSA_ALONE: &str = "it is an RSA PUBLIC KEY; convert it with openssl rsa -RSAPublicKey_in \
                         -in FILE -pubout";
const CERTIFICATE: &str = "it is a certificate; take its key with openssl x509 -in FILE -noout \
                           -pubkey";
const PRIVATE: &str = "it is a private key, which only the issuer of tokens needs; take its public \
                       part with openssl pkey -in FILE -pubout";
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// The first byte of a point that is given by both its coordinates.
const UNCOMPRESSED: u8 = 4;

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms = self.0.iter().flat_map(|key| key.algorithms);
        f.debug_list().entries(algorithms).finish()
    }
}

impl fmt::Display for BadKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.flag, self.path.display(), self.problem)
    }
}
