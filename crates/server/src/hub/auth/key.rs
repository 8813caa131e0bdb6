//! One key that tokens are verified with, read from a secret or from a public key in PEM.

use jsonwebtoken::crypto::verify;
use jsonwebtoken::{Algorithm, DecodingKey};
use spki::der::asn1::UintRef;
use spki::der::{Decode, Document, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::jws::Jws;
use super::{BadToken, price};

/// A key and the algorithms that may use it. A token selects a key by its `alg` and `kid`, but it
/// cannot change the use of a key: a public key is never the secret of an HMAC.
#[derive(Clone)]
pub(super) struct Key {
    /// The `kid` of tokens that this key signs. Only keys of a key set have one.
    pub(super) id: Option<Box<str>>,
    key: DecodingKey,
    pub(super) algorithms: &'static [Algorithm],
    /// The cost of one signature check, in microseconds.
    price: u32,
}

impl Key {
    /// A key of `bits` bits for `algorithms`, which belong to one family.
    ///
    /// # Errors
    /// The numbers are not a valid key, although their form is right.
    pub(super) fn new(
        key: DecodingKey,
        bits: usize,
        algorithms: &'static [Algorithm],
    ) -> Result<Self, String> {
        let price = price::of_signature(key.family(), bits);
        let key = Key { id: None, price, key, algorithms };
        // A check of an empty signature parses the key. No signature fits, but a point off its
        // curve is an error.
        match verify("", b"", &key.key, algorithms[0]) {
            Ok(_) => Ok(key),
            Err(_) => {
                Err("its numbers are no key; write the file again from the private key".into())
            }
        }
    }

    /// Restricts the key to `algorithm`, if it is one of its algorithms.
    pub(super) fn narrow(&mut self, algorithm: Option<&str>) {
        let of = |one: &Algorithm| algorithm == Some(&*format!("{one:?}"));
        if let Some(at) = self.algorithms.iter().position(of) {
            self.algorithms = &self.algorithms[at..=at];
        }
    }

    /// Whether the key also signs, as an HMAC's does.
    pub(super) fn is_secret(&self) -> bool {
        self.algorithms.contains(&Algorithm::HS256)
            || self.algorithms.contains(&Algorithm::HS384)
            || self.algorithms.contains(&Algorithm::HS512)
    }

    /// The cost of one signature check, in microseconds.
    pub(super) fn price(&self) -> u32 {
        self.price
    }

    /// Checks the signature of `jws`, whose algorithm is one of this key's.
    ///
    /// # Errors
    /// The signature does not fit, or is malformed.
    pub(super) fn verify(&self, jws: &Jws<'_>) -> Result<(), BadToken> {
        match verify(jws.signature, jws.signed.as_bytes(), &self.key, jws.algorithm) {
            Ok(true) => Ok(()),
            Ok(false) => Err(BadToken::Signature),
            Err(_) => Err(BadToken::Malformed),
        }
    }
}

/// The secret in a file, without the line end that editors and `openssl rand` append.
pub(super) fn hmac(file: &[u8]) -> Result<Key, String> {
    let secret = file.strip_suffix(b"\n").unwrap_or(file);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.starts_with(b"-----BEGIN ") {
        return Err("it is a key in PEM; name it with --jwt-public-key-file".into());
    }
    self::secret(secret)
}

/// A secret as a key for HS256, HS384 and HS512.
pub(super) fn secret(secret: &[u8]) -> Result<Key, String> {
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

/// Parses a public key in PEM. The algorithm identifier in it determines its use (RFC 8410, RFC
/// 5480, RFC 3279).
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
            Ok((modulus, exponent)) => rsa(DecodingKey::from_rsa_der(bits), modulus, exponent),
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

/// An RSA key; `modulus` and `exponent` are the sizes of these numbers in bits.
pub(super) fn rsa(key: DecodingKey, modulus: usize, exponent: usize) -> Result<Key, String> {
    match (modulus, exponent) {
        (2048..=4096, 2..=33) => Key::new(key, modulus, &[Algorithm::RS256]),
        (2048..=4096, other) => {
            Err(format!("the exponent of an RSA key has 2 to 33 bits, this one has {other}"))
        }
        (other, _) => Err(format!("an RSA key has 2048 to 4096 bits, this one has {other}")),
    }
}

/// The bits of the modulus and of the exponent of an RSA key, which is a sequence of both (RFC 8017
/// appendix A.1.1). With an exponent of 1, every message would be its own signature.
fn modulus_and_exponent(key: &[u8]) -> spki::der::Result<(usize, usize)> {
    SliceReader::new(key)?.sequence(|numbers| {
        let (modulus, exponent) = (UintRef::decode(numbers)?, UintRef::decode(numbers)?);
        Ok((bits(modulus.as_bytes()), bits(exponent.as_bytes())))
    })
}

/// The number of bits of a big-endian number.
pub(super) fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    let number = &number[zeros..];
    number.len() * 8 - number.first().map_or(0, |byte| byte.leading_zeros() as usize)
}

const RSA_ALONE: &str = "it is an RSA PUBLIC KEY; convert it with openssl rsa -RSAPublicKey_in \
                         -in FILE -pubout";
const CERTIFICATE: &str = "it is a certificate; take its key with openssl x509 -in FILE -noout \
                           -pubkey";
const PRIVATE: &str = "it is a private key, which only the issuer of tokens needs; take its public \
                       part with openssl pkey -in FILE -pubout";
pub(super) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
pub(super) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(super) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// The first byte of an uncompressed point, which has both coordinates.
const UNCOMPRESSED: u8 = 4;
