//! Credentials of a NATS user: a file with a JWT and the seed of its key, as `nsc` writes it.
//!
//! Source: ADR-14 of nats-architecture-and-design, and the encoding of keys of <https://github.com/nats-io/nkeys>.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A user's key, with the JWT that names the user where the server knows its account alone.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) jwt: Option<String>,
    key: Ed25519KeyPair,
}

/// The first byte of a user's public key.
const USER: u8 = 20 << 3;
/// The first two bytes of a user's seed: 5 bits that say that it is a seed, and the byte of the public key.
const SEED_OF_USER: [u8; 2] = [18 << 3 | USER >> 5, (USER & 0b1_1111) << 3];

impl Credentials {
    /// Reads a file of credentials, or one with a seed alone.
    ///
    /// # Errors
    /// A sentence that names the file, the problem and the remedy.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: String| format!("credentials of NATS {}: {why}", path.display());
        let text = fs::read_to_string(path)
            .map_err(|error| wrong(format!("{error}; check the path and its permissions")))?;
        Credentials::of(&text).ok_or_else(|| {
            wrong("it has no seed of a user; write it with `nsc generate creds`".into())
        })
    }

    fn of(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let jwt = lines.clone().find(|line| line.starts_with("ey") && line.contains('.'));
        let seed = lines.find(|line| line.starts_with("SU"))?;
        let bytes = base32(seed)?;
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
        let is_seed = content.starts_with(&SEED_OF_USER) && sum == crc16(content).to_le_bytes();
        let seed = content.get(SEED_OF_USER.len()..).filter(|_| is_seed)?;
        let key = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Credentials { jwt: jwt.map(str::to_owned), key })
    }

    /// The public key in the text form of NATS.
    pub(super) fn public_key(&self) -> String {
        let mut bytes = vec![USER];
        bytes.extend_from_slice(self.key.public_key().as_ref());
        let sum = crc16(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        to_base32(&bytes)
    }

    /// The signature of the number that a server has sent, in base64.
    pub(super) fn sign(&self, nonce: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.key.sign(nonce.as_bytes()))
    }
}

/// RFC 4648 section 6.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0_u32, Vec::new());
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|&known| known == letter)?;
        bits = (bits << 5 | value as u32) & 0xFFFF;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

fn to_base32(bytes: &[u8]) -> String {
    let (mut bits, mut count, mut text) = (0_u32, 0_u32, String::new());
    let letter = |bits: u32| char::from(ALPHABET[(bits & 31) as usize]);
    for &byte in bytes {
        bits = (bits << 8 | u32::from(byte)) & 0xFFFF;
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(letter(bits >> count));
        }
    }
    if count > 0 {
        text.push(letter(bits << (5 - count)));
    }
    text
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, &byte| {
        (0..8).fold(sum ^ u16::from(byte) << 8, |sum, _| {
            if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed of the bytes 0 to 31, as the nkeys of Python writes it.
    const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

    /// A seed has the public key, and makes the signature, that the nkeys of Python have.
    #[test]
    fn a_seed_has_its_public_key() {
        let credentials = Credentials::of(SEED).expect("a seed");
        let public = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
        let signature = "-HTq4d6DDHVNb8MsTRAZtSIa0vXA_yuZblwTA7JT5wYzmKBxJ2wpYfjHh7hcptZlidbVw_6ZLyubjm_yDk-OCQ";
        assert_eq!((&*credentials.public_key(), &*credentials.sign("nonce")), (public, signature));
        assert_eq!(credentials.jwt, None);
    }

    /// A file as `nsc` writes it has both parts. A seed with a wrong letter is none.
    #[test]
    fn files_of_credentials() {
        let file = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0eXAi.e30.c2ln\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        let credentials = Credentials::of(&file).expect("both");
        assert_eq!(credentials.jwt.as_deref(), Some("eyJ0eXAi.e30.c2ln"));
        for wrong in [&SEED.replace("776Y", "777Y"), &SEED[..20], "SU", "", "SU0189"] {
            assert!(Credentials::of(wrong).is_none(), "{wrong}");
        }
    }
}
