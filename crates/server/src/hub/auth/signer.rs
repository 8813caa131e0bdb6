//! Signs tokens, for `murre token make`.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;
use spki::AlgorithmIdentifierRef;
use spki::der::asn1::OctetStringRef;
use spki::der::{AnyRef, Decode, Document, Reader, SliceReader};

use super::key::{EC, ED25519, P256, RSA, hmac};

/// A secret or a private key.
pub(crate) struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
}

impl Signer {
    /// Reads a secret, or a private key in PEM (RFC 5208, RFC 8017 appendix A.1.2).
    ///
    /// # Errors
    /// The problem and the remedy.
    pub(crate) fn read(file: &[u8]) -> Result<Self, String> {
        if !file.starts_with(b"-----BEGIN ") {
            hmac(file)?;
            let secret = file.strip_suffix(b"\n").unwrap_or(file);
            let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
            let key = EncodingKey::from_secret(secret);
            return Ok(Signer { key, algorithm: Algorithm::HS256 });
        }
        let pem = str::from_utf8(file).ok().map(Document::from_pem);
        let Some(Ok((label, document))) = pem else {
            return Err("it is not a key in PEM".into());
        };
        let der = document.as_bytes();
        match label {
            "PRIVATE KEY" => {}
            "RSA PRIVATE KEY" => return Ok(rsa(der)),
            _ if label.ends_with("PRIVATE KEY") => return Err(OTHER_FORM.into()),
            _ => return Err(format!("it is a {label}; tokens are signed with the private key")),
        }
        let (kind, curve, key) =
            pkcs8(der).map_err(|error| format!("it is not a key in PEM: {error}"))?;
        match (kind, curve) {
            (RSA, _) => Ok(rsa(key)),
            (EC, Some(P256)) => {
                Ok(Signer { key: EncodingKey::from_ec_der(der), algorithm: Algorithm::ES256 })
            }
            (ED25519, _) => {
                Ok(Signer { key: EncodingKey::from_ed_der(der), algorithm: Algorithm::EdDSA })
            }
            _ => Err("it is neither RSA nor EC P-256 nor Ed25519; use one of these".into()),
        }
    }

    /// A token with these claims, signed by the key that `key_id` names in a key set.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(crate) fn sign(&self, claims: &Value, key_id: Option<&str>) -> Result<String, String> {
        let header = Header { kid: key_id.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key)
            .map_err(|error| format!("the key cannot sign: {error}; write its file again"))
    }
}

fn rsa(pkcs1: &[u8]) -> Signer {
    Signer { key: EncodingKey::from_rsa_der(pkcs1), algorithm: Algorithm::RS256 }
}

type Oid = spki::ObjectIdentifier;

/// The kind, the curve and the bytes of a private key (RFC 5208 section 5).
fn pkcs8(der: &[u8]) -> spki::der::Result<(Oid, Option<Oid>, &[u8])> {
    SliceReader::new(der)?.sequence(|parts| {
        let _version = AnyRef::decode(parts)?;
        let algorithm = AlgorithmIdentifierRef::decode(parts)?;
        let key = OctetStringRef::decode(parts)?;
        while !parts.is_finished() {
            AnyRef::decode(parts)?;
        }
        Ok((algorithm.oid, algorithm.parameters_oid().ok(), key.as_bytes()))
    })
}

const OTHER_FORM: &str = "it is a private key in a form that is not supported or encrypted; \
                          convert it with openssl pkcs8 -topk8 -nodes -in FILE";
