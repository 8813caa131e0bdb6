//! Measures what `src/hub/auth/price.rs` says: the time that one signature check takes, for each
//! algorithm, with a signature that does not fit. Run it on an idle core:
//!
//! `cargo run --release -p murre --example token_prices`

use std::hint::black_box;
use std::time::{Duration, Instant};

use jsonwebtoken::crypto::{sign, verify};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use spki::SubjectPublicKeyInfoRef;
use spki::der::{Decode, Document};

const SECRET: &[u8] = b"thirty-two bytes or more of secret";
const RSA_PRIVATE: &str = include_str!("../src/hub/auth/keys/rsa.private.pem");
const RSA_PUBLIC: &str = include_str!("../src/hub/auth/keys/rsa.public.pem");
const RSA_4096_PRIVATE: &str = include_str!("../src/hub/auth/keys/rsa-4096.private.pem");
const RSA_4096_PUBLIC: &str = include_str!("../src/hub/auth/keys/rsa-4096.public.pem");
const EC_PRIVATE: &str = include_str!("../src/hub/auth/keys/ec.private.pem");
const EC_PUBLIC: &str = include_str!("../src/hub/auth/keys/ec.public.pem");
const ED_PRIVATE: &str = include_str!("../src/hub/auth/keys/ed.private.pem");
const ED_PUBLIC: &str = include_str!("../src/hub/auth/keys/ed.public.pem");

/// Checks of one kind that are timed; the median counts, so that interruptions do not.
const ROUNDS: usize = 501;

fn main() {
    let rsa = |private, public| {
        (EncodingKey::from_rsa_der(&der(private)), DecodingKey::from_rsa_der(&key_bits(public)))
    };
    let secret = || (EncodingKey::from_secret(SECRET), DecodingKey::from_secret(SECRET));
    let ec = (EncodingKey::from_ec_der(&der(EC_PRIVATE)), key_bits(EC_PUBLIC));
    let ed = (EncodingKey::from_ed_der(&der(ED_PRIVATE)), key_bits(ED_PUBLIC));
    let kinds = [
        ("HS256", Algorithm::HS256, secret()),
        ("HS384", Algorithm::HS384, secret()),
        ("HS512", Algorithm::HS512, secret()),
        ("EdDSA", Algorithm::EdDSA, (ed.0, DecodingKey::from_ed_der(&ed.1))),
        ("ES256", Algorithm::ES256, (ec.0, DecodingKey::from_ec_der(&ec.1))),
        ("RS256, 2048 bits", Algorithm::RS256, rsa(RSA_PRIVATE, RSA_PUBLIC)),
        ("RS256, 4096 bits", Algorithm::RS256, rsa(RSA_4096_PRIVATE, RSA_4096_PUBLIC)),
    ];
    for (name, algorithm, (signing, verifying)) in kinds {
        let [short, long] = [300, 64 << 10].map(|bytes| {
            let (message, other) = (vec![b'a'; bytes], vec![b'b'; bytes]);
            let signature = sign(&other, &signing, algorithm).expect("the key signs");
            median(|| {
                let verified = verify(&signature, black_box(&message), &verifying, algorithm);
                assert!(!verified.expect("the key verifies"));
            })
        });
        println!("{name:18} {short:>10.1?} for 300 bytes, {long:>10.1?} for 64 KiB");
    }
}

fn median(mut check: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            check();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn der(pem: &str) -> Vec<u8> {
    Document::from_pem(pem).expect("it is PEM").1.as_bytes().to_vec()
}

fn key_bits(pem: &str) -> Vec<u8> {
    let document = der(pem);
    let info = SubjectPublicKeyInfoRef::from_der(&document).expect("it is a public key");
    info.subject_public_key.raw_bytes().to_vec()
}
