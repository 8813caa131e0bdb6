//! Signatures of bodies: HMAC-SHA256 (RFC 2104) over the time and the body.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// The header field with the time and a signature by each key.
pub(super) const SIGNATURE: &str = "murre-signature";

/// The keys that sign bodies, so that a receiver may have either of two while they are exchanged.
#[derive(Clone, Default)]
pub(super) struct Keys(Vec<Box<[u8]>>);

impl Keys {
    /// Reads one key from each file. The line end that editors and `openssl rand` append does not count.
    ///
    /// # Errors
    /// A sentence that names the file, the problem and the remedy.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, String> {
        let read = |path: &PathBuf| {
            let told = |what: &str| format!("--webhook-key-file {}: {what}", path.display());
            let key = fs::read(path)
                .map_err(|error| told(&format!("{error}; check the path and its permissions")))?;
            let key = key.strip_suffix(b"\n").unwrap_or(&key);
            let key = key.strip_suffix(b"\r").unwrap_or(key);
            if key.len() < KEY_BYTES_MIN {
                return Err(told(
                    "the key is shorter than 32 bytes; make one with `openssl rand -hex 32`",
                ));
            }
            Ok(key.into())
        };
        files.iter().map(read).collect::<Result<_, _>>().map(Keys)
    }

    /// Whether bodies are not signed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value of [`SIGNATURE`] for a body that is sent at `time`, in Unix seconds:
    /// `t=TIME,v1=HEX,v1=HEX`. `None` without keys.
    pub(super) fn sign(&self, time: u64, body: &[u8]) -> Option<String> {
        let mut value = format!("t={time}");
        let time = format!("{time}.");
        for key in &self.0 {
            value.push_str(",v1=");
            for byte in hmac_sha256(key, &[time.as_bytes(), body]) {
                write!(value, "{byte:02x}").expect("a text takes all that is written to it");
            }
        }
        (!self.is_empty()).then_some(value)
    }
}

const KEY_BYTES_MIN: usize = 32;
/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// The HMAC of a message in parts (RFC 2104 section 2).
fn hmac_sha256(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    match key.len() <= BLOCK {
        true => block[..key.len()].copy_from_slice(key),
        false => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let mut inner = Sha256::new();
    inner.update(block.map(|byte| byte ^ 0x36));
    message.iter().for_each(|part| inner.update(part));
    let mut outer = Sha256::new();
    outer.update(block.map(|byte| byte ^ 0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The test cases of RFC 4231 with whole outputs, and the vector of Pusher's documentation.
    #[test]
    fn published_vectors() {
        let long = [0xaa; 131];
        let counting: Vec<u8> = (1..=25).collect();
        for (key, message, expected) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &counting,
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                &long,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &long,
                b"This is a test using a larger than block-size key and a larger than block-size data. \
                  The key needs to be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
            (
                b"7ad3773142a6692b25b8",
                br#"{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#,
                "c19001ae3963ccb13bf618e5b16ba9848e7e74df0993aa0689168e341c6833cf",
            ),
        ] {
            let (first, rest) = message.split_at(message.len() / 3);
            assert_eq!(hex(&hmac_sha256(key, &[first, rest])), expected);
        }
    }

    /// A body has a signature by each key over its time, a dot and itself, and none without keys.
    #[test]
    fn each_key_signs() {
        let keys = Keys([b"one", b"two"].map(|key| key.to_vec().into()).into());
        let signed = ["one", "two"].map(|key| hex(&hmac_sha256(key.as_bytes(), &[b"17.{}"])));
        let expected = format!("t=17,v1={},v1={}", signed[0], signed[1]);
        assert_eq!(keys.sign(17, b"{}"), Some(expected));
        assert_eq!(Keys::default().sign(17, b"{}"), None);
    }
}
